# SPDX-License-Identifier: MIT
"""Python code of programs for NumPy arrays alone: what eager gradients run.

Small arrays cost what the calls cost, so three things differ from `core.evaluate.Evaluator`, none of them in the bits:

    forms      a primitive is spelled in the shortest way for the types it has here: `{0}.dot({1}.T)`, `{0} / {1}`
    repeats    an operand that NumPy itself repeats is not repeated before, and what is computed from repeated values
               alone is computed once and repeated after: -broadcast(s, (32, 64)) is broadcast(-s, (32, 64))
    constants  a repeated constant is a constant
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from functorch_lite.core.aval import Aval
from functorch_lite.core.evaluate import Writer
from functorch_lite.core.primitive import Kind, Primitive
from functorch_lite.core.program import Atom, Equation, Literal, Program, Var
from functorch_lite.core.rules import eval_rules

NumpyForm = Callable[..., str | Callable[..., Any] | None]
numpy_forms: dict[Primitive, NumpyForm] = {}
"""How code for NumPy alone spells a primitive: `(*atoms, **params)` -> an expression of {0}, {1}, ..., and `np`, or a
function of the operands, or None for a call of the eval rule. Filed by primitives for which looking at the parameters
costs as much as the work."""
_broadcasting: set[Primitive] = set()


def numpy_form(prim: Primitive, broadcasts: bool = False) -> Callable[[NumpyForm], NumpyForm]:
    """Decorator that files how code for NumPy alone spells `prim`; it computes what the eval rule does.

    broadcasts: eval rule and form repeat operands along axes of size 1 and new leading ones, as NumPy's ufuncs do.
    """

    def file(form):
        numpy_forms[prim] = form
        if broadcasts:
            _broadcasting.add(prim)
        return form

    return file


def numpy_code(program: Program, from_list: bool = False, apart: bool = False) -> Callable[..., Any]:
    """The program as a function of NumPy arrays: `run(*arrays)`. NumPy's warnings must be off around it.

    from_list: `run(given)` takes each array out of one list before its first use, and drops it after its last, so that
    memory is freed on the way.
    apart: the results are `(first, (second, ...))` in place of a list.
    """
    return _NumpyWriter(_Sparing().program(program), from_list, apart).namespace()["run"]


# --- repeats ----------------------------------------------------------------------------------------------------------


class _Repeat(NamedTuple):
    """A value that is `source` with its axis i at `dims[i]` of `shape`, repeated along the others."""

    source: Atom
    shape: tuple[int, ...]
    dims: tuple[int, ...]
    prim: Primitive


class _Sparing:
    """Rewrites a program so that values are repeated as late as possible, mostly by NumPy itself."""

    def __init__(self):
        self.repeats: dict[Atom, _Repeat] = {}
        self.equations: list[Equation] = []
        self._made: dict[Any, Atom] = {}  # whole values, and sources with axes of size 1

    def program(self, program: Program) -> Program:
        """The program rewritten."""
        for e in program.equations:
            if e.prim.kind is Kind.BROADCAST and e.inputs and _is_increasing(e.params["dims"]):
                self.repeats[e.outputs[0]] = self._repeat(e)
            elif e.prim.ufunc is not None or e.prim in _broadcasting:
                self._elementwise(e)
            else:
                self._add(e, [self._whole(a) for a in e.inputs])
        outputs = tuple([self._whole(a) for a in program.outputs])
        return Program(program.inputs, tuple(self.equations), outputs, program.name)

    def _add(self, e, inputs, outputs=None):
        self.equations.append(Equation(e.prim, tuple(inputs), outputs or e.outputs, e.params, e.source))

    def _repeat(self, e):
        (x,), shape, dims = e.inputs, e.params["shape"], e.params["dims"]
        inner = self.repeats.get(x)
        if inner is None:
            return _Repeat(x, shape, dims, e.prim)
        return _Repeat(inner.source, shape, tuple([dims[d] for d in inner.dims]), e.prim)

    def _elementwise(self, e):
        found = [self.repeats.get(a) for a in e.inputs]
        shape = e.outputs[0].aval.shape
        if any(r is None and a.aval.shape == shape for r, a in zip(found, e.inputs, strict=True)):
            inputs = [a if r is None else self._aligned(r) for r, a in zip(found, e.inputs, strict=True)]
            return self._add(e, map(_of_rank_0, inputs) if shape else inputs)
        ways = {(r.dims, r.source.aval.shape) for r in found if r is not None and r.dims} or {((), ())}
        if len(ways) > 1 or all(r is None for r in found):
            return self._add(e, [self._whole(a) for a in e.inputs])
        ((dims, small),) = ways
        inputs = [a if r is None else r.source for r, a in zip(found, e.inputs, strict=True)]
        out = Var(Aval(small, e.outputs[0].aval.dtype))
        self.repeats[e.outputs[0]] = _Repeat(out, shape, dims, next(r.prim for r in found if r is not None))
        return self._add(e, inputs, (out,))

    def _aligned(self, r):
        """The source with axes of size 1 such that NumPy repeats it."""
        rank, n = len(r.shape), len(r.dims)
        if r.dims == tuple(range(rank - n, rank)):
            return r.source
        shape = [1] * rank
        for d, size in zip(r.dims, r.source.aval.shape, strict=True):
            shape[d] = size
        return self._placed((r.source, r.dims, rank), r._replace(shape=tuple(shape)))

    def _whole(self, atom):
        r = self.repeats.get(atom)
        return atom if r is None else self._placed(atom, r, atom)

    def _placed(self, key, r, var=None):
        """The variable of a repeated value, which is made here if it is not yet."""
        if key not in self._made:
            params = {"shape": r.shape, "dims": r.dims}
            aval = Aval(r.shape, r.source.aval.dtype)
            if type(r.source) is Literal:
                value = eval_rules[r.prim](np, r.source.value, **params)
                value.flags.writeable = False
                self._made[key] = Literal(value, aval)
            else:
                made = self._made[key] = var or Var(aval)
                self.equations.append(Equation(r.prim, (r.source,), (made,), params))
        return self._made[key]


def _is_increasing(dims):
    return list(dims) == sorted(dims)


def _of_rank_0(atom):
    """A constant scalar as an array, which a ufunc takes sooner."""
    is_scalar = type(atom) is Literal and isinstance(atom.value, np.generic)
    return Literal(np.asarray(atom.value), atom.aval) if is_scalar else atom


# --- the writer -------------------------------------------------------------------------------------------------------

_OPERATORS = {np.add: "{0} + {1}", np.subtract: "{0} - {1}", np.multiply: "{0} * {1}", np.negative: "-{0}"}
"""For NumPy's scalars, operators take a tenth of the time of the ufuncs."""


class _NumpyWriter(Writer):
    """Writes code for NumPy arrays alone, of one list of inputs if `from_list`."""

    def __init__(self, program: Program, from_list: bool, apart: bool):
        self._places = {v: i for i, v in enumerate(program.inputs)} if from_list else {}
        self._apart = apart
        super().__init__(program)

    def _write(self, program):
        self.names.update(np=np, xp=np)
        held = () if self._places else program.inputs
        self._line("def run(" + ("given" if self._places else ", ".join([self._new(v) for v in held])) + "):")
        self._body(program, held)

    def _results(self, outputs):
        if not self._apart:
            return super()._results(outputs)
        first, *others = outputs
        return f"{first}, ({''.join(o + ', ' for o in others)})"

    def _atom(self, atom):
        if atom in self._places:
            place = self._places.pop(atom)
            self._line(f" {self._new(atom)} = given[{place}]; given[{place}] = None")
        return super()._atom(atom)

    def _call(self, eqn, inputs):
        form = numpy_forms.get(eqn.prim)
        found = form and form(*eqn.inputs, **eqn.params)
        if not found and eqn.outputs[0].aval.shape == () and all(_is_float_scalar(a.aval) for a in eqn.inputs):
            found = _OPERATORS.get(eqn.prim.ufunc)
        if not found:
            return super()._call(eqn, inputs)
        if isinstance(found, str):
            return found.format(*inputs)
        return f"{self._constant(found, 'f')}({', '.join(inputs)})"


def _is_float_scalar(aval):
    return aval.shape == () and aval.dtype.char in "fd"
