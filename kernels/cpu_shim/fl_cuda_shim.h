// SPDX-License-Identifier: MIT
// CUDA's vocabulary for g++, as far as our kernels use it, so that kernels/cuda runs on a CPU in the tests:
//
//   g++ -std=c++20 -O2 -fPIC -shared -pthread -Ikernels/cuda -Ikernels/cpu_shim -x c++ kernels/cuda/threefry.cu
//
// Each FL_EXPORT(k) becomes `fl_launch_k`, called through ctypes. Not here, so not to be used by a kernel unless a macro
// of prelude.cuh hides it: inline PTX, wgmma, TMA, mbarrier, clusters, grid-wide barriers, textures. Not modelled: weak
// memory order between blocks, timing, bank conflicts; mathematics is the C library's, a few ulp from CUDA's.
#pragma once
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <thread>
#include <type_traits>
#include <utility>

#include "fl_fibers.h"

// --- qualifiers ---
#define __global__ static
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define FL_KERNEL(threads) static void
#define FL_DEVICE static inline
#define FL_UNROLL
#define FL_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(fl_cpu::block->dynamic_shared.data())

// --- vector and half types ---
#define FL_VECTOR_TYPES(T, Element, size)                                                          \
  struct alignas(2 * size) T##2 { Element x, y; };                                                 \
  struct alignas(4 * size > 16 ? 16 : 4 * size) T##4 { Element x, y, z, w; };                      \
  static inline T##2 make_##T##2(Element a, Element b) { return {a, b}; }                          \
  static inline T##4 make_##T##4(Element a, Element b, Element c, Element d) { return {a, b, c, d}; }
FL_VECTOR_TYPES(float, float, 4)
FL_VECTOR_TYPES(int, int, 4)
FL_VECTOR_TYPES(uint, unsigned, 4)
FL_VECTOR_TYPES(double, double, 8)

struct fl_bf16 {
  uint16_t bits;
  fl_bf16() = default;
  fl_bf16(float value) {
    uint32_t b;
    memcpy(&b, &value, 4);
    const bool is_nan = (b & 0x7fffffffu) > 0x7f800000u;
    // Round to nearest, ties to even.
    bits = is_nan ? 0x7fff : uint16_t((b + 0x7fffu + (b >> 16 & 1)) >> 16);
  }
  operator float() const {
    const uint32_t b = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &b, 4);
    return value;
  }
};
struct fl_f16 {
  _Float16 value;
  fl_f16() = default;
  fl_f16(float v) : value(_Float16(v)) {}
  operator float() const { return float(value); }
};

// --- indices and barriers ---
#define threadIdx (fl_cpu::fiber->thread)
#define blockIdx (fl_cpu::block_index)
#define blockDim (fl_cpu::block_size)
#define gridDim (fl_cpu::grid_size)
#define warpSize 32
#define __syncthreads() fl_cpu::sync_block(__LINE__)
#define __syncwarp(...) fl_cpu::sync_warp(0xffffffffu __VA_OPT__(& (__VA_ARGS__)), __LINE__)
#define __threadfence() std::atomic_thread_fence(std::memory_order_seq_cst)
#define __threadfence_block() ((void)0)

// --- shuffles and votes: lanes form segments of `width`, and a source outside the segment means the lane itself ---
namespace fl_cpu {
inline unsigned segment(int width) { return fiber->lane & ~(unsigned(width) - 1); }
template <class T>
T shuffle(int line, unsigned mask, T v, int source, int width = 32) {
  return exchange(mask, v, segment(width) | (unsigned(source) & unsigned(width - 1)), line);
}
template <class T>
T shuffle_from(int line, unsigned mask, T v, int source, int width) {
  const int low = int(segment(width));
  return exchange(mask, v, source < low || source >= low + width ? fiber->lane : unsigned(source), line);
}
template <class T>
T shuffle_xor(int line, unsigned mask, T v, int lanes, int width = 32) {
  return shuffle_from(line, mask, v, int(fiber->lane) ^ lanes, width);
}
template <class T>
T shuffle_down(int line, unsigned mask, T v, unsigned delta, int width = 32) {
  return shuffle_from(line, mask, v, int(fiber->lane + delta), width);
}
template <class T>
T shuffle_up(int line, unsigned mask, T v, unsigned delta, int width = 32) {
  return shuffle_from(line, mask, v, int(fiber->lane) - int(delta), width);
}
}  // namespace fl_cpu
#define __shfl_sync(...) fl_cpu::shuffle(__LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) fl_cpu::shuffle_xor(__LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) fl_cpu::shuffle_down(__LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) fl_cpu::shuffle_up(__LINE__, __VA_ARGS__)
#define __ballot_sync(mask, vote) fl_cpu::ballot(mask, vote, __LINE__)
#define __any_sync(mask, vote) (fl_cpu::ballot(mask, vote, __LINE__) != 0)
#define __all_sync(mask, vote) (fl_cpu::ballot(mask, !(vote), __LINE__) == 0)

// --- atomics: blocks may run on several CPU threads ---
namespace fl_cpu {
template <class T, class Update>
T atomic_update(T* address, Update update) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  using Word = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  Word* const word = reinterpret_cast<Word*>(address);
  Word seen = __atomic_load_n(word, __ATOMIC_RELAXED);
  for (;;) {
    T old;
    memcpy(&old, &seen, sizeof old);
    const T changed = update(old);
    Word wanted;
    memcpy(&wanted, &changed, sizeof wanted);
    if (__atomic_compare_exchange_n(word, &seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return old;
  }
}
template <class T>
using Same = std::type_identity_t<T>;
}  // namespace fl_cpu
template <class T> T atomicAdd(T* p, fl_cpu::Same<T> v) { return fl_cpu::atomic_update(p, [=](T o) { return T(o + v); }); }
template <class T> T atomicMax(T* p, fl_cpu::Same<T> v) { return fl_cpu::atomic_update(p, [=](T o) { return o > v ? o : v; }); }
template <class T> T atomicMin(T* p, fl_cpu::Same<T> v) { return fl_cpu::atomic_update(p, [=](T o) { return o < v ? o : v; }); }
template <class T> T atomicExch(T* p, fl_cpu::Same<T> v) { return fl_cpu::atomic_update(p, [=](T) { return v; }); }
template <class T> T atomicCAS(T* p, fl_cpu::Same<T> expected, fl_cpu::Same<T> v) {
  return fl_cpu::atomic_update(p, [=](T o) { return o == expected ? v : o; });
}

// --- intrinsics (the C library declares __expf and its like itself, so those are macros) ---
using std::max;
using std::min;
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)
template <class T> T __ldg(const T* p) { return *p; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
static inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
static inline float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }

// --- launching ---
namespace fl_cpu {
struct Launch {
  void (*body)(void*);
  void* arguments;
  dim3 grid, block;
  size_t shared_bytes;
  Order order;
  unsigned seed;
};

inline std::string last_error;

inline void run_blocks(const Launch& launch, unsigned worker, std::atomic<uint64_t>& next, std::atomic<bool>& failed) {
  grid_size = launch.grid;
  block_size = launch.block;
  Block b;
  b.body = launch.body;
  b.arguments = launch.arguments;
  b.dynamic_shared.resize(launch.shared_bytes);
  Stacks stacks;
  std::mt19937 random(launch.seed + worker);
  const uint64_t n_blocks = uint64_t(grid_size.x) * grid_size.y * grid_size.z;
  for (uint64_t i; !failed && (i = next++) < n_blocks;) {
    const uint64_t at = launch.order == kDescending ? n_blocks - 1 - i : i;
    block_index = {unsigned(at % grid_size.x), unsigned(at / grid_size.x % grid_size.y),
                   unsigned(at / grid_size.x / grid_size.y)};
    run_block(b, stacks, launch.order, random);
    if (!b.error.empty() && !failed.exchange(true)) last_error = b.error + " (block " + std::to_string(at) + ")";
  }
}

inline int run(const Launch& launch, unsigned n_workers) {
  std::atomic<uint64_t> next{0};
  std::atomic<bool> failed{false};
  last_error.clear();
  std::vector<std::thread> workers;
  for (unsigned w = 1; w < n_workers; w++) workers.emplace_back([&, w] { run_blocks(launch, w, next, failed); });
  run_blocks(launch, 0, next, failed);
  for (std::thread& w : workers) w.join();
  return failed;
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<A>*>(arguments[I])...);
}

template <class... A>
int launch(void (*kernel)(A...), void** arguments, const unsigned* grid, const unsigned* block, size_t shared_bytes,
           int order, unsigned seed, unsigned n_workers) {
  struct Call {
    void (*kernel)(A...);
    void** arguments;
  } this_call{kernel, arguments};
  auto body = [](void* p) {
    Call* c = static_cast<Call*>(p);
    call(c->kernel, c->arguments, std::index_sequence_for<A...>{});
  };
  return run({body, &this_call, {grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared_bytes,
              Order(order), seed}, n_workers);
}
}  // namespace fl_cpu

extern "C" const char* fl_last_error() { return fl_cpu::last_error.c_str(); }
#define FL_EXPORT(kernel)                                                                                             \
  extern "C" int fl_launch_##kernel(void** arguments, const unsigned* grid, const unsigned* block, size_t shared_bytes, \
                                    int order, unsigned seed, unsigned n_workers) {                                    \
    return fl_cpu::launch(kernel, arguments, grid, block, shared_bytes, order, seed, n_workers);                       \
  }
