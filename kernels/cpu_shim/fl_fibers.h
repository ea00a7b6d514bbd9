// SPDX-License-Identifier: MIT
// Runs one CUDA thread block on one CPU thread: a fiber per CUDA thread, switched at barriers only. Because a fiber runs
// until it waits, the order of threads is ours to choose, and a kernel that lacks a barrier gives different results in
// ascending and descending order. Errors a GPU would hang on or hide (divergent barriers, wrong masks) are reported with
// the source line.
#pragma once
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

namespace fl_cpu {

enum Order { kAscending = 0, kDescending = 1, kShuffled = 2 };

// --- switching stacks ---

using Entry = void (*)();

#if defined(__x86_64__)
// Saves the registers that the System V ABI says a callee keeps, then swaps stack pointers.
extern "C" __attribute__((visibility("hidden"))) void fl_switch_stack(void** save, void* load);
asm(R"(
.text
.globl fl_switch_stack
.hidden fl_switch_stack
.type fl_switch_stack,@function
fl_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

struct Context {
  void* stack_pointer = nullptr;
  void prepare(char* low, size_t bytes, Entry entry) {
    void** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(low + bytes) & ~uintptr_t(15));
    *--top = nullptr;  // return address of `entry`, which never returns; also keeps its frame 16-byte aligned
    *--top = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    stack_pointer = top;
  }
};
inline void switch_to(Context& from, Context& to) { fl_switch_stack(&from.stack_pointer, to.stack_pointer); }
#else
struct Context {
  ucontext_t state;
  void prepare(char* low, size_t bytes, Entry entry) {
    getcontext(&state);
    state.uc_stack.ss_sp = low;
    state.uc_stack.ss_size = bytes;
    state.uc_link = nullptr;
    makecontext(&state, entry, 0);
  }
};
inline void switch_to(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
#endif

// Stacks end at a protected page, so an overflow faults instead of overwriting a neighbour.
class Stacks {
 public:
  static constexpr size_t kBytes = 256 << 10;
  char* at(size_t i) {
    while (stacks_.size() <= i) {
      void* p = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      mprotect(p, 4096, PROT_NONE);
      stacks_.push_back(static_cast<char*>(p));
    }
    return stacks_[i];
  }
  ~Stacks() {
    for (char* p : stacks_) munmap(p, kBytes);
  }

 private:
  std::vector<char*> stacks_;
};

// --- the state of a block ---

// A barrier is passed when its generation changes.
struct Barrier {
  unsigned generation = 0;
  unsigned n_arrived = 0;
  uint32_t lanes_arrived = 0;
  int line = 0;
  void open() {
    generation++;
    n_arrived = 0;
    lanes_arrived = 0;
  }
};

struct Warp {
  Barrier barriers[32];  // one per lowest lane of a mask: disjoint masks may wait at the same time
  uint64_t exchanged[32] = {};
  uint32_t alive = 0;
  unsigned n_lanes = 0;
};

struct Fiber {
  Context context;
  uint3 thread;
  unsigned lane;
  Warp* warp;
  const Barrier* waits_at = nullptr;
  unsigned waits_generation = 0;
  int line = 0;
  bool done = false;
  bool blocked() const { return waits_at && waits_at->generation == waits_generation; }
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<char> dynamic_shared;
  Barrier barrier;
  unsigned n_alive = 0;
  Context scheduler;
  void (*body)(void*) = nullptr;
  void* arguments = nullptr;
  std::string error;
};

// One of each per CPU thread. `__shared__` variables are thread_local too, which is what makes them one per block.
inline thread_local Block* block;
inline thread_local Fiber* fiber;
inline thread_local uint3 block_index;
inline thread_local dim3 block_size, grid_size;

// --- what a fiber can do: wait, fail, end ---

inline void yield() { switch_to(fiber->context, block->scheduler); }

template <class... Values>
[[noreturn]] void fail(const char* format, Values... values) {
  char text[200];
  snprintf(text, sizeof text, format, values...);
  block->error = text;
  for (;;) yield();
}

inline void wait_at(const Barrier& barrier, int line) {
  fiber->waits_at = &barrier;
  fiber->waits_generation = barrier.generation;
  fiber->line = line;
  while (fiber->blocked()) yield();
  fiber->waits_at = nullptr;
}

inline void sync_block(int line) {
  Barrier& barrier = block->barrier;
  if (barrier.n_arrived && barrier.line != line)
    fail("divergent __syncthreads: line %d and line %d", barrier.line, line);
  barrier.line = line;
  if (++barrier.n_arrived == block->n_alive)
    barrier.open();
  else
    wait_at(barrier, line);
}

inline void sync_warp(uint32_t mask, int line) {
  Warp& warp = *fiber->warp;
  if (warp.n_lanes < 32) mask &= (1u << warp.n_lanes) - 1;  // a full mask in the last, partial warp
  if (!(mask >> fiber->lane & 1)) fail("line %d: lane %u is not in its own mask %x", line, fiber->lane, mask);
  if (mask & ~warp.alive) fail("line %d: mask %x names lanes that have ended (alive: %x)", line, mask, warp.alive);
  Barrier& barrier = warp.barriers[__builtin_ctz(mask)];
  barrier.lanes_arrived |= 1u << fiber->lane;
  if (barrier.lanes_arrived == mask)
    barrier.open();
  else
    wait_at(barrier, line);
}

// Every lane of the mask gives a value and gets the one that lane `source` gave.
template <class T>
T exchange(uint32_t mask, T value, unsigned source, int line) {
  static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
  Warp& warp = *fiber->warp;
  memcpy(&warp.exchanged[fiber->lane], &value, sizeof value);
  sync_warp(mask, line);
  if (!(mask >> source & 1)) fail("line %d: shuffle reads lane %u, outside mask %x", line, source, mask);
  T result;
  memcpy(&result, &warp.exchanged[source], sizeof result);
  sync_warp(mask, line);  // nobody overwrites before all have read
  return result;
}

inline uint32_t ballot(uint32_t mask, bool vote, int line) {
  Warp& warp = *fiber->warp;
  warp.exchanged[fiber->lane] = vote;
  sync_warp(mask, line);
  uint32_t votes = 0;
  for (unsigned lane = 0; lane < warp.n_lanes; lane++)
    if (mask >> lane & 1) votes |= uint32_t(warp.exchanged[lane] & 1) << lane;
  sync_warp(mask, line);
  return votes;
}

inline void fiber_main() {
  block->body(block->arguments);
  fiber->done = true;
  fiber->warp->alive &= ~(1u << fiber->lane);
  // Threads that ended no longer count at __syncthreads.
  if (--block->n_alive && block->barrier.n_arrived == block->n_alive) block->barrier.open();
  for (;;) yield();
}

// --- running a block ---

inline void reset(Block& b) {
  const unsigned n = block_size.x * block_size.y * block_size.z;
  b.fibers.assign(n, Fiber{});
  b.warps.assign((n + 31) / 32, Warp{});
  b.barrier = Barrier{};
  b.n_alive = n;
  b.error.clear();
  // All ones is a NaN: shared memory that is read before it is written shows.
  std::fill(b.dynamic_shared.begin(), b.dynamic_shared.end(), char(0xff));
  for (unsigned i = 0; i < n; i++) {
    Fiber& f = b.fibers[i];
    f.thread = {i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)};
    f.lane = i % 32;
    f.warp = &b.warps[i / 32];
    f.warp->alive |= 1u << f.lane;
    f.warp->n_lanes++;
  }
}

inline std::string describe_deadlock(const Block& b) {
  unsigned n = 0;
  int first = 0, other = 0;
  for (const Fiber& f : b.fibers) {
    if (f.done) continue;
    n++;
    if (!first) first = f.line;
    if (f.line != first) other = f.line;
  }
  return "deadlock: " + std::to_string(n) + " threads wait at line " + std::to_string(first) +
         (other ? " and line " + std::to_string(other) : "");
}

// Leaves the reason in b.error when the block cannot finish.
inline void run_block(Block& b, Stacks& stacks, Order order, std::mt19937& random) {
  reset(b);
  block = &b;
  std::vector<unsigned> turn(b.fibers.size());
  for (unsigned i = 0; i < turn.size(); i++) {
    turn[i] = order == kDescending ? unsigned(turn.size()) - 1 - i : i;
    b.fibers[i].context.prepare(stacks.at(i), Stacks::kBytes, fiber_main);
  }
  for (size_t n_left = turn.size(); n_left && b.error.empty();) {
    if (order == kShuffled) std::shuffle(turn.begin(), turn.end(), random);
    bool moved = false;
    for (unsigned i : turn) {
      Fiber& f = b.fibers[i];
      if (f.done || f.blocked()) continue;
      moved = true;
      fiber = &f;
      switch_to(b.scheduler, f.context);
      n_left -= f.done;
      if (!b.error.empty()) break;
    }
    if (!moved) b.error = describe_deadlock(b);
  }
}

}  // namespace fl_cpu
