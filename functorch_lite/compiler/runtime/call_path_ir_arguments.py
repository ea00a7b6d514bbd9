# SPDX-License-Identifier: MIT
"""IR of the first half of a native call: are the arguments as planned, and where is their data? See call_path_ir.py."""

# %cursor: the next word among the inputs, among the owned leaves, and the next cell.
WALK = """
; The rest of the plan after the node %object; null where it is not as planned.
define internal ptr @walk(ptr %plan, ptr %object, ptr %cursor) {
entry:
  %overflow = alloca i32
  %op = word i64 %plan, 0
  %type = field ptr %object, TYPE
  switch i64 %op, label %differs [WALK_CASES]

on.array:
  %rank = word i64 %plan, 3
  %lengths.want = getelementptr i64, ptr %plan, i64 4
  %is.array = icmp eq ptr %type, @PyArray_Type
  br i1 %is.array, label %array.dtype, label %array.scalar
array.scalar:
  %scalar.type = word ptr %plan, 2
  %is.scalar = icmp eq ptr %type, %scalar.type
  br i1 %is.scalar, label %array.scalar.take, label %differs
array.scalar.take:
  %scalar.data = getelementptr i8, ptr %object, i64 VALUE
  br label %keep
array.dtype:
  %dtype.want = word ptr %plan, 1
  %dtype = field ptr %object, ARRAY_DTYPE
  %same.dtype = icmp eq ptr %dtype, %dtype.want
  br i1 %same.dtype, label %array.layout, label %array.twin
array.twin:  ; another object for the same dtype: out of a pickle, or with metadata
  %number = field i32 %dtype, DTYPE_NUMBER
  %number.want = field i32 %dtype.want, DTYPE_NUMBER
  %order = field i8 %dtype, DTYPE_ORDER
  %order.want = field i8 %dtype.want, DTYPE_ORDER
  %same.number = icmp eq i32 %number, %number.want
  %same.order = icmp eq i8 %order, %order.want
  %twin = and i1 %same.number, %same.order
  br i1 %twin, label %array.layout, label %differs
array.layout:
  %flags = field i32 %object, ARRAY_FLAGS
  %flags.seen = and i32 %flags, CONTIGUOUS_ALIGNED
  %plain = icmp eq i32 %flags.seen, CONTIGUOUS_ALIGNED
  %rank.have = field i32 %object, ARRAY_RANK
  %rank.have.64 = zext i32 %rank.have to i64
  %same.rank = icmp eq i64 %rank.have.64, %rank
  %fits = and i1 %plain, %same.rank
  %lengths = field ptr %object, ARRAY_LENGTHS
  br i1 %fits, label %axis, label %differs
axis:
  %i = phi i64 [0, %array.layout], [%i.next, %axis.check]
  %i.more = icmp ult i64 %i, %rank
  br i1 %i.more, label %axis.check, label %array.take
axis.check:
  %length = word i64 %lengths, %i
  %length.want = word i64 %lengths.want, %i
  %i.next = add i64 %i, 1
  %same.length = icmp eq i64 %length, %length.want
  br i1 %same.length, label %axis, label %differs
array.take:
  %array.data = field ptr %object, ARRAY_DATA
  %array.rest = getelementptr i64, ptr %lengths.want, i64 %rank
  br label %keep

on.number:
  %value.type = word ptr %plan, 1
  %is.value = icmp eq ptr %type, %value.type
  br i1 %is.value, label %value.take, label %differs
value.take:
  %value.data = getelementptr i8, ptr %object, i64 VALUE
  %value.rest = getelementptr i64, ptr %plan, i64 2
  br label %keep

on.truth:
  %is.true = icmp eq ptr %object, @_Py_TrueStruct
  %truth.data = select i1 %is.true, ptr @true_byte, ptr @false_byte
  %is.bool = icmp eq ptr %type, @PyBool_Type
  %truth.rest = getelementptr i64, ptr %plan, i64 1
  br i1 %is.bool, label %keep, label %differs

on.integer:
  %is.int = icmp eq ptr %type, @PyLong_Type
  br i1 %is.int, label %integer.value, label %differs
integer.value:
  %integer = call i64 @PyLong_AsLongLongAndOverflow(ptr %object, ptr %overflow)
  %overflowed = load i32, ptr %overflow
  %small = icmp eq i32 %overflowed, 0
  br i1 %small, label %integer.take, label %differs
integer.take:
  %cell = word ptr %cursor, 2
  store i64 %integer, ptr %cell
  %cell.next = getelementptr i8, ptr %cell, i64 16
  put ptr %cell.next, %cursor, 2
  %integer.rest = getelementptr i64, ptr %plan, i64 1
  br label %keep

keep:
  %data = phi ptr [%scalar.data, %array.scalar.take], [%array.data, %array.take], [%value.data, %value.take],
    [%truth.data, %on.truth], [%cell, %integer.take]
  %rest = phi ptr [%lengths.want, %array.scalar.take], [%array.rest, %array.take], [%value.rest, %value.take],
    [%truth.rest, %on.truth], [%integer.rest, %integer.take]
  %input = word ptr %cursor, 0
  store ptr %data, ptr %input
  %input.next = getelementptr ptr, ptr %input, i64 1
  put ptr %input.next, %cursor, 0
  %owned = word ptr %cursor, 1
  store ptr %object, ptr %owned
  %owned.next = getelementptr ptr, ptr %owned, i64 1
  put ptr %owned.next, %cursor, 1
  ret ptr %rest

on.none:
  %is.none = icmp eq ptr %object, @_Py_NoneStruct
  %none.rest = getelementptr i64, ptr %plan, i64 1
  br i1 %is.none, label %match, label %differs

on.same:
  %same.want = word ptr %plan, 1
  %same.rest = getelementptr i64, ptr %plan, i64 2
  %identical = icmp eq ptr %object, %same.want
  br i1 %identical, label %match, label %same.type
same.type:
  %same.want.type = field ptr %same.want, TYPE
  %types.agree = icmp eq ptr %type, %same.want.type
  br i1 %types.agree, label %same.compare, label %differs
same.compare:
  %equal = call i32 @PyObject_RichCompareBool(ptr %object, ptr %same.want, i32 2)
  %is.equal = icmp eq i32 %equal, 1
  br i1 %is.equal, label %match, label %error

on.tuple:
  br label %sized
on.list:
  br label %sized
on.dict:
  br label %sized
on.object:
  br label %container
sized:
  %size = field i64 %object, SIZE
  %size.want = word i64 %plan, 2
  %same.size = icmp eq i64 %size, %size.want
  br i1 %same.size, label %container, label %differs
container:
  %container.type = word ptr %plan, 1
  %n = word i64 %plan, 2
  %first = getelementptr i64, ptr %plan, i64 3
  %is.container = icmp eq ptr %type, %container.type
  br i1 %is.container, label %children, label %differs
children:
  %k = phi i64 [0, %container], [%k.next, %child]
  %place = phi ptr [%first, %container], [%place.next, %child]
  %k.more = icmp ult i64 %k, %n
  br i1 %k.more, label %fetch, label %match
fetch:
  %after.key = getelementptr i64, ptr %place, i64 1
  switch i64 %op, label %item [i64 DICT, label %entry.of i64 OBJECT, label %attribute]
item:
  %tuple.items = getelementptr i8, ptr %object, i64 TUPLE_ITEMS
  %list.items = field ptr %object, LIST_ITEMS
  %size.now = field i64 %object, SIZE  ; a comparison written in Python may have made a list shorter
  %is.list = icmp eq i64 %op, LIST
  %items = select i1 %is.list, ptr %list.items, ptr %tuple.items
  %inside = icmp ult i64 %k, %size.now
  br i1 %inside, label %item.take, label %differs
item.take:
  %item.value = word ptr %items, %k
  call void @Py_IncRef(ptr %item.value)
  br label %child
entry.of:
  %key = word ptr %place, 0
  %found = call ptr @PyDict_GetItemWithError(ptr %object, ptr %key)
  %missing = icmp eq ptr %found, null
  br i1 %missing, label %error, label %entry.take
entry.take:
  call void @Py_IncRef(ptr %found)
  br label %child
attribute:
  %name = word ptr %place, 0
  %got = call ptr @PyObject_GetAttr(ptr %object, ptr %name)
  %absent = icmp eq ptr %got, null
  br i1 %absent, label %error, label %child
child:
  %child.object = phi ptr [%item.value, %item.take], [%found, %entry.take], [%got, %attribute]
  %child.plan = phi ptr [%place, %item.take], [%after.key, %entry.take], [%after.key, %attribute]
  %place.next = call ptr @walk(ptr %child.plan, ptr %child.object, ptr %cursor)
  %k.next = add i64 %k, 1
  %child.differs = icmp eq ptr %place.next, null
  br i1 %child.differs, label %differs, label %children

match:
  %match.rest = phi ptr [%none.rest, %on.none], [%same.rest, %on.same], [%same.rest, %same.compare], [%place, %children]
  call void @Py_DecRef(ptr %object)
  ret ptr %match.rest
error:
  call void @PyErr_Clear()
  br label %differs
differs:
  call void @Py_DecRef(ptr %object)
  ret ptr null
}
"""

ARGUMENTS = """
; Whether the call may be tried: settings, contexts and the number of arguments are as they were.
define internal i1 @may_try(ptr %state, i64 %n.args, ptr %names) {
entry:
  %value.slot = alloca ptr
  %n.want = word i64 %state, n_args
  %same.n = icmp eq i64 %n.args, %n.want
  br i1 %same.n, label %keywords, label %no
keywords:
  %has.names = icmp ne ptr %names, null
  br i1 %has.names, label %keywords.size, label %keywords.check
keywords.size:
  %names.size = field i64 %names, SIZE
  br label %keywords.check
keywords.check:
  %n.names = phi i64 [0, %keywords], [%names.size, %keywords.size]
  %n.names.want = word i64 %state, n_keywords
  %same.n.names = icmp eq i64 %n.names, %n.names.want
  br i1 %same.n.names, label %allowed, label %no
allowed:
  %cell = word ptr %state, allowed
  %unguarded = icmp eq ptr %cell, null
  br i1 %unguarded, label %contexts, label %allowed.check
allowed.check:
  %now = load volatile i64, ptr %cell
  %then = word i64 %state, allowed_value
  %same.value = icmp eq i64 %now, %then
  br i1 %same.value, label %contexts, label %no
contexts:
  %n.contexts = word i64 %state, n_contexts
  %pairs = word ptr %state, contexts
  br label %context
context:
  %i = phi i64 [0, %contexts], [%i.next, %context.agrees]
  %more = icmp ult i64 %i, %n.contexts
  br i1 %more, label %context.get, label %yes
context.get:
  %i.twice = shl i64 %i, 1
  %pair = getelementptr ptr, ptr %pairs, i64 %i.twice
  %variable = word ptr %pair, 0
  %wanted = word ptr %pair, 1
  %got = call i32 @PyContextVar_Get(ptr %variable, ptr null, ptr %value.slot)
  %good = icmp eq i32 %got, 0
  br i1 %good, label %context.check, label %error
context.check:
  %value = load ptr, ptr %value.slot
  call void @Py_DecRef(ptr %value)
  %agrees = icmp eq ptr %value, %wanted
  %i.next = add i64 %i, 1
  br i1 %agrees, label %context.agrees, label %no
context.agrees:
  br label %context
error:
  call void @PyErr_Clear()
  br label %no
yes:
  ret i1 true
no:
  ret i1 false
}

; Whether the arguments are as planned; inputs and owned leaves are stored as far as they were.
define internal i1 @arguments(ptr %state, ptr %args, i64 %n.args, ptr %names, ptr %cursor) {
entry:
  %plan = word ptr %state, walk
  %n.names = word i64 %state, n_keywords
  %wanted = word ptr %state, keywords
  %given = getelementptr i8, ptr %names, i64 TUPLE_ITEMS
  %named = getelementptr ptr, ptr %args, i64 %n.args
  br label %position
position:
  %i = phi i64 [0, %entry], [%i.next, %position.walk]
  %place = phi ptr [%plan, %entry], [%rest, %position.walk]
  %i.more = icmp ult i64 %i, %n.args
  br i1 %i.more, label %position.walk, label %keyword
position.walk:
  %object = word ptr %args, %i
  call void @Py_IncRef(ptr %object)
  %rest = call ptr @walk(ptr %place, ptr %object, ptr %cursor)
  %i.next = add i64 %i, 1
  %differs = icmp eq ptr %rest, null
  br i1 %differs, label %no, label %position
keyword:
  %k = phi i64 [0, %position], [%k.next, %keyword.walk]
  %place.k = phi ptr [%place, %position], [%rest.k, %keyword.walk]
  %k.more = icmp ult i64 %k, %n.names
  br i1 %k.more, label %keyword.name, label %yes
keyword.name:
  %name = word ptr %wanted, %k
  br label %search
search:
  %j = phi i64 [0, %keyword.name], [%j.next, %search.one]
  %j.more = icmp ult i64 %j, %n.names
  br i1 %j.more, label %search.one, label %no
search.one:
  %candidate = word ptr %given, %j
  %j.next = add i64 %j, 1
  %is.name = icmp eq ptr %candidate, %name
  br i1 %is.name, label %keyword.walk, label %search
keyword.walk:
  %object.k = word ptr %named, %j
  call void @Py_IncRef(ptr %object.k)
  %rest.k = call ptr @walk(ptr %place.k, ptr %object.k, ptr %cursor)
  %k.next = add i64 %k, 1
  %differs.k = icmp eq ptr %rest.k, null
  br i1 %differs.k, label %no, label %keyword
yes:
  ret i1 true
no:
  ret i1 false
}
"""
