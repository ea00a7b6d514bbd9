# SPDX-License-Identifier: MIT
"""Every transform by law (compiled equals eager, mapped equals a loop), then each by what it is for."""

import colorsys

import numpy as np
import pytest

import functorch_lite as fl
from functorch_lite import random
from functorch_lite.data import transforms as t
from functorch_lite.errors import ArgumentError, DTypeError, ShapeError

KEY = random.key(7)

DETERMINISTIC = {
    "pad": lambda x: t.pad(x, (1, (2, 0)), value=3),
    "pad_reflect": lambda x: t.pad(x, 2, mode="reflect"),
    "center_crop": lambda x: t.center_crop(x, (4, 5)),
    "flip_horizontal": t.flip_horizontal,
    "flip_vertical": t.flip_vertical,
    "resize": lambda x: t.resize(x, (5, 12)),
    "resize_cubic": lambda x: t.resize(x, (5, 12), method="cubic"),
    "resize_nearest": lambda x: t.resize(x, (5, 12), method="nearest"),
    "resize_aliased": lambda x: t.resize(x, (5, 12), antialias=False),
    "crop_and_resize": lambda x: t.crop_and_resize(x, (0.5, 1.0, 4.2, 5.0), 6),
    "to_float": t.to_float,
    "normalize": lambda x: t.normalize(t.to_float(x), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)),
    "grayscale": t.grayscale,
    "adjust_brightness": lambda x: t.adjust_brightness(x, 1.4),
    "adjust_contrast": lambda x: t.adjust_contrast(x, 0.4),
    "adjust_saturation": lambda x: t.adjust_saturation(x, 1.7),
    "adjust_hue": lambda x: t.adjust_hue(x, 0.3),
}
RANDOM = {
    "random_crop": lambda key, x: t.random_crop(key, x, (4, 6), padding=2),
    "random_flip_horizontal": t.random_flip_horizontal,
    "random_flip_vertical": t.random_flip_vertical,
    "random_erasing": lambda key, x: t.random_erasing(key, x, p=0.8, value=9),
    "random_resized_crop": lambda key, x: t.random_resized_crop(key, x, (5, 4)),
    "color_jitter": lambda key, x: t.color_jitter(key, x, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
}
FUNCTIONS = RANDOM | {name: (lambda key, x, f=f: f(x)) for name, f in DETERMINISTIC.items()}


def images(dtype, n=6, shape=(3, 8, 9)):
    pixels = np.random.default_rng(0).integers(0, 256, (n, *shape))
    return pixels.astype(dtype) if np.issubdtype(dtype, np.integer) else (pixels / 255).astype(dtype)


def assert_same(result, expected, dtype):
    """Equal up to the rounding of sums in another order; integers up to one, where a half went the other way."""
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    far = 1 if np.issubdtype(result.dtype, np.integer) else 8 * np.finfo(result.dtype).eps
    np.testing.assert_allclose(result.astype(float), expected.astype(float), rtol=far * (far < 1), atol=far)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32], ids=["uint8", "float32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_equals_eager(name, dtype):
    (image,) = images(dtype, 1)
    assert_same(fl.jit(FUNCTIONS[name])(KEY, image), FUNCTIONS[name](KEY, image), dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32], ids=["uint8", "float32"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_mapped_equals_a_loop_also_compiled(name, dtype):
    batch, keys, fun = images(dtype), random.split(KEY, 6), FUNCTIONS[name]
    expected = np.stack([fun(key, image) for key, image in zip(keys, batch, strict=True)])
    assert_same(fl.vmap(fun)(keys, batch), expected, dtype)
    assert_same(fl.jit(fl.vmap(fun))(keys, batch), expected, dtype)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"to_float", "normalize"}))
def test_the_dtype_stays(name):
    for dtype in (np.uint8, np.float16, np.float32, np.float64):
        (image,) = images(dtype, 1)
        assert FUNCTIONS[name](KEY, image).dtype == dtype


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_transform_depends_on_its_key_alone(name):
    (image,) = images(np.uint8, 1)
    results = [RANDOM[name](key, image) for key in random.split(KEY, 12)]
    assert len({result.tobytes() for result in results}) > 1
    np.testing.assert_array_equal(RANDOM[name](KEY, image), RANDOM[name](KEY, image))


# Crops, flips, borders, boxes


def test_a_random_crop_is_a_piece_of_the_padded_image_and_all_places_come():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4) + 1
    padded = np.pad(image, 1)
    pieces = {padded[i : i + 3, j : j + 4].tobytes() for i in range(3) for j in range(3)}
    found = {t.random_crop(key, image, (3, 4), padding=1).tobytes() for key in random.split(KEY, 120)}
    assert found == pieces


def test_center_crop_takes_the_middle():
    assert t.center_crop(np.arange(20).reshape(4, 5), (2, 2)).tolist() == [[6, 7], [11, 12]]


@pytest.mark.parametrize("crop", [t.center_crop, lambda x, size: t.random_crop(KEY, x, size)])
def test_a_crop_larger_than_the_image_is_refused(crop):
    with pytest.raises(ArgumentError, match=r"a crop of \(3, 9\) does not fit into an image of \(8, 8\); pad it first"):
        crop(np.zeros((8, 8)), (3, 9))


def test_a_size_that_is_none_is_refused():
    with pytest.raises(ArgumentError, match="`size` should be one or two numbers of at least 1, but is 0"):
        t.center_crop(np.zeros((8, 8)), 0)
    with pytest.raises(ArgumentError, match="`padding` should be n"):
        t.pad(np.zeros((8, 8)), (1, 2, 3))


@pytest.mark.parametrize("flip, axis", [("horizontal", -1), ("vertical", -2)])
def test_a_random_flip_flips_with_its_probability(flip, axis):
    (image,) = images(np.uint8, 1)
    fun = getattr(t, f"random_flip_{flip}")
    flipped = [np.array_equal(fun(key, image, 0.25), np.flip(image, axis)) for key in random.split(KEY, 400)]
    assert 70 <= sum(flipped) <= 130
    np.testing.assert_array_equal(fun(KEY, image, 0.0), image)
    np.testing.assert_array_equal(fun(KEY, image, 1.0), getattr(t, f"flip_{flip}")(image))


def test_erasing_fills_one_box_of_the_right_size():
    image = np.zeros((3, 40, 50), np.uint8)
    erased = fl.vmap(lambda key: t.random_erasing(key, image, p=1.0, scale=(0.1, 0.3), value=5))(random.split(KEY, 50))
    assert set(np.unique(erased)) == {0, 5}
    for mask in erased[:, 0] == 5:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert mask.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert 0.08 <= mask.mean() <= 0.33
    np.testing.assert_array_equal(t.random_erasing(KEY, image, p=0.0, value=5), image)


# Resizing


@pytest.mark.parametrize("size", [(5, 40), (17, 23), (30, 7), (1, 1)])
@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_resize_is_torchs_with_antialias(method, size):
    torch = pytest.importorskip("torch", reason="a comparison with PyTorch")
    x = np.random.default_rng(0).random((3, 17, 23))
    mode = {"linear": "bilinear", "cubic": "bicubic"}[method]
    expected = torch.nn.functional.interpolate(torch.from_numpy(x)[None], size, mode=mode, antialias=True)[0].numpy()
    np.testing.assert_allclose(t.resize(x, size, method=method), expected, atol=1e-12)


@pytest.mark.parametrize("method", ["linear", "cubic", "nearest"])
def test_resize_to_the_same_size_changes_nothing(method):
    (image,) = images(np.uint8, 1)
    np.testing.assert_array_equal(t.resize(image, image.shape[-2:], method=method), image)


def test_resize_keeps_a_constant_image_and_the_range_of_integers():
    assert np.all(t.resize(np.full((7, 9), 200, np.uint8), (3, 20), method="cubic") == 200)
    edge = np.array([[0, 0, 255, 255]], np.uint8).repeat(4, 0)
    result = t.resize(edge, (4, 16), method="cubic")
    assert (result.min(), result.max()) == (0, 255)


def test_crop_and_resize_of_whole_pixels_is_a_crop():
    image = images(np.float32, 1)[0]
    np.testing.assert_allclose(t.crop_and_resize(image, (2.0, 1.0, 4.0, 5.0), (4, 5)), image[:, 2:6, 1:6], atol=1e-6)


def test_random_resized_crop_of_the_whole_is_resize():
    image = images(np.float32, 1)[0]
    whole = t.random_resized_crop(KEY, image, (4, 6), scale=(100.0, 100.0))
    np.testing.assert_allclose(whole, t.resize(image, (4, 6)), atol=1e-6)


def test_an_unknown_method_is_refused():
    with pytest.raises(ArgumentError, match="`method` should be 'nearest', 'linear' or 'cubic', but is 'lanczos'"):
        t.resize(np.zeros((2, 2)), 3, method="lanczos")
    with pytest.raises(ArgumentError, match="`method` should be 'linear' or 'cubic', but is 'nearest'"):
        t.crop_and_resize(np.zeros((2, 2)), (0, 0, 1, 1), 3, method="nearest")


# Colours


def test_hue_is_turned_as_colorsys_does():
    (image,) = images(np.float64, 1)
    result = t.adjust_hue(image, 0.2).reshape(3, -1).T
    for pixel, turned in zip(image.reshape(3, -1).T, result, strict=True):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        np.testing.assert_allclose(turned, colorsys.hsv_to_rgb((h + 0.2) % 1, s, v), atol=1e-12)


@pytest.mark.parametrize("name, factor", [("brightness", 1.0), ("contrast", 1.0), ("saturation", 1.0), ("hue", 0.0)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_neutral_adjustment_changes_nothing(name, factor, dtype):
    (image,) = images(dtype, 1)
    assert_same(getattr(t, f"adjust_{name}")(image, factor), image, dtype)


def test_adjustments_to_zero():
    (image,) = images(np.float64, 1)
    luma = np.tensordot([0.299, 0.587, 0.114], image, 1)
    assert not t.adjust_brightness(image, 0.0).any()
    np.testing.assert_allclose(t.adjust_saturation(image, 0.0), np.stack([luma] * 3), atol=1e-7)
    np.testing.assert_allclose(t.adjust_contrast(image, 0.0), np.full_like(image, luma.mean()), atol=1e-7)
    np.testing.assert_allclose(t.grayscale(image), np.stack([luma] * 3), atol=1e-7)


def test_adjusted_values_stay_in_their_range():
    assert t.adjust_brightness(np.array([[100, 200]], np.uint8), 2.0).tolist() == [[200, 255]]
    assert t.adjust_brightness(np.array([[0.4, 0.8]]), 2.0).tolist() == [[0.8, 1.0]]


def test_color_jitter_without_amounts_changes_nothing():
    (image,) = images(np.uint8, 1)
    np.testing.assert_array_equal(t.color_jitter(KEY, image), image)


@pytest.mark.parametrize("amounts", [{"hue": 0.6}, {"contrast": -1.0}])
def test_color_jitter_out_of_range_is_refused(amounts):
    (name,) = amounts
    with pytest.raises(ArgumentError, match=f"`{name}` should be from 0"):
        t.color_jitter(KEY, np.zeros((3, 2, 2)), **amounts)


def test_colours_need_three_channels():
    with pytest.raises(ShapeError, match=r"`image` should be \[..., 3, height, width\], but has shape \(4, 4\)"):
        t.grayscale(np.zeros((4, 4)))


def test_normalize():
    image = np.stack([np.full((2, 2), v, np.float32) for v in (1, 2, 3)])
    result = t.normalize(image, (1, 1, 1), (1, 2, 4))
    assert result[:, 0, 0].tolist() == [0.0, 0.5, 0.5]
    with pytest.raises(DTypeError, match="`image` should be floats, but is uint8. Use to_float"):
        t.normalize(np.zeros((3, 2, 2), np.uint8), 0, 1)
    with pytest.raises(ArgumentError, match="`mean` should be a number, or one for each channel"):
        t.normalize(image, (1, 2), 1)


# Mixing


def test_one_hot_with_smoothing_sums_to_one():
    result = t.one_hot(np.array([[0, 2]], np.uint8), 3, smoothing=0.3)
    np.testing.assert_allclose(result, [[[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]], rtol=1e-6)
    assert t.one_hot(np.array([1]), 2, dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize("mix", [t.mixup, t.cutmix])
def test_a_mix_has_labels_in_the_share_of_its_pixels(mix):
    n = 8
    x = np.broadcast_to(np.arange(n, dtype=np.float32)[:, None, None], (n, 20, 20)).copy()
    labels = t.one_hot(np.arange(n), n)
    for key in random.split(KEY, 5):
        for fun in (mix, fl.jit(mix)):
            images_mixed, labels_mixed = fun(key, x, labels)
            np.testing.assert_allclose(labels_mixed.sum(1), 1, rtol=1e-6)
            np.testing.assert_allclose(images_mixed.mean((1, 2)), labels_mixed @ np.arange(n), atol=1e-4)


def test_mixes_under_vmap_equal_a_loop():
    x, labels = images(np.float32, 6, (4, 5)).reshape(2, 3, 4, 5), np.stack([t.one_hot(np.arange(3), 3)] * 2)
    keys = random.split(KEY, 2)
    for mix in (t.mixup, t.cutmix):
        for result, expected in zip(
            fl.vmap(mix)(keys, x, labels), zip(*map(mix, keys, x, labels), strict=True), strict=True
        ):
            np.testing.assert_allclose(result, np.stack(expected), rtol=1e-6, atol=1e-7)


def test_cutmix_takes_whole_pixels_and_keeps_integers():
    x = images(np.uint8, 4)
    mixed, _ = t.cutmix(KEY, x, t.one_hot(np.arange(4), 4))
    assert mixed.dtype == np.uint8
    assert all(pixel in column for pixel, column in zip(mixed[0].ravel(), x.reshape(4, -1).T, strict=True))


def test_mixes_refuse_what_they_cannot_mix():
    x = np.zeros((2, 4, 4), np.float32)
    for mix in (t.mixup, t.cutmix):
        with pytest.raises(ShapeError, match=r"`labels` should be floats \[2, classes\], but are int64\(2,\)"):
            mix(KEY, x, np.array([0, 1]))
        with pytest.raises(ArgumentError, match="`alpha` should be above 0"):
            mix(KEY, x, np.zeros((2, 3)), alpha=0.0)
    with pytest.raises(DTypeError, match="`images` should be floats, but are uint8"):
        t.mixup(KEY, x.astype(np.uint8), np.zeros((2, 3)))
    with pytest.raises(ShapeError, match=r"`images` should be \[n, ..., height, width\]"):
        t.cutmix(KEY, np.zeros((2, 4)), np.zeros((2, 3)))
