# SPDX-License-Identifier: MIT
import sys

import numpy as np
import pytest

from functorch_lite.data import Dataset, ImageFolder, MissingPackageError, read_image, sample_photos
from functorch_lite.data.transforms import resize
from functorch_lite.errors import ArgumentError

Image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")


def picture(seed, shape=(4, 6, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two classes, images in a sub-folder too, and files that are no images."""
    for i, name in enumerate(("dogs/b.png", "dogs/more/a.PNG", "cats/z.png", ".hidden/x.png", "cats/.y.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i)).save(tmp_path / name)
    (tmp_path / "cats" / "notes.txt").write_text("miaow")
    (tmp_path / "readme.png").write_bytes(b"")
    return tmp_path


def test_an_image_comes_channels_first(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "x.png")
    image = read_image(tmp_path / "x.png")
    np.testing.assert_array_equal(image, picture(0).transpose(2, 0, 1), strict=True)
    assert image.flags.c_contiguous
    assert image.flags.writeable


def test_every_kind_of_file_has_three_colours_or_one(tmp_path):
    for i, (mode, ending) in enumerate([("L", "png"), ("RGBA", "png"), ("P", "gif"), ("RGB", "jpg"), ("1", "bmp")]):
        path = tmp_path / f"{i}.{ending}"
        Image.fromarray(picture(0)).convert(mode).save(path)
        assert (read_image(path).shape, read_image(path).dtype) == ((3, 4, 6), np.uint8)
        assert read_image(path, grey=True).shape == (1, 4, 6)


def test_a_rotation_of_the_camera_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(picture(0)).save(tmp_path / "x.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), np.rot90(picture(0), -1).transpose(2, 0, 1))


def test_torn_and_foreign_files_are_named(tmp_path):
    Image.fromarray(picture(0, (40, 40, 3))).save(tmp_path / "torn.png")
    content = (tmp_path / "torn.png").read_bytes()
    for cut in (len(content) // 2, 20, 0):
        (tmp_path / "torn.png").write_bytes(content[:cut])
        with pytest.raises(ArgumentError, match="torn.png is not a whole image"):
            read_image(tmp_path / "torn.png")
    (tmp_path / "text.png").write_text("I am a picture")
    with pytest.raises(ArgumentError, match="text.png is not a whole image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "none.png")


def test_folders_are_classes_in_the_order_of_their_names(folder):
    source = ImageFolder(folder)
    assert source.classes == ("cats", "dogs")
    assert [str(path.relative_to(folder)) for path in source.paths] == ["cats/z.png", "dogs/b.png", "dogs/more/a.PNG"]
    assert source.labels.tolist() == [0, 1, 1]
    image, label = source[2]
    np.testing.assert_array_equal(image, picture(1).transpose(2, 0, 1))
    assert (label, len(source)) == (1, 3)


def test_a_folder_is_a_source_of_a_dataset(folder):
    dataset = Dataset(ImageFolder(folder, grey=True)).map(lambda e: (resize(e[0], 3), e[1])).shuffle(0).batch(3)
    ((images, labels),) = dataset
    assert (images.shape, images.dtype, sorted(labels.tolist())) == ((3, 1, 3, 3), np.uint8, [0, 1, 1])


def test_a_folder_without_classes_or_images_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="should have a folder for each class, but has none"):
        ImageFolder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match=r"there is no image \(.png, .jpg"):
        ImageFolder(tmp_path)


def test_sample_photos():
    pytest.importorskip("sklearn", reason="the photographs come with scikit-learn")
    photos = sample_photos()
    assert (photos.shape, photos.dtype) == ((2, 3, 427, 640), np.uint8)
    assert photos.flags.c_contiguous


def test_without_pillow_the_line_for_pip_is_told(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image")
    with pytest.raises(MissingPackageError, match="read_image needs PIL.* not installed: pip install pillow"):
        ImageFolder(folder)[0]
