# SPDX-License-Identifier: MIT
"""Random LLVM functions of the statements that the assembler knows: loops, branches, phis, numbers of several types."""

import random
from contextlib import contextmanager

PLACES = 256
"""Words of eight bytes in each of the two arrays that `module` reads and writes."""
FLOATING = ("float", "double", "<4 x float>", "<8 x float>", "<16 x float>", "<8 x double>", "<4 x double>")
WHOLE = ("i64", "i32", "<16 x i32>", "<8 x i64>")
_SIZES = {"float": 4, "double": 8, "i32": 4, "i64": 8}


def module(seed: int, length: int = 40) -> str:
    """A module with `void f(ptr x, ptr y)`, which reads and writes both; the same one for the same seed."""
    return _Function(random.Random(seed)).text(length)


class _Function:
    def __init__(self, rng: random.Random):
        self.rng, self.lines, self.count, self.block = rng, [], 0, "entry"
        self.known: dict[str, list[str]] = {t: [] for t in (*FLOATING, *WHOLE, "ptr")}
        self.constants: list[str] = []

    def text(self, length: int) -> str:
        self.known["ptr"] = ["%x", "%y"]
        self.lines.append("entry:")
        if self.rng.random() < 0.5:
            self.lines.append("  %stack = alloca [256 x i64], align 64")
            self.lines.append("  %rest = getelementptr i8, ptr %stack, i64 1020")
            for place, size in (("%stack", 1020), ("%rest", 1024), ("%rest", 44)):
                self.lines.append(f"  call void @llvm.memset.p0.i64(ptr {place}, i8 0, i64 {size}, i1 false)")
            self.known["ptr"] += ["%stack"] * 2
        self.statements(length, 3)
        for of in self.known:
            for name in self.known[of][-3:]:
                if of != "ptr":
                    self.lines.append(f"  store {of} {name}, ptr {self.pointer(of)}, align 4")
        declared = [f"declare {t} @llvm.fma.{s}({t}, {t}, {t})" for t, s in _SHORT.items()]
        declared += [f"declare {t} @llvm.sqrt.{s}({t})" for t, s in _SHORT.items()]
        for t, s in _MASKED.items():
            bits = f"<{t.split()[0][1:]} x i1>"
            declared.append(f"declare {t} @llvm.masked.load.{s}.p0(ptr, {bits}, {t})")
            declared.append(f"declare void @llvm.masked.store.{s}.p0({t}, ptr, {bits})")
        declared.append("declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)")
        body = "\n".join([*self.lines, "  ret void"])
        return "\n".join([*self.constants, *declared, f"define void @f(ptr %x, ptr %y) #0 {{\n{body}\n}}\n",
                          "attributes #0 = { nounwind }\n"])  # fmt: skip

    # --- names and operands ---

    def name(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def add(self, of: str, text: str) -> str:
        name = self.name()
        self.lines.append(f"  {name} = {text}")
        self.known[of].append(name)
        return name

    def operand(self, of: str) -> str:
        known = self.known[of]
        return self.rng.choice(known[-12:]) if known and self.rng.random() < 0.85 else self.constant(of)

    def constant(self, of: str) -> str:
        inner = of.split()[-1].rstrip(">")
        number = self.rng.choice((0, 1, -1, 3, 100, -7, 2**31 - 1))
        if inner in ("float", "double"):
            number = self.rng.choice(_NUMBERS)
        return f"splat ({inner} {number})" if of[0] == "<" else str(number)

    def value(self, of: str) -> str:
        """A name, not a constant."""
        known = self.known[of]
        return self.rng.choice(known[-8:]) if known else self.load(of)

    def pointer(self, of: str) -> str:
        base, size = self.rng.choice(self.known["ptr"][:4]), 8
        inner = of.split()[-1].rstrip(">")
        if self.rng.random() < 0.5:
            at, name = self.rng.randrange(PLACES - 17) * size // _SIZES[inner], self.name()
            self.lines.append(f"  {name} = getelementptr {inner}, ptr {base}, i64 {at}")
            return name
        index, many = self.name(), self.rng.choice((1, 1, 3, 12))
        self.lines.append(f"  {index} = and i64 {self.value('i64')}, 15")
        name = self.name()
        kind = inner if many == 1 else f"[{many} x {inner}]"
        self.lines.append(f"  {name} = getelementptr {kind}, ptr {base}, i64 {index}")
        return name

    # --- statements ---

    def statements(self, length: int, depth: int) -> None:
        for _ in range(length):
            choice = self.rng.random()
            if depth and choice < 0.06:
                self.loop(depth)
            elif depth and choice < 0.12:
                self.branch(depth)
            else:
                self.rng.choice((self.load, self.floating, self.floating, self.whole, self.select, self.spread,
                                 self.store, self.multiply_add, self.convert, self.masked))(self.any())  # fmt: skip

    def any(self) -> str:
        return self.rng.choice((*FLOATING, *WHOLE))

    def load(self, of: str) -> str:
        if of in ("i64",) and not self.known["i64"]:
            return self.add(of, "load i64, ptr %x, align 8")
        return self.add(of, f"load {of}, ptr {self.pointer(of)}, align 4")

    def store(self, of: str) -> None:
        self.lines.append(f"  store {of} {self.operand(of)}, ptr {self.pointer(of)}, align 4")

    def floating(self, _: str) -> None:
        of = self.rng.choice(FLOATING)
        operation = self.rng.choice(("fadd", "fsub", "fmul", "fdiv", "fneg", "sqrt"))
        if operation == "fneg":
            of = self.rng.choice(FLOATING[2:])
            self.add(of, f"fneg {of} {self.value(of)}")
        elif operation == "sqrt":
            self.add(of, f"call {of} @llvm.sqrt.{_SHORT[of]}({of} {self.value(of)})")
        else:
            self.add(of, f"{operation} {of} {self.operand(of)}, {self.operand(of)}")

    def whole(self, _: str) -> None:
        of = self.rng.choice(WHOLE)
        operation = self.rng.choice(("add", "sub", "and", "or", "xor", "mul", "shl", "lshr", "ashr"))
        if of[0] == "<" and operation in ("mul", "shl", "lshr", "ashr"):
            operation = "add"
        second = str(self.rng.randrange(31)) if operation in ("shl", "lshr", "ashr") else self.operand(of)
        self.add(of, f"{operation} {of} {self.value(of)}, {second}")

    def multiply_add(self, _: str) -> None:
        of = self.rng.choice(FLOATING)
        a, b, c = (self.operand(of) for _ in range(3))
        self.add(of, f"call {of} @llvm.fma.{_SHORT[of]}({of} {a}, {of} {b}, {of} {c})")

    def condition(self, of: str) -> str:
        name, a, b = self.name(), self.value(of), self.operand(of)
        orders = ("oeq", "olt", "ole", "uno", "une", "uge", "ugt", "ord", "ueq", "ult", "ule", "one", "oge", "ogt")
        signs = ("eq", "ne", "slt", "sge", "sle", "sgt", *(() if of[0] == "<" else ("ult", "uge", "ule", "ugt")))
        kind = f"fcmp {self.rng.choice(orders)}" if of in FLOATING else f"icmp {self.rng.choice(signs)}"
        self.lines.append(f"  {name} = {kind} {of} {a}, {b}")
        return name

    def select(self, of: str) -> None:
        if of in WHOLE:
            of = self.rng.choice(("i64", "i32"))
        bits = f"<{of.split()[0][1:]} x i1>" if of[0] == "<" else "i1"
        test = self.condition(of)
        first = self.value(of) if of in ("float", "double") else self.operand(of)
        self.add(of, f"select {bits} {test}, {of} {first}, {of} {self.operand(of)}")

    def spread(self, _: str) -> None:
        of = self.rng.choice(FLOATING[2:])
        inner, lanes, name = of.split()[-1][:-1], of.split()[0][1:], self.name()
        self.lines.append(f"  {name} = insertelement {of} poison, {inner} {self.value(inner)}, i64 0")
        self.add(of, f"shufflevector {of} {name}, {of} poison, <{lanes} x i32> zeroinitializer")

    def masked(self, _: str) -> None:
        """A load or a store of some lanes."""
        of = self.rng.choice(tuple(_MASKED))
        lanes, mask = int(of.split()[0][1:]), ""
        bits = f"<{lanes} x i1>"
        if self.rng.random() < 0.7:
            mask = self.condition(self.rng.choice([t for t in (*FLOATING, *WHOLE) if t.startswith(f"<{lanes} ")]))
        mask = mask or f"<{', '.join('i1 true' if self.rng.random() < 0.5 else 'i1 false' for _ in range(lanes))}>"
        name, place = _MASKED[of], self.pointer(of)
        if self.rng.random() < 0.5:
            given = f"ptr align 4 {place}, {bits} {mask}, {of} zeroinitializer"
            self.add(of, f"call {of} @llvm.masked.load.{name}.p0({given})")
        else:
            given = f"{of} {self.operand(of)}, ptr align 4 {place}, {bits} {mask}"
            self.lines.append(f"  call void @llvm.masked.store.{name}.p0({given})")

    def convert(self, _: str) -> None:
        to, text = self.rng.choice((("i64", f"sext i32 {self.value('i32')} to i64"),
                                    ("i64", f"zext i32 {self.value('i32')} to i64"),
                                    ("i32", f"trunc i64 {self.value('i64')} to i32"),
                                    ("i32", f"bitcast float {self.value('float')} to i32"),
                                    ("float", f"sitofp i32 {self.value('i32')} to float"),
                                    ("<16 x i32>", f"bitcast <16 x float> {self.value('<16 x float>')} to <16 x i32>")))
        self.add(to, text)

    # --- control ---

    @contextmanager
    def scope(self):
        """Values made inside are not known behind it."""
        before = {of: list(names) for of, names in self.known.items()}
        yield
        self.known = before

    def start(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def loop(self, depth: int) -> None:
        """A loop of one to four rounds, with phis that may take each other's values."""
        head, after, count = (f"b{self.name()[2:]}" for _ in range(3))
        kinds = [self.any() for _ in range(self.rng.randrange(4))]
        starts = [self.operand(of) for of in kinds]
        before = self.block
        self.lines.append(f"  br label %{head}")
        self.start(head)
        at = len(self.lines)
        phis = [self.name() for _ in kinds]
        for of, phi in zip(kinds, phis, strict=True):
            self.known[of].append(phi)
        self.known["i64"].append(f"%{count}")
        self.statements(self.rng.randrange(8), depth - 1)
        nexts = [self.operand(of) for of in kinds]
        step, test = self.name(), self.name()
        self.lines.append(f"  {step} = add i64 %{count}, 1")
        self.lines.append(f"  {test} = icmp slt i64 {step}, {self.rng.randrange(1, 5)}")
        self.lines.append(f"  br i1 {test}, label %{head}, label %{after}")
        self.lines[at:at] = [f"  %{count} = phi i64 [0, %{before}], [{step}, %{self.block}]"] + [
            f"  {phi} = phi {of} [{a}, %{before}], [{b}, %{self.block}]"
            for phi, of, a, b in zip(phis, kinds, starts, nexts, strict=True)
        ]  # fmt: skip
        self.start(after)

    def branch(self, depth: int) -> None:
        """Two ways, and phis of values of both."""
        yes, no, join = (f"b{self.name()[2:]}" for _ in range(3))
        kinds = [self.any() for _ in range(self.rng.randrange(3))]
        test = self.condition(self.rng.choice(("i64", "i32", "float", "double")))
        self.lines.append(f"  br i1 {test}, label %{yes}, label %{no}")
        ends = []
        for label in (yes, no):
            with self.scope():
                self.start(label)
                self.statements(self.rng.randrange(5), depth - 1)
                ends.append(([self.operand(of) for of in kinds], self.block))
                self.lines.append(f"  br label %{join}")
        self.start(join)
        for k, of in enumerate(kinds):
            (first, one), (second, two) = ((values[k], block) for values, block in ends)
            self.add(of, f"phi {of} [{first}, %{one}], [{second}, %{two}]")


_NUMBERS = ("0x0000000000000000", "0x3FF0000000000000", "0xC000000000000000", "0x3FE0000000000000")
_MASKED = {"<16 x float>": "v16f32", "<8 x double>": "v8f64", "<8 x float>": "v8f32", "<16 x i32>": "v16i32"}
_SHORT = {"float": "f32", "double": "f64", "<4 x float>": "v4f32", "<8 x float>": "v8f32", "<16 x float>": "v16f32",
          "<8 x double>": "v8f64", "<4 x double>": "v4f64"}  # fmt: skip
