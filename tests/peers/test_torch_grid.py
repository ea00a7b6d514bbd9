# SPDX-License-Identifier: MIT
"""grid_sample and affine_grid against PyTorch's: values, first and second derivatives in float64."""

import numpy as np
import pytest

from functorch_lite import nn
from tests.peers.double_backward import assert_same, ours, theirs

torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
F = torch.nn.functional

PADDINGS = ["zeros", "border", "reflection"]


def image_and_grid(n, seed=0):
    """Points inside of the input, outside of it, and so far away that a reflection turns several times."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 3, *(5, 4, 3)[:n]))
    grid = rng.uniform(-1.6, 1.6, size=(2, *(3, 4, 2)[:n], n))
    grid[:, 0] *= 4
    return x, grid


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode, n", [("bilinear", 2), ("bilinear", 3), ("nearest", 2), ("nearest", 3), ("bicubic", 2)])
def test_grid_sample_is_torchs(mode, n, padding, align):
    x, grid = image_and_grid(n)
    options = {"mode": mode, "padding_mode": padding, "align_corners": align}
    # PyTorch has no second derivative of it.
    assert_same(
        ours(lambda x, g: nn.grid_sample(x, g, **options), x, grid),
        theirs(torch, lambda x, g: F.grid_sample(x, g, **options), x, grid, second=False),
        second=False,
    )


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_points_at_the_borders_and_between_elements_are_torchs(mode, padding, align):
    x, _ = image_and_grid(2)
    ticks = np.array([-1.25, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25])
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1)[None].repeat(2, axis=0)
    options = {"mode": mode, "padding_mode": padding, "align_corners": align}
    assert_same(
        ours(lambda x, g: nn.grid_sample(x, g, **options), x, grid),
        theirs(torch, lambda x, g: F.grid_sample(x, g, **options), x, grid, second=False),
        second=False,
    )


@pytest.mark.filterwarnings("ignore:Since version 1.3.0, affine_grid:UserWarning")
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(3, 4), (1, 5), (2, 3, 4), (3, 1, 1)])
def test_affine_grid_is_torchs(size, align):
    n = len(size)
    theta = np.random.default_rng(1).normal(size=(2, n, n + 1))
    assert_same(
        ours(lambda t: nn.affine_grid(t, size, align_corners=align), theta),
        theirs(torch, lambda t: F.affine_grid(t, (2, 1, *size), align_corners=align), theta),
    )
