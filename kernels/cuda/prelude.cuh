// SPDX-License-Identifier: MIT
// What every kernel, written or generated, includes first. One source then serves two machines: NVRTC compiles it for a
// GPU, and g++ with kernels/cpu_shim compiles it for the tests. A kernel uses this vocabulary and CUDA's own plain one
// (threadIdx, __syncthreads, __shared__, shuffles, votes, atomics); inline PTX hides behind a macro of this file.
//
//   FL_KERNEL(256) scale(const float* x, float* y, fl_u64 n) { FL_FOR_EACH(i, n) y[i] = 2.0f * x[i]; }
//   FL_EXPORT(scale)
#pragma once

#if defined(__CUDACC__)

// extern "C": the host finds the kernel by its plain name. `threads` is the largest block it is launched with.
#define FL_KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define FL_DEVICE static __device__ __forceinline__
#define FL_EXPORT(kernel)
#define FL_UNROLL _Pragma("unroll")
// Shared memory whose size the launch decides, aligned for 16-byte vectors.
#define FL_DYNAMIC_SHARED(T, name)                                  \
  extern __shared__ __align__(16) unsigned char fl_dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(fl_dynamic_shared)

// Half types are opt-in: their headers cost 10 ms a compilation and need the CUDA runtime's include folder.
#if defined(FL_WITH_HALF)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
typedef __half fl_f16;
typedef __nv_bfloat16 fl_bf16;
#endif

#else
#include "fl_cuda_shim.h"
#endif

// NVRTC has no <stdint.h>; these widths are CUDA's on every platform it supports.
typedef unsigned char fl_u8;
typedef unsigned short fl_u16;
typedef unsigned int fl_u32;
typedef unsigned long long fl_u64;
typedef int fl_i32;
typedef long long fl_i64;

// Grid-stride loop: any grid covers any n, and 64-bit indices do not wrap.
#define FL_GLOBAL_THREAD (fl_u64(blockIdx.x) * blockDim.x + threadIdx.x)
#define FL_GLOBAL_THREADS (fl_u64(gridDim.x) * blockDim.x)
#define FL_FOR_EACH(i, n) for (fl_u64 i = FL_GLOBAL_THREAD; i < (n); i += FL_GLOBAL_THREADS)

#define FL_WARP 32
#define FL_ALL_LANES 0xffffffffu

FL_DEVICE fl_u32 fl_rotate_left(fl_u32 x, int distance) { return (x << distance) | (x >> (32 - distance)); }
