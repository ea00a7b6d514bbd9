# SPDX-License-Identifier: MIT
"""Long runs of kernel calls as data: a table, and one function that makes the calls it lists.

A program of thousands of calls, such as an optimizer's step over many arrays, is as long to compile as it has calls if
each is an instruction. In the table a call is a few words,

    number of the kernel, number of places, and for each place where its pointer is found: 8 * value + array

array: 0 inputs, 1 outputs, 2 context (the pointer is element `value` of these); 3 the context itself (value is 0); 4
the arena (it is `value` bytes into it). Words have 32 bits where that is enough for the arena.
"""

from collections.abc import Iterable, Sequence

import numpy as np

INPUTS, OUTPUTS, CONTEXT, SELF, ARENA = range(5)
LONG = 16  # calls: a shorter run is written out
PLACES = 12  # of a call: a run of fewer calls that have as many places as LONG of these is listed


def pointer(array: int, value: int) -> int:
    """The word for where a pointer is found: element `value` of an array, or `value` bytes into the arena."""
    return 8 * value + array


class CallTable:
    """The calls listed so far, and the LLVM text that makes them. arena_bytes: the size of the arena."""

    def __init__(self, arena_bytes: int = 0):
        self._bits = 32 if pointer(ARENA, arena_bytes) < 1 << 32 else 64
        self._words: list[int] = []
        self._kernels: dict[str, int] = {}
        self._counts: set[int] = set()

    def add(self, calls: Iterable[tuple[str, Sequence[int]]]) -> str:
        """List calls (kernel, its pointers) and return the instruction that makes them, in order."""
        start, number = len(self._words), 0
        for kernel, pointers in calls:
            self._words += [self._kernels.setdefault(kernel, len(self._kernels)), len(pointers)]
            self._words += pointers
            self._counts.add(len(pointers))
            number += 1
        first = f"getelementptr (i{self._bits}, ptr @calls, i64 {start})"
        return f"call void @make_calls(ptr {first}, i64 {number}, ptr %inputs, ptr %outputs, ptr %context, ptr %arena)"

    @property
    def text(self) -> str:
        """The table and the function; nothing if there are no calls."""
        if not self._words:
            return ""
        words = np.array(self._words, f"<u{self._bits // 8}").tobytes().hex("\\")
        kernels = ", ".join([f"ptr @{name}" for name in self._kernels])
        counts = sorted(self._counts)
        cases = " ".join(f"i64 {n}, label %with{n}" for n in counts)
        size, word = self._bits // 8 * len(self._words), f"i{self._bits}"
        loads = {name: _load(name, at, self._bits) for name, at in _LOADS.items()}
        return "\n".join([
            f'@calls = private unnamed_addr constant [{size} x i8] c"\\{words}", align 64',
            f"@kernels = private unnamed_addr constant [{len(self._kernels)} x ptr] [{kernels}], align 64",
            _HEAD.format(most=counts[-1], cases=cases, bits=word, **loads), *map(_case, counts), _TAIL,
        ])


_LOADS = {"kernel_number": "at", "count": "count_at", "word": "place_at"}


def _load(name: str, at: str, bits: int) -> str:
    """The instructions that load a word."""
    if bits == 64:
        return f"%{name} = load i64, ptr %{at}"
    return f"%{name}_32 = load i32, ptr %{at}\n  %{name} = zext i32 %{name}_32 to i64"


def _case(count: int) -> str:
    """The block that makes a call with so many pointers."""
    lines = [f"with{count}:"]
    for k in range(count):
        lines.append(f"  %slot{count}.{k} = getelementptr ptr, ptr %pointers, i64 {k}")
        lines.append(f"  %p{count}.{k} = load ptr, ptr %slot{count}.{k}")
    given = ", ".join(f"ptr %p{count}.{k}" for k in range(count))
    return "\n".join([*lines, f"  call void %kernel({given})", "  br label %done"])


_HEAD = """\
define internal void @make_calls(ptr %calls, i64 %number, ptr %inputs, ptr %outputs, ptr %context, ptr %arena) #0 {{
entry:
  %pointers = alloca [{most} x ptr], align 16
  %arrays = alloca [4 x ptr], align 16
  %self = alloca ptr
  store ptr %context, ptr %self
  store ptr %inputs, ptr %arrays
  %second = getelementptr ptr, ptr %arrays, i64 1
  store ptr %outputs, ptr %second
  %third = getelementptr ptr, ptr %arrays, i64 2
  store ptr %context, ptr %third
  %fourth = getelementptr ptr, ptr %arrays, i64 3
  store ptr %self, ptr %fourth
  br label %call
call:
  %at = phi ptr [%calls, %entry], [%place_after, %done]
  %left = phi i64 [%number, %entry], [%left_after, %done]
  {kernel_number}
  %kernel_slot = getelementptr ptr, ptr @kernels, i64 %kernel_number
  %kernel = load ptr, ptr %kernel_slot
  %count_at = getelementptr {bits}, ptr %at, i64 1
  {count}
  %first = getelementptr {bits}, ptr %at, i64 2
  br label %place
place:
  %k = phi i64 [0, %call], [%k_after, %found]
  %place_at = phi ptr [%first, %call], [%place_after, %found]
  {word}
  %array = and i64 %word, 7
  %value = lshr i64 %word, 3
  %is_arena = icmp eq i64 %array, 4
  br i1 %is_arena, label %in_arena, label %in_array
in_arena:
  %in_arena_at = getelementptr i8, ptr %arena, i64 %value
  br label %found
in_array:
  %array_slot = getelementptr ptr, ptr %arrays, i64 %array
  %base = load ptr, ptr %array_slot
  %element = getelementptr ptr, ptr %base, i64 %value
  %in_array_at = load ptr, ptr %element
  br label %found
found:
  %pointer = phi ptr [%in_arena_at, %in_arena], [%in_array_at, %in_array]
  %pointer_slot = getelementptr ptr, ptr %pointers, i64 %k
  store ptr %pointer, ptr %pointer_slot
  %k_after = add i64 %k, 1
  %place_after = getelementptr {bits}, ptr %place_at, i64 1
  %more = icmp slt i64 %k_after, %count
  br i1 %more, label %place, label %ready
ready:
  switch i64 %count, label %done [{cases}]"""

_TAIL = """\
done:
  %left_after = sub i64 %left, 1
  %again = icmp sgt i64 %left_after, 0
  br i1 %again, label %call, label %leave
leave:
  ret void
}
"""
