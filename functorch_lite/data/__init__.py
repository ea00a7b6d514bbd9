# SPDX-License-Identifier: MIT
"""Data sets and minibatches: functions that return plain NumPy arrays."""

from .batches import batches as batches
from .cache import DataError as DataError
from .fashion_mnist import FASHION_MNIST_CLASSES as FASHION_MNIST_CLASSES
from .fashion_mnist import digits as digits
from .fashion_mnist import fashion_mnist as fashion_mnist
from .idx import read_idx as read_idx
