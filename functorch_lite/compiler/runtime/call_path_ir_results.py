# SPDX-License-Identifier: MIT
"""IR of the second half of a native call: outputs are allocated, boxed, and put in a tree. See call_path_ir.py."""

RESULTS = """
; Drop %n references; null is none.
define internal void @drop(ptr %objects, i64 %n) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i.next, %one]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %one, label %end
one:
  %object = word ptr %objects, %i
  call void @Py_DecRef(ptr %object)
  %i.next = add i64 %i, 1
  br label %loop
end:
  ret void
}

; Make the arrays of outputs, and where the program writes each output; false with an error set, and nothing made.
define internal i1 @allocate(ptr %plan, i64 %n, ptr %pointers, ptr %objects, ptr %cells, ptr %owned) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i.next, %store]
  %place = phi ptr [%plan, %entry], [%place.next, %store]
  %cell = phi ptr [%cells, %entry], [%cell.next, %store]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %one, label %yes
one:
  %op = word i64 %place, 0
  %after.descr = getelementptr i64, ptr %place, i64 2
  %cell.after = getelementptr i8, ptr %cell, i64 16
  %is.array = icmp eq i64 %op, 0
  br i1 %is.array, label %array, label %store
array:
  %descr = word ptr %place, 1
  %rank = word i64 %place, 2
  %rank.32 = trunc i64 %rank to i32
  %source = word i64 %place, 3
  %lengths = getelementptr i64, ptr %place, i64 4
  %after.lengths = getelementptr i64, ptr %lengths, i64 %rank
  %fresh = icmp slt i64 %source, 0
  br i1 %fresh, label %array.make, label %array.taken
array.taken:
  %leaf = word ptr %owned, %source
  %leaf.data = field ptr %leaf, ARRAY_DATA
  br label %array.make
array.make:
  %memory = phi ptr [null, %array], [%leaf.data, %array.taken]
  %flags = phi i32 [0, %array], [PLAIN_ARRAY, %array.taken]
  call void @Py_IncRef(ptr %descr)
  %made = call ptr @PyArray_NewFromDescr(ptr @PyArray_Type, ptr %descr, i32 %rank.32, ptr %lengths, ptr null,
    ptr %memory, i32 %flags, ptr null)
  %failed = icmp eq ptr %made, null
  br i1 %failed, label %no, label %array.data
array.data:
  %data = field ptr %made, ARRAY_DATA
  br label %store
store:
  %object = phi ptr [null, %one], [%made, %array.data]
  %pointer = phi ptr [%cell, %one], [%data, %array.data]
  %place.next = phi ptr [%after.descr, %one], [%after.lengths, %array.data]
  %cell.next = phi ptr [%cell.after, %one], [%cell, %array.data]
  put ptr %object, %objects, %i
  put ptr %pointer, %pointers, %i
  %i.next = add i64 %i, 1
  br label %loop
yes:
  ret i1 true
no:
  call void @drop(ptr %objects, i64 %i)
  ret i1 false
}

; Make the objects of outputs of rank 0 from their cells; false with an error set.
define internal i1 @box(ptr %plan, i64 %n, ptr %pointers, ptr %objects) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%i.next, %next]
  %place = phi ptr [%plan, %entry], [%place.next, %next]
  %more = icmp ult i64 %i, %n
  br i1 %more, label %one, label %yes
one:
  %op = word i64 %place, 0
  %descr = word ptr %place, 1
  %pointer = word ptr %pointers, %i
  %short = getelementptr i64, ptr %place, i64 2
  switch i64 %op, label %no [OUTPUT_CASES]
on.array:
  %rank = word i64 %place, 2
  %lengths = getelementptr i64, ptr %place, i64 4
  %long = getelementptr i64, ptr %lengths, i64 %rank
  br label %next
on.scalar:
  %scalar = call ptr @PyArray_Scalar(ptr %pointer, ptr %descr, ptr null)
  br label %boxed
on.float:
  %double = load double, ptr %pointer
  %float = call ptr @PyFloat_FromDouble(double %double)
  br label %boxed
on.integer:
  %number = load i64, ptr %pointer
  %integer = call ptr @PyLong_FromLongLong(i64 %number)
  br label %boxed
on.truth:
  %byte = load i8, ptr %pointer
  %word = zext i8 %byte to i64
  %truth = call ptr @PyBool_FromLong(i64 %word)
  br label %boxed
on.complex:
  %real = load double, ptr %pointer
  %imaginary.place = getelementptr i8, ptr %pointer, i64 8
  %imaginary = load double, ptr %imaginary.place
  %complex = call ptr @PyComplex_FromDoubles(double %real, double %imaginary)
  br label %boxed
boxed:
  %object = phi ptr [%scalar, %on.scalar], [%float, %on.float], [%integer, %on.integer], [%truth, %on.truth],
    [%complex, %on.complex]
  put ptr %object, %objects, %i
  %failed = icmp eq ptr %object, null
  br i1 %failed, label %no, label %next
next:
  %place.next = phi ptr [%long, %on.array], [%short, %boxed]
  %i.next = add i64 %i, 1
  br label %loop
yes:
  ret i1 true
no:
  ret i1 false
}

; The result from the plan and the output objects at %cursor (two words: next of each); null with an error set.
define internal ptr @build(ptr %cursor) {
entry:
  %plan = word ptr %cursor, 0
  %op = word i64 %plan, 0
  %after.op = getelementptr i64, ptr %plan, i64 1
  %after.extra = getelementptr i64, ptr %plan, i64 3
  switch i64 %op, label %bad [BUILD_CASES]
on.leaf:
  put ptr %after.op, %cursor, 0
  %output = word ptr %cursor, 1
  %leaf = load ptr, ptr %output
  %output.next = getelementptr ptr, ptr %output, i64 1
  put ptr %output.next, %cursor, 1
  ret ptr %leaf
on.constant:
  %constant = word ptr %plan, 1
  call void @Py_IncRef(ptr %constant)
  %after.constant = getelementptr i64, ptr %plan, i64 2
  put ptr %after.constant, %cursor, 0
  ret ptr %constant
on.call:
  br label %on.tuple
on.tuple:
  %n.tuple = word i64 %plan, 1
  %tuple = call ptr @PyTuple_New(i64 %n.tuple)
  br label %made
on.list:
  %n.list = word i64 %plan, 1
  %list = call ptr @PyList_New(i64 %n.list)
  br label %made
on.dict:
  %template = word ptr %plan, 2
  %dict = call ptr @PyDict_Copy(ptr %template)
  br label %made
on.object:
  %class = word ptr %plan, 2
  %instance = call ptr (ptr, ...) @PyObject_CallFunctionObjArgs(ptr @object_new, ptr %class, ptr null)
  br label %made
made:
  %container = phi ptr [%tuple, %on.tuple], [%list, %on.list], [%dict, %on.dict], [%instance, %on.object]
  %n = word i64 %plan, 1
  put ptr %after.extra, %cursor, 0
  %failed = icmp eq ptr %container, null
  br i1 %failed, label %bad, label %children
children:
  %k = phi i64 [0, %made], [%k.next, %stored]
  %more = icmp ult i64 %k, %n
  br i1 %more, label %key.read, label %end
key.read:
  %place = word ptr %cursor, 0
  %key = word ptr %place, 0
  %after.key = getelementptr i64, ptr %place, i64 1
  %is.dict = icmp eq i64 %op, B_DICT
  %is.object = icmp eq i64 %op, B_OBJECT
  %is.keyed = or i1 %is.dict, %is.object
  %child.place = select i1 %is.keyed, ptr %after.key, ptr %place
  put ptr %child.place, %cursor, 0
  %child = call ptr @build(ptr %cursor)
  %child.failed = icmp eq ptr %child, null
  br i1 %child.failed, label %undo, label %put.child
put.child:
  switch i64 %op, label %put.item [i64 B_DICT, label %put.entry i64 B_OBJECT, label %put.attribute]
put.item:
  %tuple.items = getelementptr i8, ptr %container, i64 TUPLE_ITEMS
  %list.items = field ptr %container, LIST_ITEMS
  %is.list = icmp eq i64 %op, B_LIST
  %items = select i1 %is.list, ptr %list.items, ptr %tuple.items
  put ptr %child, %items, %k
  br label %stored
put.entry:
  %entry.status = call i32 @PyDict_SetItem(ptr %container, ptr %key, ptr %child)
  br label %put.done
put.attribute:
  %attribute.status = call i32 @PyObject_GenericSetAttr(ptr %container, ptr %key, ptr %child)
  br label %put.done
put.done:
  %status = phi i32 [%entry.status, %put.entry], [%attribute.status, %put.attribute]
  call void @Py_DecRef(ptr %child)
  %refused = icmp ne i32 %status, 0
  br i1 %refused, label %undo, label %stored
stored:
  %k.next = add i64 %k, 1
  br label %children
end:
  %is.call = icmp eq i64 %op, B_CALL
  br i1 %is.call, label %finish.call, label %finish
finish:
  ret ptr %container
finish.call:
  %callable = word ptr %plan, 2
  %result = call ptr @PyObject_CallObject(ptr %callable, ptr %container)
  call void @Py_DecRef(ptr %container)
  ret ptr %result
undo:
  call void @Py_DecRef(ptr %container)
  ret ptr null
bad:
  ret ptr null
}
"""
