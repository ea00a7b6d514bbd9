# SPDX-License-Identifier: MIT
"""CIFAR-10 and CIFAR-100: 60,000 small colour photographs in 10 or 100 classes.

The binary format is records without a header: the label (CIFAR-100: the coarse label, then the fine one), one byte
each, then 3072 bytes of pixels, the red, the green and the blue plane of 32x32, row by row.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

import os
from pathlib import Path
from typing import Literal

import numpy as np

from functorch_lite.data.archive import read_members
from functorch_lite.data.cache import Published, load_files
from functorch_lite.data.fashion_mnist import Split, check_split
from functorch_lite.errors import ArgumentError

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

CIFAR100_CLASSES = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm""".split()
)

_SHAPE = (3, 32, 32)
_MIRRORS = ("https://www.cs.toronto.edu/~kriz",)
_CIFAR10 = Published(
    name="cifar-10",
    sha256={"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    mirrors=_MIRRORS,
    is_archive=True,
)
_CIFAR100 = Published(
    name="cifar-100",
    sha256={"cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"},
    mirrors=_MIRRORS,
    is_archive=True,
)


def cifar10(split: Split = "train", *, data_dir: str | os.PathLike[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3, 32, 32] in 0..255 and labels uint8 [n] in 0..9 of CIFAR-10.

    n is 50,000 for `split` "train" and 10,000 for "test"; `CIFAR10_CLASSES[label]` is a label's name. The archive
    (162 MB to fetch and keep) is looked for in `data_dir`, or where `functorch_lite.data.cache` says.

    Raises DataError when the archive cannot be had or is damaged, ArgumentError for another split.

    >>> images, labels = cifar10("test")      # doctest: +SKIP
    >>> images.shape, CIFAR10_CLASSES[labels[0]]      # doctest: +SKIP
    ((10000, 3, 32, 32), 'cat')
    """
    pattern = "data_batch_" if check_split("cifar10", split) == "train" else "test_batch"
    images, labels = _load(_CIFAR10, pattern, 1, data_dir)
    return images, labels[:, 0]


def cifar100(
    split: Split = "train",
    *,
    labels: Literal["fine", "coarse"] = "fine",
    data_dir: str | os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3, 32, 32] in 0..255 and labels uint8 [n] of CIFAR-100: in 0..99, or "coarse" in 0..19.

    n is 50,000 for `split` "train" and 10,000 for "test"; `CIFAR100_CLASSES[label]` is a fine label's name. The archive
    (161 MB to fetch and keep) is looked for in `data_dir`, or where `functorch_lite.data.cache` says.

    Raises DataError when the archive cannot be had or is damaged, ArgumentError for another split or kind of label.
    """
    if labels not in ("fine", "coarse"):
        raise ArgumentError(f"cifar100: `labels` should be 'fine' or 'coarse', but is {labels!r}.")
    images, both = _load(_CIFAR100, f"{check_split('cifar100', split)}.bin", 2, data_dir)
    return images, both[:, 1 if labels == "fine" else 0]


def _load(dataset: Published, pattern: str, n_labels: int, data_dir) -> tuple[np.ndarray, np.ndarray]:
    (name,) = dataset.sha256
    (archive,) = load_files(dataset, [name], data_dir=data_dir)
    files = read_members(archive, lambda path: path.endswith(".bin") and Path(path).name.startswith(pattern), name)
    parts = [read_cifar(files[path], n_labels=n_labels) for path in sorted(files)]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def read_cifar(source: str | os.PathLike[str] | bytes, *, n_labels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 3, 32, 32] and labels uint8 [n, n_labels] in a binary CIFAR file, given by path or bytes.

    n_labels: 1 for CIFAR-10, 2 (coarse and fine) for CIFAR-100.

    Raises ArgumentError when the length is not that of whole records.

    >>> images, labels = read_cifar(bytes([7]) + bytes(3072))
    >>> images.shape, labels.tolist()
    ((1, 3, 32, 32), [[7]])
    """
    name = "the bytes given" if isinstance(source, bytes) else str(source)
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    size = n_labels + int(np.prod(_SHAPE))
    if len(content) % size:
        raise ArgumentError(
            f"read_cifar: {name} should hold records of {size} bytes, but its {len(content)} bytes are no multiple of "
            "that; the file is torn or of another kind."
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    return records[:, n_labels:].reshape(-1, *_SHAPE).copy(), records[:, :n_labels].copy()
