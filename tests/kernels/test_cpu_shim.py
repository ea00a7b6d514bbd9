# SPDX-License-Identifier: MIT
"""The CPU shim itself: its barriers, shuffles, shared memory and atomics, and that it catches what a GPU would hide."""

import ctypes

import numpy as np
import pytest

SOURCE = """
#include "prelude.cuh"

FL_KERNEL(256) block_sum(const float* x, float* out, int n) {
  FL_DYNAMIC_SHARED(float, partial);
  float sum = 0;
  FL_FOR_EACH(i, fl_u64(n)) sum += x[i];
  for (int lanes = 16; lanes; lanes >>= 1) sum += __shfl_xor_sync(FL_ALL_LANES, sum, lanes);
  if (threadIdx.x % FL_WARP == 0) partial[threadIdx.x / FL_WARP] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    sum = 0;
    for (unsigned w = 0; w < blockDim.x / FL_WARP; w++) sum += partial[w];
    atomicAdd(out, sum);
  }
}

FL_KERNEL(64) lanes(int* out) {
  const int i = int(threadIdx.x), lane = i % 32;
  int* row = out + 8 * i;
  row[0] = __shfl_sync(FL_ALL_LANES, i, 5);
  row[1] = __shfl_up_sync(FL_ALL_LANES, i, 3);
  row[2] = __shfl_down_sync(FL_ALL_LANES, i, 3);
  row[3] = __shfl_xor_sync(FL_ALL_LANES, i, 1);
  row[4] = __shfl_down_sync(FL_ALL_LANES, i, 1, 8);
  row[5] = int(__ballot_sync(FL_ALL_LANES, lane % 4 == 0));
  row[6] = __any_sync(FL_ALL_LANES, i == 40);
  row[7] = __all_sync(FL_ALL_LANES, i < 32);
}

FL_KERNEL(256) atomics(int* out) {
  atomicAdd(out, 1);
  atomicMax(out + 1, int(threadIdx.x));
  atomicMin(out + 2, int(threadIdx.x));
  atomicCAS(out + 3, 0, 7);
}

FL_KERNEL(256) halves(const float* x, float* bf16, float* f16) {
  bf16[threadIdx.x] = float(fl_bf16(x[threadIdx.x]));
  f16[threadIdx.x] = float(fl_f16(x[threadIdx.x]));
}

FL_KERNEL(256) lacks_barrier(const float* x, float* y) {
  __shared__ float kept[256];
  kept[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = kept[255 - threadIdx.x];
}

FL_KERNEL(256) diverges(float* y) {
  if (threadIdx.x < 128)
    __syncthreads();
  else
    __syncthreads();
  y[threadIdx.x] = 1;
}

FL_KERNEL(256) wrong_mask(float* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(FL_ALL_LANES, 1.0f, 1);
}

FL_KERNEL(256) reads_unwritten(float* y) {
  FL_DYNAMIC_SHARED(float, kept);
  if (threadIdx.x) kept[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = kept[threadIdx.x];
}

FL_EXPORT(block_sum)
FL_EXPORT(lanes)
FL_EXPORT(atomics)
FL_EXPORT(halves)
FL_EXPORT(lacks_barrier)
FL_EXPORT(diverges)
FL_EXPORT(wrong_mask)
FL_EXPORT(reads_unwritten)
"""


@pytest.fixture(scope="module")
def kernels(compile_on_cpu):
    return compile_on_cpu(SOURCE)


@pytest.mark.parametrize("order, workers", [(0, 1), (1, 1), (2, 2)])
def test_block_reduction_with_shuffles_and_shared_memory(kernels, guarded, order, workers):
    x, out = guarded(np.arange(1000, dtype=np.float32)), guarded(np.zeros(1, np.float32))
    kernels.launch("block_sum", (3,), (128,), x, out, ctypes.c_int(1000), shared_bytes=16, order=order, workers=workers)
    assert out[0] == 499_500


@pytest.mark.parametrize("order", [0, 1, 2])
def test_shuffles_and_votes(kernels, order):
    out = np.zeros((64, 8), np.int32)
    kernels.launch("lanes", (1,), (64,), out, order=order)
    i = np.arange(64)
    lane, base = i % 32, i // 32 * 32
    expected = [
        base + 5,
        np.where(lane >= 3, i - 3, i),
        np.where(lane < 29, i + 3, i),
        i ^ 1,
        np.where(lane % 8 < 7, i + 1, i),
        np.full(64, 0x11111111),
        (i >= 32).astype(int),
        (i < 32).astype(int),
    ]
    np.testing.assert_array_equal(out, np.stack(expected, axis=1))


def test_atomics_of_several_blocks(kernels):
    out = np.array([0, -1, 9999, 0], np.int32)
    kernels.launch("atomics", (5,), (256,), out, workers=2)
    assert out.tolist() == [1280, 255, 0, 7]


def test_half_types_round_to_nearest_even(kernels):
    x = np.random.default_rng(0).standard_normal(256).astype(np.float32)
    x[:4] = [np.inf, -0.0, 1 + 2**-8, 1 + 3 * 2**-8]
    bf16, f16 = np.zeros_like(x), np.zeros_like(x)
    kernels.launch("halves", (1,), (256,), x, bf16, f16)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    np.testing.assert_array_equal(bf16, x.astype(ml_dtypes.bfloat16).astype(np.float32))
    np.testing.assert_array_equal(f16, x.astype(np.float16).astype(np.float32))


def test_missing_barrier_shows_in_the_order_of_threads(kernels):
    x, results = np.arange(256, dtype=np.float32), []
    for order in (0, 1):
        y = np.zeros(256, np.float32)
        kernels.launch("lacks_barrier", (1,), (256,), x, y, order=order)
        results.append(y)
    assert not np.array_equal(*results)


@pytest.mark.parametrize("name, text", [("diverges", "divergent __syncthreads: line"), ("wrong_mask", "line")])
def test_divergent_barriers_and_wrong_masks_are_reported(kernels, name, text):
    with pytest.raises(RuntimeError, match=text):
        kernels.launch(name, (1,), (256,), np.zeros(256, np.float32))


def test_unwritten_shared_memory_is_nan(kernels):
    y = np.zeros(256, np.float32)
    kernels.launch("reads_unwritten", (1,), (256,), y, shared_bytes=1024)
    assert np.isnan(y[0]) and (y[1:] == 1).all()
