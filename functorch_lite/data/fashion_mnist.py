# SPDX-License-Identifier: MIT
"""Fashion-MNIST, and the digits of scikit-learn that stand in for it where it cannot be had.

Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning
algorithms", arXiv:1708.07747; MIT licence.
"""

import os
from typing import Literal

import numpy as np

from functorch_lite.data.cache import DataError, Published, load_files
from functorch_lite.data.idx import read_idx
from functorch_lite.errors import ArgumentError

FASHION_MNIST_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

Split = Literal["train", "test"]

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

_DATASET = Published(
    name="fashion-mnist",
    package="dataset-fashion-mnist",
    mirrors=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets",
    ),
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)

_N_DIGITS_TRAIN = 1500


def fashion_mnist(
    split: Split = "train", *, data_dir: str | os.PathLike[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 28, 28] in 0..255 and labels uint8 [n] in 0..9 of Fashion-MNIST.

    n is 60,000 for `split` "train" and 10,000 for "test"; `FASHION_MNIST_CLASSES[label]` is a label's name. The files
    (31 MB to fetch, 55 MB kept) are looked for in `data_dir`, or where `functorch_lite.data.cache` says.

    Raises DataError when the files cannot be had or are damaged, ArgumentError for another split.

    >>> images, labels = fashion_mnist("test")      # doctest: +SKIP
    >>> images.shape, FASHION_MNIST_CLASSES[labels[0]]      # doctest: +SKIP
    ((10000, 28, 28), 'Ankle boot')
    """
    images, labels = load_files(_DATASET, _FILES[check_split("fashion_mnist", split)], data_dir=data_dir)
    return read_idx(images), read_idx(labels)


def digits(split: Split = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 8, 8] in 0..255 and labels uint8 [n] in 0..9 of handwritten digits; needs scikit-learn.

    n is 1,500 for `split` "train" and 297 for "test", drawn once and for all. The pixels, 0..16 in scikit-learn, are
    spread over 0..255, so that code for Fashion-MNIST takes them as they are.

    Raises DataError when scikit-learn is not installed, ArgumentError for another split.

    >>> images, labels = digits("test")
    >>> images.shape, images.dtype.name, labels.shape
    ((297, 8, 8), 'uint8', (297,))
    """
    check_split("digits", split)
    try:
        from sklearn.datasets import load_digits
    except ImportError as e:
        raise DataError("digits: the images come with scikit-learn, which is missing: pip install scikit-learn") from e
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.Generator(np.random.Philox(0)).permutation(len(labels))
    rows = order[:_N_DIGITS_TRAIN] if split == "train" else order[_N_DIGITS_TRAIN:]
    images = np.round(pixels[rows] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return images, labels[rows].astype(np.uint8)


def check_split(function: str, split: str) -> str:
    """`split` itself. Raises ArgumentError unless it is "train" or "test"; `function` is whom the error names."""
    if split not in _FILES:
        raise ArgumentError(f"{function}: `split` should be 'train' or 'test', but is {split!r}.")
    return split
