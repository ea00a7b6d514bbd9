# SPDX-License-Identifier: MIT
"""Writes random_jax.npz: what jax.random gives for every entry of random_cases.py.

    python tests/data/make_random_jax.py        (needs jax; made with jax 0.10.2, on the CPU)

The tests read the file and need no JAX. Beside the cases it holds the keys:

    key/<mode>/<seed>                 key(seed), u32 [2]; mode x32 or x64, because JAX cuts seeds to 32 bits without x64
    split/seed<seed>/<shape>          split(key(seed), shape), u32 [*shape, 2]
    fold_in/seed<seed>/<data>         fold_in(key(seed), data), u32 [2]
    bits_many/u32/seed<seed>          the xor of bits(key, (70001,)) over blocks of 1000, and the last 100 of them
    erf_inv/<dtype>/in, out           lax.erf_inv on a grid, for the polynomial alone

JAX's 64-bit mode is a switch of the whole process, so a second process makes its rows.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from random_cases import CASES, DTYPES, SEEDS, WIDE

HERE = Path(__file__).parent
INT_SEEDS = (0, 1, 42, 2**31 - 1, 2**32 - 1, 2**32, 2**40 + 5, 2**63 - 1, -1, -(2**31))


def rows_of_mode(wide: bool) -> dict[str, np.ndarray]:
    """Every row that JAX gives in its 64-bit mode (`wide`) or in its default one."""
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_x64", wide)
    rows = {f"key/{'x64' if wide else 'x32'}/{seed}": np.asarray(jax.random.PRNGKey(seed)) for seed in INT_SEEDS}
    rows.update(_erf_inv_rows(jax, "f64" if wide else "f32"))
    if not wide:
        rows.update(_key_rows(jax))
    for case in CASES:
        for dtype, seed, shape in case.entries():
            if (dtype in WIDE) == wide:
                rows[case.name(dtype, seed, shape)] = _sample(jax, case, dtype, seed, shape)
    return rows


def _sample(jax, case, dtype, seed, shape):
    keywords = case.keywords(dtype, shape)
    if dtype is not None:
        keywords["dtype"] = DTYPES[dtype]
    value = np.asarray(getattr(jax.random, case.function)(jax.random.PRNGKey(seed), **keywords))
    return value.view(np.uint16) if dtype == "bf16" else value


def _key_rows(jax):
    rows = {}
    for seed in SEEDS:
        key = jax.random.PRNGKey(seed)
        for shape in ((2,), (3,), (0,), (2, 3), ()):
            rows[f"split/seed{seed}/{shape}"] = np.asarray(jax.random.split(key, shape))
        for data in (0, 1, 2**31, 2**32 - 1):
            rows[f"fold_in/seed{seed}/{data}"] = np.asarray(jax.random.fold_in(key, np.uint32(data)))
        many = np.asarray(jax.random.bits(key, (70001,), "uint32"))
        rows[f"bits_many/u32/seed{seed}"] = np.append(
            np.bitwise_xor.reduceat(many, range(0, 70001, 1000)), many[-100:])
    return rows


def _erf_inv_rows(jax, dtype):
    x = np.concatenate([np.linspace(-1, 1, 41), [1e-6, 1 - 1e-6, -1 + 1e-3, 0.9999, -0.99]]).astype(DTYPES[dtype])
    return {f"erf_inv/{dtype}/in": x, f"erf_inv/{dtype}/out": np.asarray(jax.lax.erf_inv(x))}


def main() -> None:
    """Ask JAX in both modes and write the file."""
    if len(sys.argv) == 3:
        np.savez(sys.argv[2], **rows_of_mode(sys.argv[1] == "x64"))
        return
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for mode in ("x32", "x64"):
            path = Path(folder) / f"{mode}.npz"
            subprocess.run([sys.executable, __file__, mode, path], check=True)
            with np.load(path) as made:
                rows.update(made)
    np.savez_compressed(HERE / "random_jax.npz", **rows)
    print(f"{len(rows)} rows, {(HERE / 'random_jax.npz').stat().st_size} bytes")


if __name__ == "__main__":
    main()
