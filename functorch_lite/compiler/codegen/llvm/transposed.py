# SPDX-License-Identifier: MIT
"""Transposes by blocks of vectors.

A transpose goes by square blocks: as many rows as a vector has lanes are loaded, and interleaved with the rows half a
block away as often as halving takes; then they are columns. That is a quarter of an instruction for each element, where
loads or stores one by one need several. One function does it for all sizes: in the last block of rows the last row
stands for those that are missing, and is not stored for them.

Few rows whose columns are to lie side by side, as those of a register tile, have a function of their own: of two, four
or eight vectors of them interleaved each is some columns in order.

Where code is made quickly, elements go one by one: LLVM takes longer over the shuffles of a block than over most
programs.
"""

from collections.abc import Sequence

from functorch_lite.compiler.codegen.llvm.emitter import BYTES, Emitter
from functorch_lite.compiler.loop_ir.nodes import Transpose

MAX_LANES = 16


def call_transpose(e: Emitter, kind: str, s: Transpose, target: str, source: str) -> None:
    """A transpose between two places, by a function that is written when first called."""
    bits = 8 * BYTES[kind]
    given = f"ptr {target}, i64 {s.step}, ptr {source}, i64 {s.stride}, i64 {s.rows}, i64 {s.columns}"
    if e.brief:
        name = f"transpose_{bits}_simple"
        if name not in e.declarations:
            e.declarations[name] = _simple_function(name, bits)
        e.line(f"call void @{name}({given})")
        return
    if 2 < s.rows == s.step <= min(MAX_LANES, e.lanes_bytes // BYTES[kind]) // 2:
        _call_narrow(e, bits, s, target, source)
        return
    name = f"transpose_{bits}"
    if name not in e.declarations:
        lanes = min(MAX_LANES, e.lanes_bytes // BYTES[kind])
        store = f"llvm.masked.store.v{lanes}i{bits}.p0"
        e.declarations["llvm.smin.i64"] = "declare i64 @llvm.smin.i64(i64, i64)"
        e.declarations[store] = f"declare void @{store}(<{lanes} x i{bits}>, ptr, <{lanes} x i1>)"
        e.declarations[name] = _function(name, bits, lanes)
    e.line(f"call void @{name}({given})")


def _simple_function(name: str, bits: int) -> str:
    """The transpose of any number of rows, one element at a time."""
    return "\n".join([*_head(name), "  %tail = add i64 %columns, 0", "  %whole = add i64 0, 0", "  br label %rest",
                      *_rest(bits), "}"])  # fmt: skip


def _call_narrow(e: Emitter, bits: int, s: Transpose, target: str, source: str) -> None:
    name = f"transpose_{bits}_{s.rows}"
    if name not in e.declarations:
        lanes = min(MAX_LANES, e.lanes_bytes * 8 // bits)
        store = f"llvm.masked.store.v{lanes}i{bits}.p0"
        e.declarations[store] = f"declare void @{store}(<{lanes} x i{bits}>, ptr, <{lanes} x i1>)"
        e.declarations[name] = _narrow_function(name, bits, lanes, s.rows)
    e.line(f"call void @{name}(ptr {target}, i64 {s.rows}, ptr {source}, i64 {s.stride}, i64 {s.rows}, "
           f"i64 {s.columns})")


def _narrow_function(name: str, bits: int, lanes: int, rows: int) -> str:
    """The transpose of a number of rows, at most half the lanes, to columns with nothing between them."""
    return "\n".join([
        *_head(name),
        *_counts(lanes),
        "  %o0 = add i64 0, 0",
        *[f"  %o{k} = add i64 %o{k - 1}, %stride" for k in range(1, rows)],
        "  %wide = icmp sgt i64 %whole, 0",
        "  br i1 %wide, label %column, label %rest",
        "column:",
        f"  %c = phi i64 [0, %entry], [%c.next, %level{(rows - 1).bit_length()}]",
        *_narrow_block(bits, lanes, rows),
        f"  %c.next = add i64 %c, {lanes}",
        "  %c.more = icmp slt i64 %c.next, %whole",
        "  br i1 %c.more, label %column, label %rest",
        *_rest(bits),
        "}",
    ])  # fmt: skip


def _narrow_block(bits: int, lanes: int, rows: int) -> list[str]:
    """All rows of as many columns as there are lanes, from %c on; vectors of whole columns are stored."""
    vector, levels = f"<{lanes} x i{bits}>", (rows - 1).bit_length()
    lines = _loads(bits, vector, rows)
    names = [f"%v0.{min(k, rows - 1)}" for k in range(1 << levels)]
    stored = lanes >> levels  # columns of a vector
    kept = [column << levels | row for column in range(stored) for row in range(rows)]
    kept += [0] * (lanes - len(kept))
    vectors, shuffles = _interleaved(names, vector, lanes, kept)
    there = ", ".join(f"i1 {k < stored * rows}".lower() for k in range(lanes))
    lines += [*shuffles, "  %begin = mul i64 %c, %rows"]
    for k, columns in enumerate(vectors):
        lines += [
            f"  %to.{k} = add i64 %begin, {k * stored * rows}",
            f"  %q{k} = getelementptr i{bits}, ptr %target, i64 %to.{k}",
            f"  call void @llvm.masked.store.v{lanes}i{bits}.p0({vector} {columns}, ptr align {bits // 8} %q{k}, "
            f"<{lanes} x i1> <{there}>)",
        ]
    return lines


def _head(name: str) -> list[str]:
    """The beginning of a function."""
    params = "ptr %target, i64 %step, ptr %source, i64 %stride, i64 %rows, i64 %columns"
    return [f"define internal void @{name}({params}) #0 {{", "entry:"]


def _counts(lanes: int) -> list[str]:
    """%whole columns are whole vectors, %tail are left."""
    return [f"  %tail = and i64 %columns, {lanes - 1}", "  %whole = sub i64 %columns, %tail"]


def _loads(bits: int, vector: str, rows: int) -> list[str]:
    """Vectors from %c on, of rows that begin at %o0, %o1 and so on."""
    lines = []
    for k in range(rows):
        lines += [
            f"  %i{k} = add i64 %o{k}, %c",
            f"  %p{k} = getelementptr i{bits}, ptr %source, i64 %i{k}",
            f"  %v0.{k} = load {vector}, ptr %p{k}, align {bits // 8}",
        ]
    return lines


def _function(name: str, bits: int, lanes: int) -> str:
    numbers = f"<{lanes} x i64>"
    counts = ", ".join(f"i64 {k}" for k in range(lanes))
    return "\n".join([
        *_head(name),
        *_counts(lanes),
        "  %last = sub i64 %rows, 1",
        "  %wide = icmp sgt i64 %whole, 0",
        "  br i1 %wide, label %row, label %rest",
        "row:",
        "  %r = phi i64 [0, %entry], [%r.next, %row.end]",
        "  %left = sub i64 %rows, %r",
        f"  %left.one = insertelement {numbers} poison, i64 %left, i64 0",
        f"  %left.all = shufflevector {numbers} %left.one, {numbers} poison, <{lanes} x i32> zeroinitializer",
        f"  %there = icmp sgt {numbers} %left.all, <{counts}>",
        *[line for k in range(lanes) for line in _start_of_row(k)],
        "  br label %column",
        "column:",
        "  %c = phi i64 [0, %row], [%c.next, %stores]",
        *_block(bits, lanes),
        f"  %c.next = add i64 %c, {lanes}",
        "  %c.more = icmp slt i64 %c.next, %whole",
        "  br i1 %c.more, label %column, label %row.end",
        "row.end:",
        f"  %r.next = add i64 %r, {lanes}",
        "  %r.more = icmp slt i64 %r.next, %rows",
        "  br i1 %r.more, label %row, label %rest",
        *_rest(bits),
        "}",
    ])  # fmt: skip


def _start_of_row(k: int) -> list[str]:
    """Where row k of a block begins in the source."""
    return [
        f"  %r{k} = add i64 %r, {k}",
        f"  %r{k}.there = call i64 @llvm.smin.i64(i64 %r{k}, i64 %last)",
        f"  %o{k} = mul i64 %r{k}.there, %stride",
    ]


def _block(bits: int, lanes: int) -> list[str]:
    """A block of rows from %r on, and of columns from %c on.

    Each level of shuffles is a block of its own: within one, LLVM looks at every chain of them, at four times the cost.
    """
    vector = f"<{lanes} x i{bits}>"
    lines = _loads(bits, vector, lanes)
    columns, shuffles = _interleaved([f"%v0.{k}" for k in range(lanes)], vector, lanes)
    lines += shuffles
    lines += [
        "  br label %stores",
        "stores:",
        "  %c.at = mul i64 %c, %step",
        "  %to.0 = add i64 %c.at, %r",
        f"  %q0 = getelementptr i{bits}, ptr %target, i64 %to.0",
    ]
    for k, column in enumerate(columns):
        if k:
            lines.append(f"  %q{k} = getelementptr i{bits}, ptr %q{k - 1}, i64 %step")
        lines.append(
            f"  call void @llvm.masked.store.v{lanes}i{bits}.p0({vector} {column}, ptr align {bits // 8} %q{k}, "
            f"<{lanes} x i1> %there)"
        )
    return lines


def _interleaved(
    names: list[str], vector: str, lanes: int, kept: Sequence[int] | None = None
) -> tuple[list[str], list[str]]:
    """The columns of a block of rows, and the instructions that make them.

    The block has at most as many rows as there are lanes, a power of two; a vector is as many columns as are in it.
    kept: which elements of these vectors to have, in order.
    """
    lines: list[str] = []
    half = len(names) // 2
    pairs = [[first + k // 2 + lanes * (k % 2) for k in range(lanes)] for first in (0, lanes // 2)]
    for level in range(1, len(names).bit_length()):
        following = []
        if kept is not None and level == len(names).bit_length() - 1:
            pairs = [[pair[k] for k in kept] for pair in pairs]
        masks = [", ".join(f"i32 {k}" for k in pair) for pair in pairs]
        lines += [f"  br label %level{level}", f"level{level}:"]
        for k in range(half):
            for part, mask in enumerate(masks):
                name = f"%v{level}.{2 * k + part}"
                lines.append(f"  {name} = shufflevector {vector} {names[k]}, {vector} {names[k + half]}, "
                             f"<{lanes} x i32> <{mask}>")
                following.append(name)
        names = following
    return names, lines


def _rest(bits: int) -> list[str]:
    """The columns from %whole on, one element at a time."""
    return [
        "rest:",
        "  %any = icmp sgt i64 %tail, 0",
        "  br i1 %any, label %rest.column, label %done",
        "rest.column:",
        "  %x = phi i64 [%whole, %rest], [%x.next, %rest.end]",
        "  %x.at = mul i64 %x, %step",
        "  br label %rest.row",
        "rest.row:",
        "  %y = phi i64 [0, %rest.column], [%y.next, %rest.row]",
        "  %y.at = mul i64 %y, %stride",
        "  %from = add i64 %y.at, %x",
        f"  %from.p = getelementptr i{bits}, ptr %source, i64 %from",
        f"  %value = load i{bits}, ptr %from.p, align {bits // 8}",
        "  %to = add i64 %x.at, %y",
        f"  %to.p = getelementptr i{bits}, ptr %target, i64 %to",
        f"  store i{bits} %value, ptr %to.p, align {bits // 8}",
        "  %y.next = add i64 %y, 1",
        "  %y.more = icmp slt i64 %y.next, %rows",
        "  br i1 %y.more, label %rest.row, label %rest.end",
        "rest.end:",
        "  %x.next = add i64 %x, 1",
        "  %x.more = icmp slt i64 %x.next, %columns",
        "  br i1 %x.more, label %rest.column, label %done",
        "done:",
        "  ret void",
    ]
