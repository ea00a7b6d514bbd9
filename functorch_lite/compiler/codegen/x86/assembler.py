# SPDX-License-Identifier: MIT
"""Short LLVM modules as machine code of x86-64 with AVX-512, in a pass over their text.

LLVM takes most of a millisecond to set up its code generation, whatever there is to do. A first call of a small program
is over before that with plain code, which this makes of quickly written kernels that go element by element, reduce or
multiply. A statement becomes an instruction or two (statements.py, functions.py), on registers that values keep from
their first to their last use (registers.py); no operation is turned into another, so the bits are those of LLVM's code.
What is not known here, or does not fit into the registers, is left to LLVM: `assembled` returns None.

Data is what `assembled` returns: MAGIC, a line of the names of functions and their offsets in the code, the code.
"""

import re
from collections.abc import Mapping, Sequence

from functorch_lite.compiler.codegen.x86.functions import FunctionWriter
from functorch_lite.compiler.codegen.x86.kinds import content
from functorch_lite.compiler.codegen.x86.reading import Unknown, functions_of

FORMAT = 1
"""Of the code for a module: what was made with another is not used."""
MAGIC = b"functorch_lite code %d\n" % FORMAT
LONGEST = 250
"""Lines of a module: a longer one has more often than not what is unknown here, or not enough registers."""
_STRANGE = ("= or <", "= and <16 x i1>", "<16 x i64>", "<16 x double>", "call i32 @", "call float @s", "call float @c",
            "getelementptr (")  # fmt: skip
"""What is most often unknown in a module of which something is: to look for it first takes less time."""
_INTRINSICS = ("fma.", "sqrt.", "memset.", "masked.load.", "masked.store.", "x86.avx512.permvar.sf.512",
               "x86.avx512.mask.scalef.ps.512")  # fmt: skip
_INTRINSIC = re.compile(r"^declare [^@\n]*@llvm\.([^(\n]+)", re.MULTILINE)
_CONSTANT = re.compile(r"@([-\w.]+) = private unnamed_addr constant (.*), align \d+")


def assembled(text: str) -> bytes | None:
    """The code of a module; None where something in it is not known.

    Its target has AVX-512 (F, BW, DQ, VL), and functions are called as on Unix.
    """
    if text.count("\n") > LONGEST or any([strange in text for strange in _STRANGE]):
        return None
    if not all([name.startswith(_INTRINSICS) for name in _INTRINSIC.findall(text)]):
        return None
    try:
        return _assembled(text)
    except (Unknown, ValueError, LookupError):  # or text of another form than is read here
        return None


def entries(data: bytes) -> tuple[dict[str, int], bytes]:
    """The functions that others may call by their offsets, and the code: of what `assembled` returned."""
    end = data.index(b"\n", len(MAGIC))
    names = data[len(MAGIC) : end].decode().split()
    return {name: int(offset) for name, offset in zip(names[::2], names[1::2], strict=True)}, data[end + 1 :]


def _assembled(text: str) -> bytes:
    readings, around = functions_of(text)
    constants = _constants(around)
    writers = [FunctionWriter(reading, constants) for reading in readings]
    code, offsets = bytearray(), {}
    for writer in writers:
        code += b"\xcc" * (-len(code) % 16)
        offsets[writer.of.name] = len(code)
        code += writer.finished()
    places: dict[bytes, int] = {}
    for writer in writers:
        _settle(writer, offsets, code, places)
    names = " ".join([f"{r.name} {offsets[r.name]}" for r in readings if not r.internal])
    return b"%s%s\n%s" % (MAGIC, names.encode(), code)


def _constants(lines: Sequence[str]) -> dict[str, bytes]:
    """The contents of the constants that a module has. Declarations and attributes say nothing new."""
    found = {}
    for line in lines:
        if line.startswith("@"):
            match = _CONSTANT.fullmatch(line)
            if match is None:
                raise Unknown
            found[match[1]] = content(match[2])
        elif line and not line.startswith(("declare ", "attributes #")):
            raise Unknown
    return found


def _settle(writer: FunctionWriter, offsets: Mapping[str, int], code: bytearray, places: dict[bytes, int]) -> None:
    """Write the distances to other functions and to constants, which go behind the code."""
    start, function = offsets[writer.of.name] + writer.head, writer.code
    for at, name in function.calls:
        function.write(code, start + at, offsets[name], 0)
    for at, what, tail in function.uses:
        if isinstance(what, str):
            target = offsets[what]
        elif what in places:
            target = places[what]
        else:
            code += bytes(-len(code) % min(len(what), 64))
            target = places[what] = len(code)
            code += what
        function.write(code, start + at, target, tail)
