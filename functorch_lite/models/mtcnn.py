# SPDX-License-Identifier: MIT
"""The three convolutional networks of the face detector MTCNN: proposal, refinement, output.

Each takes images normalised to (pixel - 127.5) / 128 and says where a face is, in fractions of its window, and how
likely there is one. P-Net is fully convolutional: it looks at every window of 12 pixels, two pixels apart.

Source: K. Zhang and others, arXiv:1604.02878; the names of the state are those of the package `facenet-pytorch`.
"""

from typing import Any, TypeVar

import functorch_lite.numpy as fnp
from functorch_lite import nn, random
from functorch_lite.files import FilePath
from functorch_lite.interop import load_torch
from functorch_lite.models.weights import PipPackage, package_files
from functorch_lite.transforms import eval_shape

Net = TypeVar("Net", bound=nn.Module)


def _rows(x: nn.Array) -> nn.Array:
    """[batch, c, h, w] -> [batch, w h c], the order the weights were trained in."""
    return fnp.reshape(fnp.transpose(x, (0, 3, 2, 1)), (x.shape[0], -1))


class PNet(nn.Module):
    """Images [batch, 3, h, w] -> (boxes [batch, 4, h', w'], probabilities [batch, 2, h', w'] of no face and of a face).

    h' = ceil((h - 2) / 2) - 4, and w' likewise: one place for each window of 12 pixels. Boxes are offsets of left, top,
    right and bottom in units of the window.
    """

    conv1: nn.Conv2d
    prelu1: nn.PReLU
    pool1: nn.MaxPool2d
    conv2: nn.Conv2d
    prelu2: nn.PReLU
    conv3: nn.Conv2d
    prelu3: nn.PReLU
    conv4_1: nn.Conv2d
    conv4_2: nn.Conv2d

    def __init__(self, *, key: nn.Array):
        keys = random.split(key, 5)
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3, key=keys[0]), nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3, key=keys[1]), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3, key=keys[2]), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1, key=keys[3]), nn.Conv2d(32, 4, 1, key=keys[4])

    def __call__(self, images: nn.Array) -> tuple[nn.Array, nn.Array]:
        x = self.pool1(self.prelu1(self.conv1(images)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), nn.softmax(self.conv4_1(x), axis=1)


class RNet(nn.Module):
    """Windows [batch, 3, 24, 24] -> (boxes [batch, 4], probabilities [batch, 2])."""

    conv1: nn.Conv2d
    prelu1: nn.PReLU
    pool1: nn.MaxPool2d
    conv2: nn.Conv2d
    prelu2: nn.PReLU
    pool2: nn.MaxPool2d
    conv3: nn.Conv2d
    prelu3: nn.PReLU
    dense4: nn.Linear
    prelu4: nn.PReLU
    dense5_1: nn.Linear
    dense5_2: nn.Linear

    def __init__(self, *, key: nn.Array):
        keys = random.split(key, 6)
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3, key=keys[0]), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3, key=keys[1]), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2, key=keys[2]), nn.PReLU(64)
        self.pool1 = self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.dense4, self.prelu4 = nn.Linear(576, 128, key=keys[3]), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2, key=keys[4]), nn.Linear(128, 4, key=keys[5])

    def __call__(self, windows: nn.Array) -> tuple[nn.Array, nn.Array]:
        x = self.pool1(self.prelu1(self.conv1(windows)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu4(self.dense4(_rows(self.prelu3(self.conv3(x)))))
        return self.dense5_2(x), nn.softmax(self.dense5_1(x))


class ONet(nn.Module):
    """Windows [batch, 3, 48, 48] -> (boxes [batch, 4], points [batch, 10], probabilities [batch, 2]).

    points: x of both eyes, the nose and both corners of the mouth, then their y, in units of the window.
    """

    conv1: nn.Conv2d
    prelu1: nn.PReLU
    pool1: nn.MaxPool2d
    conv2: nn.Conv2d
    prelu2: nn.PReLU
    pool2: nn.MaxPool2d
    conv3: nn.Conv2d
    prelu3: nn.PReLU
    pool3: nn.MaxPool2d
    conv4: nn.Conv2d
    prelu4: nn.PReLU
    dense5: nn.Linear
    prelu5: nn.PReLU
    dense6_1: nn.Linear
    dense6_2: nn.Linear
    dense6_3: nn.Linear

    def __init__(self, *, key: nn.Array):
        keys = random.split(key, 8)
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3, key=keys[0]), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3, key=keys[1]), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3, key=keys[2]), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2, key=keys[3]), nn.PReLU(128)
        self.pool1 = self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.dense5, self.prelu5 = nn.Linear(1152, 256, key=keys[4]), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2, key=keys[5]), nn.Linear(256, 4, key=keys[6])
        self.dense6_3 = nn.Linear(256, 10, key=keys[7])

    def __call__(self, windows: nn.Array) -> tuple[nn.Array, nn.Array, nn.Array]:
        x = self.pool1(self.prelu1(self.conv1(windows)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu5(self.dense5(_rows(self.prelu4(self.conv4(x)))))
        return self.dense6_2(x), self.dense6_3(x), nn.softmax(self.dense6_1(x))


FACENET = PipPackage(
    requirement="facenet-pytorch==2.6.0",
    wheel_sha256="ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
    folder="facenet_pytorch/data",
    sha256={
        "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
        "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
        "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    },
)


def mtcnn(*, data_dir: FilePath | None = None) -> tuple[PNet, RNet, ONet]:
    """The three networks with their trained weights, 0.5 million parameters together.

    Their 2 MB come from the Python package `facenet-pytorch`, found or fetched as `functorch_lite.models.weights` says;
    `data_dir` is the folder that keeps them.

    Raises DataError when the files cannot be had or are damaged.
    """
    folder = package_files(FACENET, data_dir=data_dir)
    return _load(PNet, folder / "pnet.pt"), _load(RNet, folder / "rnet.pt"), _load(ONet, folder / "onet.pt")


def _load(net: type[Net], path: FilePath) -> Net:
    make: Any = net
    return nn.load_state_dict(eval_shape(lambda key: make(key=key), random.key(0)), load_torch(path))
