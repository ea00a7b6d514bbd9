# SPDX-License-Identifier: MIT
"""Threefry on NumPy: Random123's known answers, JAX's bits, and the independence of chunks."""

from pathlib import Path

import numpy as np
import pytest

from functorch_lite.backends import threefry
from functorch_lite.errors import ArgumentError, ArgumentTypeError, DTypeError, ShapeError

FIXTURES = np.load(Path(__file__).parents[1] / "data" / "random_jax.npz")
SEEDS = (0, 20240607)
KEY = np.array([7, 11], np.uint32)
WIDTHS = {"u8": 8, "u16": 16, "u32": 32, "u64": 64}

# Two key words, two counter words, two outputs: threefry2x32 with 20 rounds in Random123's kat_vectors.
KNOWN_ANSWERS = [
    (0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x6B200159, 0x99BA4EFE),
    (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x1CB996FC, 0xBB002BE7),
    (0x13198A2E, 0x03707344, 0x243F6A88, 0x85A308D3, 0xC4923A9C, 0x483DF7A0),
]


def shape_of(name):
    return tuple(int(n) for n in name.rpartition("/")[2].strip("(),").split(",") if n.strip())


def rows(prefix):
    return [name for name in FIXTURES.files if name.startswith(prefix)]


@pytest.mark.parametrize("words", KNOWN_ANSWERS)
def test_hash_gives_the_known_answers_of_random123(words):
    k0, k1, x0, x1 = (np.uint32(w) for w in words[:4])
    assert threefry.threefry2x32(np, k0, k1, x0, x1) == words[4:]
    y0, y1 = threefry.threefry2x32(np, k0, k1, np.full(40_000, x0), np.full(40_000, x1))
    assert (y0 == words[4]).all() and (y1 == words[5]).all()
    assert threefry._hash_int(*words[:4]) == words[4:]


def test_hash_broadcasts_keys_against_counters():
    k0, x1 = np.arange(3, dtype=np.uint32)[:, None], np.arange(5, dtype=np.uint32)
    y0, y1 = threefry.threefry2x32(np, k0, np.uint32(9), np.uint32(1), x1)
    assert y0.shape == y1.shape == (3, 5)
    for i in range(3):
        for j in range(5):
            assert (y0[i, j], y1[i, j]) == threefry._hash_int(i, 9, 1, j)


@pytest.mark.parametrize("name", rows("bits/"))
def test_bits_are_those_of_jax(name):
    _, width, seed, _ = name.split("/")
    key = threefry.seed_key(np, int(seed.removeprefix("seed")))
    got = threefry.random_bits(np, key, shape_of(name), WIDTHS[width])
    assert got.dtype == FIXTURES[name].dtype and got.shape == FIXTURES[name].shape
    np.testing.assert_array_equal(got, FIXTURES[name])


@pytest.mark.parametrize("seed", SEEDS)
def test_many_bits_are_those_of_jax(seed):
    got = threefry.random_bits(np, threefry.seed_key(np, seed), (70001,), 32)
    blocks = np.bitwise_xor.reduceat(got, range(0, 70001, 1000))
    np.testing.assert_array_equal(np.append(blocks, got[-100:]), FIXTURES[f"bits_many/u32/seed{seed}"])


@pytest.mark.parametrize("name", rows("split/"))
def test_split_is_that_of_jax(name):
    key = threefry.seed_key(np, int(name.split("/")[1].removeprefix("seed")))
    np.testing.assert_array_equal(threefry.split_key(np, key, shape_of(name)), FIXTURES[name])


@pytest.mark.parametrize("name", rows("fold_in/"))
def test_fold_in_is_that_of_jax(name):
    _, seed, data = name.split("/")
    key = threefry.seed_key(np, int(seed.removeprefix("seed")))
    np.testing.assert_array_equal(threefry.fold_in_key(np, key, int(data)), FIXTURES[name])
    np.testing.assert_array_equal(threefry.fold_in_key(np, key, np.array([int(data)], np.uint32))[0], FIXTURES[name])


@pytest.mark.parametrize("name", rows("key/x64/"))
def test_key_of_a_seed_is_that_of_jax_in_64_bit_mode(name):
    seed = int(name.rpartition("/")[2])
    np.testing.assert_array_equal(threefry.seed_key(np, seed), FIXTURES[name])
    if 0 <= seed < 2**32 and f"key/x32/{seed}" in FIXTURES:
        np.testing.assert_array_equal(threefry.seed_key(np, seed)[1], FIXTURES[f"key/x32/{seed}"][1])


def test_key_of_a_32_bit_seed_has_high_word_zero():
    assert threefry.seed_key(np, np.int32(-1)).tolist() == [0, 2**32 - 1]
    assert threefry.seed_key(np, np.int64(-1)).tolist() == [2**32 - 1, 2**32 - 1]


@pytest.mark.parametrize("width", WIDTHS.values())
def test_bits_of_a_shorter_array_are_a_prefix(width):
    chunk = threefry._CHUNK
    whole = threefry.random_bits(np, KEY, (3 * chunk + 5,), width)
    for n in (0, 1, 2, threefry._FEW, threefry._FEW + 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 3 * chunk + 4):
        np.testing.assert_array_equal(threefry.random_bits(np, KEY, (n,), width), whole[:n])


def test_bits_do_not_depend_on_the_chunk_size(monkeypatch):
    whole = threefry.random_bits(np, KEY, (5000,), 64)
    for chunk in (64, 1024):
        monkeypatch.setattr(threefry, "_CHUNK", chunk)
        np.testing.assert_array_equal(threefry.random_bits(np, KEY, (5000,), 64), whole)


def test_bits_of_a_shape_are_the_flat_ones():
    flat = threefry.random_bits(np, KEY, (2 * 3 * 7,), 32)
    np.testing.assert_array_equal(threefry.random_bits(np, KEY, (2, 3, 7), 32), flat.reshape(2, 3, 7))


def test_counters_past_32_bits_use_the_high_word(monkeypatch):
    # The walk itself is too long for a test: start it just below the change of the high word.
    low = 2**32 - 16
    monkeypatch.setattr(threefry, "_CHUNK", 16)
    late = lambda *bounds: range(low, low + 32, 16) if len(bounds) == 3 else range(*bounds)  # noqa: E731
    monkeypatch.setattr(threefry, "range", late, raising=False)
    parts = [(part, y0.copy(), y1.copy()) for part, y0, y1 in threefry._many_counters(KEY[None], low + 32)]
    assert [part.start for part, _, _ in parts] == [low, 2**32]
    for part, y0, y1 in parts:
        expected = [threefry._hash_int(7, 11, i >> 32, i & 0xFFFFFFFF) for i in range(part.start, part.stop)]
        assert list(zip(y0.tolist(), y1.tolist(), strict=True)) == expected


@pytest.mark.parametrize("size", [0, 1, 3, 100, 9_000, 20_000])
@pytest.mark.parametrize("width", [8, 64])
def test_bits_of_a_batch_of_keys_are_those_of_each_key(size, width):
    keys = threefry.split_key(np, KEY, (2, 3))
    got = threefry.random_bits(np, keys, (size,), width)
    assert got.shape == (2, 3, size)
    for i in np.ndindex(2, 3):
        np.testing.assert_array_equal(got[i], threefry.random_bits(np, keys[i], (size,), width))


def test_many_keys_with_few_counters_are_those_of_each_key():
    keys = threefry.split_key(np, KEY, (20_000,))
    got = threefry.split_key(np, keys, (3,))
    assert got.shape == (20_000, 3, 2)
    for i in (0, 1, 5461, 5462, 19_999):
        np.testing.assert_array_equal(got[i], threefry.split_key(np, keys[i], (3,)))


def test_fold_in_of_a_batch_is_that_of_each():
    keys, data = threefry.split_key(np, KEY, (4,)), np.array([0, -1, 5, 2**40 + 5])
    got = threefry.fold_in_key(np, keys, data)
    for i in range(4):
        np.testing.assert_array_equal(got[i], threefry.fold_in_key(np, keys[i], int(data[i])))


def test_bits_are_balanced():
    # Mean of 64 * 20000 fair bits: 0.5 with standard deviation 4.4e-4.
    words = threefry.random_bits(np, KEY, (20_000,), 64)
    assert abs(np.unpackbits(words.view(np.uint8)).mean() - 0.5) < 0.002


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: threefry.random_bits(np, KEY, (2,), 33), ArgumentError, "bit_width 8, 16, 32 or 64, got 33"),
        (lambda: threefry.random_bits(np, KEY, (-2,), 32), ShapeError, r"without negative sizes, got \[-2\]"),
        (lambda: threefry.random_bits(np, KEY.astype(int), (2,), 32), DTypeError, "dtype uint32, got int64"),
        (lambda: threefry.split_key(np, KEY[:1], (2,)), ShapeError, r"shape \[..., 2\], got \[1\]"),
        (lambda: threefry.fold_in_key(np, KEY, 0.5), ArgumentTypeError, "integer data, got float64"),
        (lambda: threefry.seed_key(np, 0.5), ArgumentTypeError, "integer scalar as seed, got 0.5"),
        (lambda: threefry.seed_key(np, True), ArgumentTypeError, "integer scalar as seed, got True"),
        (lambda: threefry.seed_key(np, 2**64), ArgumentError, "seed of 64 bits"),
        (lambda: threefry.threefry2x32(np, 0, KEY, KEY, KEY), DTypeError, "uint32 for `k0`, got int64"),
    ],
)
def test_what_is_no_key_or_shape_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
