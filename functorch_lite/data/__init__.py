# SPDX-License-Identifier: MIT
"""Data: sets, files, pipelines, loaders with a place that can be saved, and transforms of images.

    fashion_mnist cifar10 cifar100 digits sample_photos shakespeare    data sets, as plain arrays and text
    read_idx read_cifar read_image read_text read_lines ImageFolder    files
    batches Loader Windows Dataset                                     minibatches; Dataset is a pipeline with workers
    Prefetch                                                           batches ahead of time, on their device
    CharTokenizer                                                      characters as numbers
    transforms                                                         crops, flips, sizes, colours, mixing

Nothing here imports an optional package before it is needed.
"""

import importlib
from typing import TYPE_CHECKING

from functorch_lite.errors import MissingPackageError as MissingPackageError

from .batches import batches as batches
from .cache import DataError as DataError
from .cifar import CIFAR10_CLASSES as CIFAR10_CLASSES
from .cifar import CIFAR100_CLASSES as CIFAR100_CLASSES
from .cifar import cifar10 as cifar10
from .cifar import cifar100 as cifar100
from .cifar import read_cifar as read_cifar
from .dataset import Dataset as Dataset
from .fashion_mnist import FASHION_MNIST_CLASSES as FASHION_MNIST_CLASSES
from .fashion_mnist import digits as digits
from .fashion_mnist import fashion_mnist as fashion_mnist
from .idx import read_idx as read_idx
from .images import ImageFolder as ImageFolder
from .images import read_image as read_image
from .images import sample_photos as sample_photos
from .loader import Loader as Loader
from .movie_reviews import movie_reviews as movie_reviews
from .prefetch import Prefetch as Prefetch
from .shakespeare import shakespeare as shakespeare
from .text import CharTokenizer as CharTokenizer
from .text import read_lines as read_lines
from .text import read_text as read_text
from .windows import Windows as Windows

if TYPE_CHECKING:
    from functorch_lite.data import transforms as transforms


def __getattr__(name: str):
    if name == "transforms":  # loaded when first used, since it needs `nn` and worker processes do not
        return importlib.import_module("functorch_lite.data.transforms")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
