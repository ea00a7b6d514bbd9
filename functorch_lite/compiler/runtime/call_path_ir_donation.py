# SPDX-License-Identifier: MIT
"""IR of donation in a native call: outputs that are made in the memory of arguments. See call_path_ir.py.

A call gives its donated arrays away only if each is held by nothing but the argument it came in, and has memory of
its own that may be written, or that of an array which it alone holds (its base); a call with another goes to Python.
An output in a leaf's memory is first an array that owns nothing, so that a run that fails leaves all as it was. After
the run it becomes the owner. Every donated leaf gets a mark for its base, which keeps the memory while somebody holds
the leaf, and loses its flag ALIGNED: native calls turn it away, and Python sees the mark.
"""

DONATION = """
; The number of elements of an array.
define internal i64 @count(ptr %array) {
entry:
  %rank = field i32 %array, ARRAY_RANK
  %rank.64 = zext i32 %rank to i64
  %lengths = field ptr %array, ARRAY_LENGTHS
  br label %axis
axis:
  %i = phi i64 [0, %entry], [%i.next, %one]
  %product = phi i64 [1, %entry], [%product.next, %one]
  %more = icmp ult i64 %i, %rank.64
  br i1 %more, label %one, label %end
one:
  %length = word i64 %lengths, %i
  %product.next = mul i64 %product, %length
  %i.next = add i64 %i, 1
  br label %axis
end:
  ret i64 %product
}

; Whether an array has memory that nobody else sees, and that may be written.
define internal i1 @is_whole(ptr %array) {
entry:
  %flags = field i32 %array, ARRAY_FLAGS
  %seen = and i32 %flags, OWNED_WRITEABLE
  %own = icmp eq i32 %seen, OWNED_WRITEABLE
  %base = field ptr %array, ARRAY_BASE
  %none = icmp eq ptr %base, null
  br i1 %none, label %alone, label %behind
alone:
  ret i1 %own
behind:
  %writeable = and i32 %flags, WRITEABLE
  %may.write = icmp eq i32 %writeable, WRITEABLE
  %type = field ptr %base, TYPE
  %is.array = icmp eq ptr %type, @PyArray_Type
  %both = and i1 %may.write, %is.array
  br i1 %both, label %base.array, label %no
base.array:
  %references = field i32 %base, REFERENCES
  %is.mine = icmp eq i32 %references, 1
  %base.flags = field i32 %base, ARRAY_FLAGS
  %base.seen = and i32 %base.flags, OWNED_WRITEABLE
  %base.owns = icmp eq i32 %base.seen, OWNED_WRITEABLE
  %base.base = field ptr %base, ARRAY_BASE
  %is.last = icmp eq ptr %base.base, null
  %data = field ptr %array, ARRAY_DATA
  %base.data = field ptr %base, ARRAY_DATA
  %same.start = icmp eq ptr %data, %base.data
  %dtype = field ptr %array, ARRAY_DTYPE
  %base.dtype = field ptr %base, ARRAY_DTYPE
  %same.dtype = icmp eq ptr %dtype, %base.dtype
  %n = call i64 @count(ptr %array)
  %base.n = call i64 @count(ptr %base)
  %same.n = icmp eq i64 %n, %base.n
  %a = and i1 %is.mine, %base.owns
  %b = and i1 %is.last, %same.start
  %c = and i1 %same.dtype, %same.n
  %ab = and i1 %a, %b
  %abc = and i1 %ab, %c
  ret i1 %abc
no:
  ret i1 false
}

; Whether the donated leaves may be given away; %plan has %n pairs: number of the leaf, references at most.
define internal i1 @may_give(ptr %plan, i64 %n, ptr %owned) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i.next, %next]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %one, label %yes
one:
  %i.twice = shl i64 %i, 1
  %pair = getelementptr i64, ptr %plan, i64 %i.twice
  %leaf = word i64 %pair, 0
  %most = word i64 %pair, 1
  %object = word ptr %owned, %leaf
  %references = field i32 %object, REFERENCES
  %references.64 = zext i32 %references to i64
  %alone = icmp ule i64 %references.64, %most
  br i1 %alone, label %memory, label %no
memory:
  %fits = call i1 @is_whole(ptr %object)
  br i1 %fits, label %next, label %no
next:
  %i.next = add i64 %i, 1
  br label %loop
yes:
  ret i1 true
no:
  ret i1 false
}

; Let outputs own the memory of the leaves they were made in, and mark the donated leaves; false with an error set.
define internal i1 @give(ptr %state, ptr %owned, ptr %objects) {
entry:
  %n = word i64 %state, n_donated
  %none = icmp eq i64 %n, 0
  br i1 %none, label %yes, label %collect
collect:
  %n.takes = word i64 %state, n_takes
  %takes = word ptr %state, takes
  %kept = call ptr @PyList_New(i64 %n.takes)
  %no.list = icmp eq ptr %kept, null
  br i1 %no.list, label %no, label %gather
gather:
  %g = phi i64 [0, %collect], [%g.next, %gather.one]
  %g.more = icmp ult i64 %g, %n.takes
  br i1 %g.more, label %gather.one, label %mark
gather.one:
  %g.twice = shl i64 %g, 1
  %g.pair = getelementptr i64, ptr %takes, i64 %g.twice
  %g.output = word i64 %g.pair, 0
  %g.made = word ptr %objects, %g.output
  call void @Py_IncRef(ptr %g.made)
  %kept.items = field ptr %kept, LIST_ITEMS
  put ptr %g.made, %kept.items, %g
  %g.next = add i64 %g, 1
  br label %gather
mark:
  %marker = word ptr %state, mark
  %made.mark = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr %marker, ptr %kept, ptr null)
  call void @Py_DecRef(ptr %kept)
  %no.mark = icmp eq ptr %made.mark, null
  br i1 %no.mark, label %no, label %hand.over
hand.over:
  %t = phi i64 [0, %mark], [%t.next, %handed]
  %t.more = icmp ult i64 %t, %n.takes
  br i1 %t.more, label %hand.one, label %marking
hand.one:
  %t.twice = shl i64 %t, 1
  %pair = getelementptr i64, ptr %takes, i64 %t.twice
  %output = word i64 %pair, 0
  %number = word i64 %pair, 1
  %made = word ptr %objects, %output
  %leaf = word ptr %owned, %number
  %made.flags.at = getelementptr i8, ptr %made, i64 ARRAY_FLAGS
  %made.flags = load i32, ptr %made.flags.at
  %made.owner = or i32 %made.flags, OWNED
  store i32 %made.owner, ptr %made.flags.at
  %base = field ptr %leaf, ARRAY_BASE
  %no.base = icmp eq ptr %base, null
  %owner = select i1 %no.base, ptr %leaf, ptr %base
  %owner.flags.at = getelementptr i8, ptr %owner, i64 ARRAY_FLAGS
  %owner.flags = load i32, ptr %owner.flags.at
  %owner.guest = and i32 %owner.flags, NOT_OWNED
  store i32 %owner.guest, ptr %owner.flags.at
  %handler = field ptr %owner, ARRAY_HANDLER
  %made.handler.at = getelementptr i8, ptr %made, i64 ARRAY_HANDLER
  store ptr %handler, ptr %made.handler.at
  %no.handler = icmp eq ptr %handler, null
  br i1 %no.handler, label %handed, label %share.handler
share.handler:
  call void @Py_IncRef(ptr %handler)
  br label %handed
handed:
  %t.next = add i64 %t, 1
  br label %hand.over
marking:
  %donated = word ptr %state, donated
  br label %mark.loop
mark.loop:
  %m = phi i64 [0, %marking], [%m.next, %mark.one], [%m.next, %mark.base]
  %m.more = icmp ult i64 %m, %n
  br i1 %m.more, label %mark.one, label %marked
mark.one:
  %m.twice = shl i64 %m, 1
  %m.pair = getelementptr i64, ptr %donated, i64 %m.twice
  %m.number = word i64 %m.pair, 0
  %m.leaf = word ptr %owned, %m.number
  %m.flags.at = getelementptr i8, ptr %m.leaf, i64 ARRAY_FLAGS
  %m.flags = load i32, ptr %m.flags.at
  %m.turned = and i32 %m.flags, NOT_ALIGNED
  store i32 %m.turned, ptr %m.flags.at
  call void @Py_IncRef(ptr %made.mark)
  %m.base.at = getelementptr i8, ptr %m.leaf, i64 ARRAY_BASE
  %m.base = load ptr, ptr %m.base.at
  store ptr %made.mark, ptr %m.base.at
  %m.next = add i64 %m, 1
  %m.none = icmp eq ptr %m.base, null
  br i1 %m.none, label %mark.loop, label %mark.base
mark.base:  ; which somebody may have got hold of meanwhile
  call void @Py_IncRef(ptr %made.mark)
  %b.base.at = getelementptr i8, ptr %m.base, i64 ARRAY_BASE
  store ptr %made.mark, ptr %b.base.at
  call void @Py_DecRef(ptr %m.base)
  br label %mark.loop
marked:
  call void @Py_DecRef(ptr %made.mark)
  br label %yes
yes:
  ret i1 true
no:
  ret i1 false
}
"""
