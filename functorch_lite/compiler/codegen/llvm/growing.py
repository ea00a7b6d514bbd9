# SPDX-License-Identifier: MIT
"""Memory of growing buffers: a slot of two words each, the pointer and how many bytes there are.

    i32 grow(ptr slot, i64 bytes)      room for so many bytes; 0, or NO_MEMORY
    void release(ptr slots, i64 n)     give the memory of n slots back
"""

from functorch_lite.compiler.loop_ir.nodes import NO_MEMORY

DECLARATIONS = {"realloc": "declare ptr @realloc(ptr, i64)", "free": "declare void @free(ptr)"}
TEXT = f"""define internal i32 @grow(ptr %slot, i64 %bytes) #0 {{
entry:
  %at = getelementptr i64, ptr %slot, i64 1
  %have = load i64, ptr %at
  %enough = icmp uge i64 %have, %bytes
  br i1 %enough, label %done, label %more
more:
  %old = load ptr, ptr %slot
  %new = call ptr @realloc(ptr %old, i64 %bytes)
  %none = icmp eq ptr %new, null
  br i1 %none, label %failed, label %took
took:
  store ptr %new, ptr %slot
  store i64 %bytes, ptr %at
  br label %done
failed:
  ret i32 {NO_MEMORY}
done:
  ret i32 0
}}

define internal void @release(ptr %slots, i64 %n) #0 {{
entry:
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%next, %loop]
  %word = shl i64 %k, 1
  %slot = getelementptr i64, ptr %slots, i64 %word
  %memory = load ptr, ptr %slot
  call void @free(ptr %memory)
  store ptr null, ptr %slot
  %at = getelementptr i64, ptr %slot, i64 1
  store i64 0, ptr %at
  %next = add i64 %k, 1
  %more = icmp ult i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""
