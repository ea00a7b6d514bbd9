# SPDX-License-Identifier: MIT
import hashlib
import importlib
from dataclasses import replace

import numpy as np
import pytest

from functorch_lite.data import CIFAR10_CLASSES, CIFAR100_CLASSES, DataError, cifar10, cifar100, read_cifar
from functorch_lite.errors import ArgumentError
from tests.data.test_text import archive

module = importlib.import_module("functorch_lite.data.cifar")


def records(n, n_labels, seed):
    """Images, labels, and the bytes of their file."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 3, 32, 32)).astype(np.uint8)
    labels = rng.integers(0, 10, (n, n_labels)).astype(np.uint8)
    return images, labels, np.concatenate([labels, images.reshape(n, 3072)], 1).tobytes()


@pytest.mark.parametrize("n_labels", [1, 2])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_images_and_labels_are_read_back(tmp_path, n, n_labels):
    images, labels, content = records(n, n_labels, 0)
    (tmp_path / "file.bin").write_bytes(content)
    for source in (content, tmp_path / "file.bin"):
        found, found_labels = read_cifar(source, n_labels=n_labels)
        np.testing.assert_array_equal(found, images, strict=True)
        np.testing.assert_array_equal(found_labels, labels, strict=True)
        assert found.flags.owndata or found.base.flags.owndata
        assert found.flags.writeable


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0"])
def test_a_wrong_length_is_refused(tmp_path, change):
    (tmp_path / "file.bin").write_bytes(change(records(2, 1, 0)[2]))
    with pytest.raises(ArgumentError, match=r"file.bin should hold records of 3073 bytes, but its 614[57] bytes"):
        read_cifar(tmp_path / "file.bin")


@pytest.fixture
def put(tmp_path, monkeypatch):
    """A function that puts an archive of these files where a data set is looked for."""

    def write(variable, files):
        published, content = getattr(module, variable), archive(files)
        (name,) = published.sha256
        monkeypatch.setattr(module, variable, replace(published, sha256={name: hashlib.sha256(content).hexdigest()}))
        (tmp_path / published.name).mkdir()
        (tmp_path / published.name / name).write_bytes(content)

    return write


def test_cifar10_joins_its_five_files_in_order(put, tmp_path):
    parts = [records(2, 1, seed) for seed in range(6)]
    folder = "cifar-10-batches-bin"
    files = {f"{folder}/data_batch_{i + 1}.bin": parts[i][2] for i in (4, 2, 0, 1, 3)}
    put("_CIFAR10", {**files, f"{folder}/test_batch.bin": parts[5][2], f"{folder}/readme.html": b"text"})
    images, labels = cifar10("train", data_dir=tmp_path)
    np.testing.assert_array_equal(images, np.concatenate([part[0] for part in parts[:5]]))
    np.testing.assert_array_equal(labels, np.concatenate([part[1][:, 0] for part in parts[:5]]))
    images, labels = cifar10("test", data_dir=tmp_path)
    np.testing.assert_array_equal(images, parts[5][0])
    assert (labels.shape, labels.dtype) == ((2,), np.uint8)


def test_cifar100_has_two_kinds_of_labels(put, tmp_path):
    train, test = records(3, 2, 0), records(2, 2, 1)
    put("_CIFAR100", {"cifar-100-binary/train.bin": train[2], "cifar-100-binary/test.bin": test[2]})
    for kind, column in (("fine", 1), ("coarse", 0)):
        images, labels = cifar100("train", labels=kind, data_dir=tmp_path)
        np.testing.assert_array_equal(images, train[0])
        np.testing.assert_array_equal(labels, train[1][:, column])
    assert len(cifar100("test", data_dir=tmp_path)[0]) == 2


def test_an_archive_of_another_kind_is_refused(put, tmp_path):
    put("_CIFAR10", {"something": b""})
    with pytest.raises(DataError, match="cifar-10-binary.tar.gz holds none of the files looked for"):
        cifar10(data_dir=tmp_path)


def test_a_foreign_archive_is_named(tmp_path):
    (tmp_path / "cifar-10").mkdir()
    (tmp_path / "cifar-10" / "cifar-10-binary.tar.gz").write_bytes(b"cats")
    with pytest.raises(DataError, match="cifar-10-binary.tar.gz should have the SHA-256 c4a38c50"):
        cifar10(data_dir=tmp_path)


def test_what_is_unknown_is_refused():
    with pytest.raises(ArgumentError, match="`split` should be 'train' or 'test', but is 'valid'"):
        cifar10("valid")
    with pytest.raises(ArgumentError, match="`labels` should be 'fine' or 'coarse', but is 'both'"):
        cifar100(labels="both")


def test_every_class_has_a_name():
    assert (len(CIFAR10_CLASSES), len(CIFAR100_CLASSES), len(set(CIFAR100_CLASSES))) == (10, 100, 100)
    assert list(CIFAR100_CLASSES) == sorted(CIFAR100_CLASSES)
