# SPDX-License-Identifier: MIT
"""Transposes by blocks of vectors.

A transpose goes by square blocks: as many rows as a vector has lanes are loaded, and interleaved with the rows half a
block away as often as halving takes; then they are columns. That is a quarter of an instruction for each element, where
loads or stores one by one need several.
"""

from functorch_lite.compiler.codegen.llvm.emitter import BYTES, Emitter
from functorch_lite.compiler.loop_ir.nodes import Transpose

MAX_LANES = 16


def call_transpose(e: Emitter, kind: str, s: Transpose, target: str, source: str) -> None:
    """A transpose between two places, by a function that is written when first called."""
    bits = 8 * BYTES[kind]
    lanes = min(MAX_LANES, e.lanes_bytes // BYTES[kind])
    name = f"transpose_{bits}_{s.rows}"
    e.declarations[name] = _function(name, bits, s.rows, lanes)
    store = f"llvm.masked.store.v{lanes}i{bits}.p0"
    e.declarations[store] = f"declare void @{store}(<{lanes} x i{bits}>, ptr, <{lanes} x i1>)"
    given = f"ptr {target}, i64 {s.step}, ptr {source}, i64 {s.stride}, i64 {s.columns}"
    e.line(f"call void @{name}({given})")


def _function(name: str, bits: int, rows: int, lanes: int) -> str:
    blocks, rest = divmod(rows, lanes)
    body = [
        f"define internal void @{name}(ptr %target, i64 %step, ptr %source, i64 %stride, i64 %columns) #0 {{",
        "entry:",
        f"  %tail = and i64 %columns, {lanes - 1}",
        "  %whole = sub i64 %columns, %tail",
        "  %some = icmp sgt i64 %whole, 0",
        "  br i1 %some, label %column, label %singles",
        "column:",
        f"  %c = phi i64 [0, %entry], [%c.next, %{'rest' if rest else 'row.end'}]",
        "  %c.at = mul i64 %c, %step",
        f"  br label %{'row' if blocks else 'rest'}",
    ]
    if blocks:
        body += ["row:", "  %b = phi i64 [0, %column], [%b.next, %row]", f"  %r = mul i64 %b, {lanes}",
                 *_block("b", bits, lanes, lanes, "%r"),
                 "  %b.next = add i64 %b, 1", f"  %b.more = icmp slt i64 %b.next, {blocks}",
                 "  br i1 %b.more, label %row, label %row.end",
                 "row.end:"]
        body += ["  br label %rest"] if rest else []
    if rest:
        body += ["rest:", *_block("t", bits, rest, lanes, str(blocks * lanes))]
    body += [f"  %c.next = add i64 %c, {lanes}", "  %c.more = icmp slt i64 %c.next, %whole",
             "  br i1 %c.more, label %column, label %singles", *_singles(bits, rows), "}"]
    return "\n".join(body)


def _block(stem: str, bits: int, filled: int, lanes: int, row: str) -> list[str]:
    """A block of `filled` rows from a row on, and of columns from %c on."""
    vector = f"<{lanes} x i{bits}>"
    lines = []
    for k in range(filled):
        lines += [
            f"  %{stem}.r{k} = add i64 {row}, {k}",
            f"  %{stem}.o{k} = mul i64 %{stem}.r{k}, %stride",
            f"  %{stem}.i{k} = add i64 %{stem}.o{k}, %c",
            f"  %{stem}.p{k} = getelementptr i{bits}, ptr %source, i64 %{stem}.i{k}",
            f"  %{stem}.0.{k} = load {vector}, ptr %{stem}.p{k}, align {bits // 8}",
        ]
    names = [f"%{stem}.0.{k}" if k < filled else "poison" for k in range(lanes)]
    names, shuffles = _interleaved(stem, names, vector, lanes)
    lines += shuffles
    on = ", ".join(f"i1 {str(k < filled).lower()}" for k in range(lanes))
    for k, found in enumerate(names):
        at = [f"  %{stem}.m{k} = mul i64 %step, {k}", f"  %{stem}.j{k} = add i64 %c.at, %{stem}.m{k}",
              f"  %{stem}.k{k} = add i64 %{stem}.j{k}, {row}",
              f"  %{stem}.q{k} = getelementptr i{bits}, ptr %target, i64 %{stem}.k{k}"]
        where = f"ptr align {bits // 8} %{stem}.q{k}"
        if filled == lanes:
            lines += [*at, f"  store {vector} {found}, ptr %{stem}.q{k}, align {bits // 8}"]
        else:
            store = f"@llvm.masked.store.v{lanes}i{bits}.p0"
            lines += [*at, f"  call void {store}({vector} {found}, {where}, <{lanes} x i1> <{on}>)"]
    return lines


def _interleaved(stem: str, names: list[str], vector: str, lanes: int) -> tuple[list[str], list[str]]:
    """The columns of a block of rows, and the instructions that make them."""
    lines: list[str] = []
    half = lanes // 2
    masks = [
        ", ".join(f"i32 {first + k // 2 + lanes * (k % 2)}" for k in range(lanes)) for first in (0, half)
    ]
    for level in range(1, lanes.bit_length()):
        following = []
        for k in range(half):
            for part, mask in enumerate(masks):
                name = f"%{stem}.{level}.{2 * k + part}"
                lines.append(f"  {name} = shufflevector {vector} {names[k]}, {vector} {names[k + half]}, "
                             f"<{lanes} x i32> <{mask}>")
                following.append(name)
        names = following
    return names, lines


def _singles(bits: int, rows: int) -> list[str]:
    """The columns from %whole on, one element at a time."""
    return [
        "singles:",
        "  %any = icmp sgt i64 %tail, 0",
        "  br i1 %any, label %single, label %done",
        "single:",
        "  %n = phi i64 [0, %singles], [%n.next, %single]",
        f"  %n.c = udiv i64 %n, {rows}",
        f"  %n.r = urem i64 %n, {rows}",
        "  %n.column = add i64 %whole, %n.c",
        "  %n.o = mul i64 %n.r, %stride",
        "  %n.i = add i64 %n.o, %n.column",
        f"  %n.p = getelementptr i{bits}, ptr %source, i64 %n.i",
        f"  %n.v = load i{bits}, ptr %n.p, align {bits // 8}",
        "  %n.s = mul i64 %n.column, %step",
        "  %n.j = add i64 %n.s, %n.r",
        f"  %n.q = getelementptr i{bits}, ptr %target, i64 %n.j",
        f"  store i{bits} %n.v, ptr %n.q, align {bits // 8}",
        "  %n.next = add i64 %n, 1",
        f"  %n.all = mul i64 %tail, {rows}",
        "  %n.more = icmp slt i64 %n.next, %n.all",
        "  br i1 %n.more, label %single, label %done",
        "done:",
        "  ret void",
    ]
