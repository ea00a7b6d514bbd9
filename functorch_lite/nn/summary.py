# SPDX-License-Identifier: MIT
"""What a model is made of and what a forward pass costs, as a table, without computing anything.

The model runs once on shapes, written down as a program; each layer knows which equations it has written, and these
are counted: a product of matrices [m, k] and [k, n] is 2 m k n operations, a function of an element one.
"""

import functools
import math
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple

from functorch_lite import tree
from functorch_lite.core.dtypes import is_inexact
from functorch_lite.core.primitive import Kind
from functorch_lite.core.program import Equation, Program
from functorch_lite.core.staging import staging_trace
from functorch_lite.errors import ArgumentTypeError
from functorch_lite.nn.containers import Lambda
from functorch_lite.nn.module import Module, static
from functorch_lite.nn.select import Where, mask, trainable_mask
from functorch_lite.transforms.arguments import ShapeDtype
from functorch_lite.transforms.inspection import eval_shape

_COPIES = frozenset({"select", "convert", "bitcast", "stop_gradient", "name", "real", "imag", "conj", "complex"})


class Row(NamedTuple):
    """A layer. path: where it stands in the model, "" for the model itself; kind: the name of its class.

    outputs: shapes of what it returned when it was first called, none if it was not. calls: how often it was called.
    parameters, trainable: how many elements in it and below, those of a shared array once. flops: floating-point
    operations of all its calls; a call inside of a loop counts one turn, in the rows around the loop all of them.
    activation_bytes: of its outputs in all calls, but for those that are its inputs as they came.
    """

    path: str
    kind: str
    outputs: tuple[tuple[int, ...], ...]
    calls: int
    parameters: int
    trainable: int
    flops: int
    activation_bytes: int


class Summary(NamedTuple):
    """A model's rows, the model itself first; `str` and `repr` are the table.

    parameters, trainable: elements of arrays, a shared one counted once. buffers: elements of arrays such as running
    statistics. bytes: of all these. flops: of a forward pass. activation_bytes: of all
    layers' outputs, each array once. shared: how many arrays stand at a second place.
    """

    rows: tuple[Row, ...]
    parameters: int
    trainable: int
    buffers: int
    bytes: int
    flops: int
    activation_bytes: int
    shared: int

    def __repr__(self) -> str:
        return _table(self)

    __str__ = __repr__


def summary(
    model: Module, *args: Any, depth: int | None = None, trainable: Where | None = None, **kwargs: Any
) -> Summary:
    """A table of the layers of `model` in a call `model(*args, **kwargs)`, of which nothing is computed.

    args: arrays, anything with shape and dtype, or in their place shapes as tuples of ints, of the model's own floating
    dtype. depth: show layers at most so deep. trainable: which leaves are trained, as `nn.mask` takes it; by default
    floating-point arrays that are no buffers. What a training step needs in memory says `jit(step).memory(...)`.

    Raises ArgumentTypeError when `model` is no module.

    >>> from functorch_lite import nn, random
    >>> model = nn.Sequential(nn.Linear(784, 128, key=random.key(0)), nn.relu, nn.Linear(128, 10, key=random.key(1)))
    >>> nn.summary(model, (32, 784))
    path        class         output   parameters  trainable    flops  activations
    ------------------------------------------------------------------------------
                Sequential    32, 10      101,770    101,770  6.509 M      1.28 kB
    .layers[0]  Linear        32, 128     100,480    100,480  6.427 M     16.38 kB
    .layers[1]  Lambda(relu)  32, 128           0          0        0     16.38 kB
    .layers[2]  Linear        32, 10        1,290      1,290  82.24 k      1.28 kB
    ------------------------------------------------------------------------------
    101,770 parameters (101,770 trainable), 407.1 kB; forward pass: 6.509 MFLOP, 34.05 kB of activations
    """
    if not isinstance(model, Module):
        raise ArgumentTypeError(f"summary: expected a module, got {type(model).__name__}.")
    leaves, treedef = tree.flatten(model, _is_shape)
    shapes = [leaf if _is_shape(leaf) else ShapeDtype(tuple(leaf.shape), leaf.dtype) for leaf in leaves]
    inputs = tree.map(lambda x: _as_shape(x, shapes), args, is_leaf=_is_input)
    calls = _traced(tree.unflatten(treedef, shapes), inputs, kwargs)
    trained = [is_inexact(s.dtype) for s in shapes]
    plain = tree.unflatten(treedef, [0.0] * len(leaves))
    kept = tree.leaves(trainable_mask(plain))
    chosen = kept if trainable is None else tree.leaves(mask(plain, trainable))
    facts = [
        _Leaf(id(leaf), math.prod(s.shape), s.dtype.itemsize, parameter, parameter and floating and wanted)
        for leaf, s, parameter, floating, wanted in zip(leaves, shapes, kept, trained, chosen, strict=True)
    ]
    numbered = tree.unflatten(treedef, facts)
    return _summed(_rows(numbered, calls), facts, calls, depth)


def _is_shape(x: Any) -> bool:
    return isinstance(x, ShapeDtype)


def _is_input(x: Any) -> bool:
    return _is_shape(x) or (isinstance(x, tuple) and bool(x) and all(type(n) is int for n in x))


def _as_shape(x: Any, leaves: list[ShapeDtype]) -> Any:
    if _is_shape(x) or not isinstance(x, tuple):
        return x
    return ShapeDtype(x, next((leaf.dtype for leaf in leaves if is_inexact(leaf.dtype)), "float32"))


# Running the model with layers that write down their calls.


class _Call(NamedTuple):
    """A call of a layer; made: the outputs that are not its inputs, as those of Dropout in inference are."""

    path: str
    outputs: tuple[tuple[int, ...], ...]
    made: list[Any]
    flops: int


class _Path(str):
    """The path of a layer, as a static field of which all are equal: layers may still be stacked and compared."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Path)

    def __hash__(self) -> int:
        return 0


_calls: ContextVar[list[_Call] | None] = ContextVar("functorch_lite_summary", default=None)


@functools.cache
def _recording(cls: Any) -> Any:
    """A subclass of `cls` whose instances write down their calls."""

    class Recording(cls):
        summary_path: _Path = static(default=_Path())

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            calls, trace = _calls.get(), staging_trace()
            if calls is None or trace is None:
                return super().__call__(*args, **kwargs)
            n_equations = len(trace.equations)
            out = super().__call__(*args, **kwargs)
            outputs = [x for x in tree.leaves(out) if hasattr(x, "dtype")]
            given = set(map(id, tree.leaves((args, kwargs))))
            made = [x for x in outputs if id(x) not in given]
            flops = sum(map(_flops, trace.equations[n_equations:]))
            calls.append(_Call(str(self.summary_path), tuple(tuple(x.shape) for x in outputs), made, flops))
            return out

    Recording.__name__ = cls.__name__
    return Recording


def _recorded(module: Module, path: str) -> Module:
    """`module` with itself and the modules in it of recording classes."""
    copy: Any = object.__new__(_recording(type(module)))
    copy.__dict__.update(vars(module))
    for name in module._child_names:
        value = getattr(module, name)
        nodes, treedef = tree.flatten(value, _is_node)
        places = [f"{path}.{name}{place}" for place in tree.paths(value, _is_node)]
        made = [_recorded(n, p) if isinstance(n, Module) else n for n, p in zip(nodes, places, strict=True)]
        copy.__dict__[name] = tree.unflatten(treedef, made)
    copy.__dict__["summary_path"] = _Path(path)
    return copy


def _is_node(x: Any) -> bool:
    return isinstance(x, Module) or _is_shape(x)


def _traced(model: Module, args: Any, kwargs: Any) -> list[_Call]:
    calls: list[_Call] = []

    def run(model, args):
        del calls[:]
        return model(*args, **kwargs)

    token = _calls.set(calls)
    try:
        eval_shape(run, _recorded(model, ""), args)
    finally:
        _calls.reset(token)
    return calls


# Counting.


def _flops(equation: Equation) -> int:
    """The floating-point operations of an equation."""
    prim, params = equation.prim, equation.params
    if prim.kind is Kind.HIGHER_ORDER:
        inside = [sum(map(_flops, program.equations)) for program in _programs(params.values())]
        if prim.name in ("cond", "batched_cond"):
            return max(inside, default=0)
        return sum(inside) * params.get("length", 1)
    out = equation.outputs[0].aval
    if not equation.inputs or not is_inexact(out.dtype):
        return 0
    return math.prod(out.shape) * _per_element(equation)


def _per_element(equation: Equation) -> int:
    """The operations for one element of the output."""
    prim, params, shapes = equation.prim, equation.params, [x.aval.shape for x in equation.inputs]
    if prim.name == "dot_general":
        return 2 * math.prod(shapes[0][axis] for axis in params["contract"][0])
    if prim.name == "conv_general_dilated":
        return 2 * math.prod(shapes[1][1:]) // math.prod(params["lhs_dilation"])
    if prim.kind is Kind.REDUCTION:
        return math.prod(params["window"]) if "window" in params else _reduced(shapes[0], params)
    if prim.kind is Kind.ELEMENTWISE and prim.name not in _COPIES:
        return 2 if prim.name == "fused_multiply_add" else 1
    return 0


def _reduced(shape: tuple[int, ...], params: dict[str, Any]) -> int:
    return math.prod(shape[axis] for axis in params.get("axes", ()))


def _programs(values: Iterable[Any]) -> list[Program]:
    found: list[Program] = []
    for value in values:
        if isinstance(value, Program):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _programs(value)
    return found


class _Leaf(NamedTuple):
    identity: int
    size: int
    itemsize: int
    is_parameter: bool
    is_trained: bool


def _is_leaf(x: Any) -> bool:
    return isinstance(x, _Leaf)


def _totals(leaves: list[_Leaf]) -> tuple[int, int]:
    unique = {leaf.identity: leaf for leaf in leaves if leaf.is_parameter}.values()
    return sum(leaf.size for leaf in unique), sum(leaf.size for leaf in unique if leaf.is_trained)


def _rows(node: Any, calls: list[_Call], path: str = "") -> list[Row]:
    own = [call for call in calls if call.path == path]
    counts = _totals(tree.leaves(node, _is_leaf))
    costs = sum(call.flops for call in own), sum(_bytes(call.made) for call in own)
    rows = [Row(path, _kind(node), own[0].outputs if own else (), len(own), *counts, *costs)]
    for name in node._child_names:
        value = getattr(node, name)
        nodes = tree.leaves(value, lambda x: isinstance(x, Module | _Leaf))
        places = tree.paths(value, lambda x: isinstance(x, Module | _Leaf))
        for child, place in zip(nodes, places, strict=True):
            rows += _rows(child, calls, f"{path}.{name}{place}") if isinstance(child, Module) else []
    return rows


def _bytes(arrays: Iterable[Any]) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)


def _kind(node: Any) -> str:
    name = type(node).__name__
    return f"{name}({getattr(node.fn, '__name__', '...')})" if isinstance(node, Lambda) else name


def _summed(rows: list[Row], leaves: list[_Leaf], calls: list[_Call], depth: int | None) -> Summary:
    unique = {leaf.identity: leaf for leaf in leaves}.values()
    buffers = sum(leaf.size for leaf in unique if not leaf.is_parameter)
    shown = tuple(row for row in rows if depth is None or _depth(row.path) <= depth)
    n_bytes = sum(leaf.size * leaf.itemsize for leaf in unique)
    made = {id(x): x for call in calls for x in call.made}  # what a layer returns of one inside of it is one array
    shared = len(leaves) - len(unique)
    return Summary(shown, *_totals(leaves), buffers, n_bytes, rows[0].flops, _bytes(made.values()), shared)


def _depth(path: str) -> int:
    return path.count(".")


# The table.

_HEAD = ("path", "class", "output", "parameters", "trainable", "flops", "activations")


def _table(s: Summary) -> str:
    cells = [_HEAD, *map(_cells, s.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(_aligned(row, widths)).rstrip() for row in cells]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    buffers = f", {s.buffers:,} in buffers" if s.buffers else ""
    total = f"{s.parameters:,} parameters ({s.trainable:,} trainable){buffers}, {_unit(s.bytes)}B; "
    total += f"forward pass: {_unit(s.flops)}FLOP, {_unit(s.activation_bytes)}B of activations"
    many = f"{s.shared} arrays stand at a second place and are"
    few = "1 array stands at a second place and is" if s.shared == 1 else many
    note = [f"{few} counted once in each sum"] if s.shared else []
    return "\n".join([lines[0], rule, *lines[1:], rule, total, *note])


def _cells(row: Row) -> tuple[str, ...]:
    outputs = "; ".join(", ".join(map(str, shape)) or "scalar" for shape in row.outputs[:3]) or "-"
    times = f" (x{row.calls})" if row.calls > 1 else ""
    flops, n_bytes = _unit(row.flops).strip(), f"{_unit(row.activation_bytes)}B" if row.calls else "-"
    counts = f"{row.parameters:,}", f"{row.trainable:,}"
    return row.path, row.kind, outputs + times, *counts, flops if row.calls else "-", n_bytes


def _aligned(row: tuple[str, ...], widths: list[int]) -> list[str]:
    return [c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]


def _unit(n: float) -> str:
    """`n` to four figures with a decimal prefix: '6.514 M', '312 '."""
    for prefix in ("", "k", "M", "G", "T"):
        if n < 1000 or prefix == "T":
            break
        n /= 1000
    return f"{n:.4g} {prefix}" if n else "0 "
