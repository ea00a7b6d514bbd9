# SPDX-License-Identifier: MIT
"""grid_sample and affine_grid: known answers, second derivatives, transforms and messages."""

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import nn
from functorch_lite.errors import ArgumentError, ShapeError

RNG = np.random.default_rng(3)
IMAGE = RNG.normal(size=(2, 3, 4, 5))
GRID = RNG.uniform(-1.3, 1.3, size=(2, 6, 2))
MODES = [(mode, padding) for mode in ("bilinear", "bicubic") for padding in ("zeros", "border", "reflection")]


def points(grid, n=2):
    """A grid [2, m, 2] as one of n output axes."""
    return grid.reshape(2, -1, *(1,) * (n - 1), 2)


def assert_close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("align", [False, True])
def test_the_identity_reads_the_image_itself(mode, align):
    theta = np.broadcast_to(np.eye(2, 3), (2, 2, 3))
    grid = nn.affine_grid(theta, (4, 5), align_corners=align)
    assert_close(nn.grid_sample(IMAGE, grid, mode=mode, align_corners=align), IMAGE)


def test_a_quarter_turn_is_a_rotation_of_the_image():
    image = IMAGE[..., :4]
    theta = np.broadcast_to(np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]), (2, 2, 3))
    out = nn.grid_sample(image, nn.affine_grid(theta, (4, 4)))
    assert_close(out, np.rot90(image, k=-1, axes=(2, 3)))


def test_lines_and_volumes_are_read_too():
    line = np.array([[0.0, 10.0, 20.0]])
    assert_close(nn.grid_sample(line, np.array([[-1.0], [0.0], [0.5]]), align_corners=True), [[0.0, 10.0, 15.0]])
    volume = RNG.normal(size=(1, 2, 2, 2))
    assert_close(nn.grid_sample(volume, np.zeros((1, 1, 1, 3)))[0, 0, 0, 0], volume.mean())


@pytest.mark.parametrize("align", [False, True])
def test_what_is_outside_follows_the_padding_mode(align):
    line, far = np.array([[1.0, 2.0, 3.0]]), np.array([[9.0], [-9.0]])
    assert_close(nn.grid_sample(line, far, align_corners=align), [[0.0, 0.0]])
    assert_close(nn.grid_sample(line, far, padding_mode="border", align_corners=align), [[3.0, 1.0]])
    assert_close(nn.grid_sample(line[:, :1], far, padding_mode="reflection", align_corners=align), [[1.0, 1.0]])


@pytest.mark.parametrize("mode, padding", MODES)
def test_the_second_derivative_is_the_slope_of_the_first(mode, padding):
    def gradients(x, grid):
        def loss(x, grid):
            return (nn.grid_sample(x, points(grid), mode=mode, padding_mode=padding) ** 3).sum()

        return fl.grad(loss, argnums=(0, 1))(x, grid)

    dx, dg = RNG.normal(size=IMAGE.shape), RNG.normal(size=GRID.shape)
    _, exact = fl.jvp(gradients, (IMAGE, GRID), (dx, dg))
    step = 1e-6
    high, low = (gradients(IMAGE + s * dx, GRID + s * dg) for s in (step, -step))
    for tangent, above, below in zip(exact, high, low, strict=True):
        assert_close(tangent, (above - below) / (2 * step), 2e-5)


@pytest.mark.parametrize("mode, padding", [*MODES, ("nearest", "zeros")])
def test_jit_and_vmap_change_nothing(mode, padding):
    def sample(x, grid):
        return nn.grid_sample(x, grid, mode=mode, padding_mode=padding)

    grid = points(GRID)
    expected = sample(IMAGE, grid)
    assert_close(fl.jit(sample)(IMAGE, grid), expected)
    assert_close(fl.vmap(sample)(IMAGE, grid), expected)
    assert_close(sample(IMAGE[None], grid[None])[0], expected)
    assert sample(IMAGE.astype(np.float32), grid.astype(np.float32)).dtype == np.float32


def test_points_that_are_no_number_read_without_warning():
    out = nn.grid_sample(np.ones((1, 2, 2)), np.full((1, 1, 2), np.nan), mode="nearest")
    assert_close(out, [[[0.0]]])
    assert np.isnan(nn.grid_sample(np.ones((1, 2, 2)), np.full((1, 1, 2), np.nan), padding_mode="border")).all()


def test_wrong_arguments_are_named():
    grid = points(GRID)
    with pytest.raises(ArgumentError, match="`mode` should be one of bilinear, nearest, bicubic, but is 'cubic'"):
        nn.grid_sample(IMAGE, grid, mode="cubic")
    with pytest.raises(ArgumentError, match="`padding_mode` should be one of zeros, border, reflection, but is 'wrap'"):
        nn.grid_sample(IMAGE, grid, padding_mode="wrap")
    with pytest.raises(ShapeError, match=r"the last axis of `grid` \(2, 6, 1, 4\) should hold 1, 2 or 3 coordinates"):
        nn.grid_sample(IMAGE, np.zeros((2, 6, 1, 4)))
    with pytest.raises(ShapeError, match=r"for `x` \(2, 3, 4, 5\) the `grid` should be \[2, \*out, 2\] with 2 axes"):
        nn.grid_sample(IMAGE, grid[:1])
    with pytest.raises(ShapeError, match=r"`theta` should be \[..., 2, 3\] or \[..., 3, 4\], but is \(3, 3\)"):
        nn.affine_grid(np.eye(3), (2, 2))
    with pytest.raises(ArgumentError, match=r"`size` should be 2 positive ints for this theta, but is \(2, 2, 2\)"):
        nn.affine_grid(np.eye(2, 3), (2, 2, 2))
