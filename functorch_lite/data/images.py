# SPDX-License-Identifier: MIT
"""Photographs: image files, folders of them with one sub-folder a class, and two samples; needs Pillow.

Images are channels first, [3, height, width], as convolutions take them.
"""

import os
from pathlib import Path

import numpy as np

from functorch_lite.errors import ArgumentError
from functorch_lite.packages import need

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def read_image(path: str | os.PathLike[str], *, grey: bool = False) -> np.ndarray:
    """The image of a file as uint8 [3, height, width] in 0..255, red, green, blue; with `grey` [1, height, width].

    Transparency is left out, the rotation that a camera wrote down is applied.

    Raises ArgumentError when it is no image that Pillow knows, or a torn one; OSError when there is no such file;
    MissingPackageError without Pillow.
    """
    pillow = need("PIL.Image", by="read_image", install="pillow")
    turned = need("PIL.ImageOps", by="read_image", install="pillow").exif_transpose
    with open(path, "rb") as file:
        try:
            with pillow.open(file) as image:
                pixels = np.array(turned(image).convert("L" if grey else "RGB"))
        except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as e:
            raise ArgumentError(f"read_image: {path} is not a whole image: {e}") from e
    return pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


class ImageFolder:
    """The images below `root`, as a source for `Dataset`: `folder[i]` is (image uint8 [3, height, width], label).

    Each sub-folder of `root` is a class; its images, in folders below it too, are those whose name ends as in
    `IMAGE_ENDINGS`. Classes and files come in the order of their names. Nothing is read before it is asked for.

    classes: the names of the sub-folders; paths, labels: of each image.

    Raises ArgumentError when there is no sub-folder, or none with an image.

    >>> data = Dataset(ImageFolder("photos")).map(resize).shuffle(0).batch(32).workers(4)       # doctest: +SKIP
    """

    def __init__(self, root: str | os.PathLike[str], *, grey: bool = False):
        top, self._grey = Path(root), grey
        folders = sorted(p for p in top.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not folders:
            raise ArgumentError(f"ImageFolder: {root} should have a folder for each class, but has none.")
        self.classes = tuple(folder.name for folder in folders)
        found = [(path, label) for label, folder in enumerate(folders) for path in _images_below(folder)]
        if not found:
            raise ArgumentError(f"ImageFolder: below {root} there is no image ({', '.join(IMAGE_ENDINGS)}).")
        self.paths = [path for path, _ in found]
        self.labels = np.array([label for _, label in found])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int64]:
        return read_image(self.paths[index], grey=self._grey), self.labels[index]


def _images_below(folder: Path) -> list[Path]:
    shown = (path for path in folder.rglob("*") if not path.name.startswith("."))
    return sorted(path for path in shown if path.suffix.lower() in IMAGE_ENDINGS and path.is_file())


def sample_photos() -> np.ndarray:
    """Two photographs, a temple and a flower, uint8 [2, 3, 427, 640] in 0..255; needs scikit-learn and Pillow.

    Raises MissingPackageError without them.

    >>> sample_photos().shape                                       # doctest: +SKIP
    (2, 3, 427, 640)
    """
    samples = need("sklearn.datasets", by="sample_photos", install="scikit-learn pillow")
    need("PIL.Image", by="sample_photos", install="pillow")
    return np.ascontiguousarray(np.stack(samples.load_sample_images().images).transpose(0, 3, 1, 2))
