# SPDX-License-Identifier: MIT
"""Convolutions alone, forward and with the gradients of image and kernel: 2-D of every kind, 3-D."""

from typing import NamedTuple

import numpy as np

from benchmarks.workloads.common import Workload, normal


class Case(NamedTuple):
    """A convolution: images and kernels in channels-first layout; `dilated` spreads the image (a transposed one)."""

    image: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int = 1
    pad: int = 0
    groups: int = 1
    dilated: int = 1


CASES = {
    "conv-3x3": Case((16, 64, 32, 32), (64, 64, 3, 3), pad=1),
    "conv-1x1": Case((16, 128, 28, 28), (128, 128, 1, 1)),
    "conv-7x7-stride": Case((8, 3, 112, 112), (64, 3, 7, 7), stride=2, pad=3),
    "conv-depthwise": Case((16, 128, 28, 28), (128, 1, 3, 3), pad=1, groups=128),
    "conv-transposed": Case((8, 64, 16, 16), (32, 64, 4, 4), pad=2, dilated=2),
    "conv-3d": Case((4, 16, 16, 24, 24), (32, 16, 3, 3, 3), pad=1),
}


def _inputs(case):
    rng = np.random.default_rng(0)
    fan_in = int(np.prod(case.kernel[1:]))
    return normal(rng, *case.image), normal(rng, *case.kernel, scale=fan_in**-0.5)


def _convolve(case, api):
    n = len(case.kernel) - 2

    def convolve(x, w):
        return api.lax.conv_general_dilated(
            x, w, (case.stride,) * n, [(case.pad, case.pad)] * n, lhs_dilation=(case.dilated,) * n,
            feature_group_count=case.groups,
        )  # fmt: skip

    return convolve


def _gradient(case, api):
    convolve = _convolve(case, api)

    def loss(arrays):
        y = convolve(*arrays)
        return api.np.mean(y * y)

    return lambda x, w: api.grad(loss)((x, w))


def _torch_convolve(case, t):
    F, n = t.torch.nn.functional, len(case.kernel) - 2
    plain = {2: F.conv2d, 3: F.conv3d}[n]

    def convolve(x, w):
        if case.dilated > 1:  # the same sum as a transposed convolution, with the kernel flipped and its axes exchanged
            flipped = w.flip(2, 3).transpose(0, 1)
            return F.conv_transpose2d(x, flipped, stride=case.dilated, padding=case.kernel[2] - 1 - case.pad)
        return plain(x, w, stride=case.stride, padding=case.pad, groups=case.groups)

    return convolve


def _torch_gradient(case, t):
    convolve = _torch_convolve(case, t)

    def loss(arrays):
        y = convolve(*arrays)
        return (y * y).mean()

    gradient = t.value_and_grad(loss)
    return lambda x, w: gradient((x, w))[1]


def _workloads(name, case):
    return [
        Workload(name, "bound", lambda api: _convolve(case, api), lambda t: _torch_convolve(case, t),
                 lambda: _inputs(case)),
        Workload(f"{name}-grad", "bound", lambda api: _gradient(case, api), lambda t: _torch_gradient(case, t),
                 lambda: _inputs(case)),
    ]  # fmt: skip


WORKLOADS = [workload for name, case in CASES.items() for workload in _workloads(name, case)]
