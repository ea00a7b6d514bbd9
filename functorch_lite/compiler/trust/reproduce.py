# SPDX-License-Identifier: MIT
"""Reproducers: a miscompilation as a small Python file, with its inputs in an .npz file beside it.

    from functorch_lite.compiler.trust.reproduce import Case

    case = Case(__file__)
    a, b = case.inputs("float32[4]", "float32[4]")
    (c,) = case.add("sub", a, b)
    case.check("native", c)

Running the file compiles the equations by that stage, compares with the evaluator, and exits with 1 if they differ.
"""

import hashlib
import importlib
import pkgutil
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from functorch_lite import primitives
from functorch_lite.compiler.trust.locate import Fault, Part, check
from functorch_lite.core import dtypes
from functorch_lite.core.aval import Aval
from functorch_lite.core.primitive import Primitive
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var, variable_names
from functorch_lite.core.rules import eval_rules, shape_rules
from functorch_lite.files import whole_file

_TYPE = re.compile(r"(\w+)\[([\d,]*)\]")
_BYTES = "bytes of "  # before the name of an array of a dtype that .npz files do not hold


class Unwritable(Exception):
    """An equation has a parameter that no file can hold, such as a Python function."""


def dtype(name: str) -> np.dtype:
    """The dtype of this name, bfloat16 and float8 among them."""
    return next((d for d in (dtypes.bfloat16, *dtypes.float8) if str(d) == name), None) or np.dtype(name)


def primitive(name: str) -> Primitive:
    """The primitive of this name."""
    for _ in range(2):
        for prim in eval_rules:
            if prim.name == name:
                return prim
        for module in pkgutil.iter_modules(primitives.__path__):  # families that load when first used
            importlib.import_module(f"{primitives.__name__}.{module.name}")
    raise LookupError(f"there is no primitive `{name}`.")


# --- what a file is written with ------------------------------------------------------------------------------------


class Case:
    """A program being built; `file` is the reproducer, whose inputs are beside it."""

    def __init__(self, file: str | None = None):
        self._file = file
        self._inputs: list[Var] = []
        self._equations: list[Equation] = []

    def inputs(self, *types: str) -> list[Var]:
        """The inputs, with types like "float32[2,3]"."""
        self._inputs = [Var(_aval(t)) for t in types]
        return self._inputs

    def constant(self, value: Any, of: str) -> Literal:
        """A constant of a type; the name of an array of the .npz file stands for that array."""
        aval = _aval(of)
        found = self._array(value, aval) if isinstance(value, str) else np.asarray(value).astype(aval.dtype)
        return Literal(found if aval.shape else found[()], aval)

    def add(self, name: str, /, *inputs: Atom, **params: Any) -> tuple[Var, ...]:
        """An equation; its outputs."""
        prim = primitive(name)
        found = shape_rules[prim](*[a.aval for a in inputs], **params)
        outputs = tuple([Var(a) for a in (found if prim.multiple else [found])])
        self._equations.append(Equation(prim, inputs, outputs, params))
        return outputs

    def program(self, *outputs: Atom) -> Program:
        """The program with these outputs."""
        return Program(tuple(self._inputs), tuple(self._equations), outputs)

    def check(self, stage: str, *outputs: Atom) -> NoReturn:
        """Compile by one stage, compare with the evaluator, and exit: with 1 if they differ."""
        args = [self._array(f"a{k}", v.aval) for k, v in enumerate(self._inputs)]
        difference = check(stage, Part(self.program(*outputs), [a if a.ndim else a[()] for a in args]))
        print("compiled and evaluated agree." if difference is None else f"wrong: {difference}")
        sys.exit(difference is not None)

    def _array(self, name: str, aval: Any) -> np.ndarray:
        assert self._file is not None, "only a reproducer's own program has arrays"
        with np.load(Path(self._file).with_suffix(".npz")) as arrays:
            if name in arrays:
                return arrays[name]
            return np.frombuffer(arrays[_BYTES + name].tobytes(), aval.dtype).reshape(aval.shape).copy()


def _aval(text: str) -> Aval:
    found = _TYPE.fullmatch(text)
    if found is None:
        raise ValueError(f"`{text}` is no type: write one like float32[2,3].")
    return Aval(tuple(int(n) for n in found[2].split(",") if n), dtype(found[1]))


# --- writing one ----------------------------------------------------------------------------------------------------


def write_reproducer(fault: Fault, folder: Path) -> Path:
    """Write the .py and .npz files of a fault, each at once; the path of the first.

    Raises Unwritable when a parameter cannot be written, OSError when the folder cannot.
    """
    writer = _Writer()
    outputs = writer.body(fault.program, "case", "Case(__file__)")
    about = [fault.what, str(fault.difference), *_lines(fault.program)]
    head = ["# A miscompilation that verification found. Run this file: it tells whether the compiler still does it.",
            *[f"#   {line}" for line in about], "",
            "import numpy as np  # noqa: F401" if writer.uses_numpy else "",
            "from functorch_lite.compiler.trust.reproduce import Case, dtype  # noqa: F401", ""]
    end = [f"case.check({fault.stage!r}, {', '.join(outputs)})", ""]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join([*head, *writer.lines, *end]))
    arrays = {**writer.arrays, **{f"a{k}": np.asarray(a) for k, a in enumerate(fault.args)}}
    stored: dict[str, Any] = dict(_storable(name, a) for name, a in arrays.items())
    path = folder / f"miscompiled_{hashlib.sha256(text.encode()).hexdigest()[:12]}.py"
    with whole_file(path.with_suffix(".npz")) as file:
        np.savez(file, **stored)
    with whole_file(path) as file:
        file.write(text.encode())
    return path


def _storable(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    if array.dtype.kind == "V":
        return _BYTES + name, np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    return name, array


def _lines(program: Program) -> list[str]:
    return list(dict.fromkeys(f"for {e.source}" for e in program.equations if e.source is not None))[:5]


class _Writer:
    """Writes programs as calls of `Case`; inner programs come first."""

    def __init__(self):
        self.lines: list[str] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._names = variable_names()
        self._bodies = 0

    @property
    def uses_numpy(self) -> bool:
        return any("np." in line for line in self.lines)

    def body(self, program: Program, case: str, made: str = "Case()") -> list[str]:
        """Write a program; the names of its outputs."""
        names: dict[Var, str] = {}
        lines = [f"{case} = {made}"]
        if program.inputs:
            given = ", ".join(repr(type_text(v.aval)) for v in program.inputs)
            lines.append(f"{self._targets(program.inputs, names)} = {case}.inputs({given})")
        for eqn in program.equations:
            params = "".join(f", {k}={self._expression(v)}" for k, v in eqn.params.items())
            inputs = "".join(f", {self._atom(a, names, case)}" for a in eqn.inputs)
            call = f"{case}.add({eqn.prim.name!r}{inputs}{params})"
            lines.append(f"{self._targets(eqn.outputs, names)} = {call}" if eqn.outputs else call)
        outputs = [self._atom(a, names, case) for a in program.outputs]
        self.lines += lines  # inner programs were written on the way
        return outputs

    def _targets(self, variables: Sequence[Var], names: dict[Var, str]) -> str:
        for v in variables:
            names[v] = f"{next(self._names)}_"
        return f"({', '.join(names[v] for v in variables)},)"

    def _atom(self, atom: Atom, names: dict[Var, str], case: str) -> str:
        if isinstance(atom, Var):
            return names[atom]
        value = np.asarray(atom.value, atom.aval.dtype)
        if value.ndim or value.dtype.kind not in "biuf":
            name = f"c{len(self.arrays)}"
            self.arrays[name] = value
            file = "case" if case == "case" else "Case(__file__)"  # whose arrays an inner program reads, too
            return f"{file}.constant({name!r}, {type_text(atom.aval)!r})"
        return f"{case}.constant({_number(value)}, {type_text(atom.aval)!r})"

    def _expression(self, value: Any) -> str:
        if isinstance(value, Program):
            self._bodies += 1
            name = f"body{self._bodies}"
            outputs = self.body(value, f"{name}_case")
            self.lines.append(f"{name} = {name}_case.program({', '.join(outputs)})")
            return name
        if type(value) in (tuple, list):
            inner = ", ".join(map(self._expression, value))
            return f"[{inner}]" if type(value) is list else f"({inner},)" if value else "()"
        if isinstance(value, np.dtype):
            return f"dtype({str(value)!r})"
        if isinstance(value, np.generic):
            return f"dtype({str(value.dtype)!r}).type({_number(np.asarray(value))})"
        if value is None or isinstance(value, bool | int | str):
            return repr(value)
        if isinstance(value, float):
            return _number(np.asarray(value))
        raise Unwritable(f"a parameter of type {type(value).__name__}")


def _number(value: np.ndarray) -> str:
    item = value.item()
    if isinstance(item, float) and not np.isfinite(item):
        return f"float({str(item)!r})"
    return repr(item)


def type_text(aval: Any) -> str:
    """A type as `Case.inputs` reads it."""
    return f"{aval.dtype}[{','.join(map(str, aval.shape))}]"
