# SPDX-License-Identifier: MIT
"""The derivative API: jvp, vjp, linearize, linear_transpose, grad, Jacobians and Hessians, with JAX's signatures."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functorch_lite import tree
from functorch_lite.backends.registry import at_home_of, constant
from functorch_lite.config import config
from functorch_lite.core import dtypes
from functorch_lite.core.aval import aval_of
from functorch_lite.core.linear import Tape, TapeTrace, TapeTracer, zeros_of
from functorch_lite.core.staging import staging_trace
from functorch_lite.core.tracer import current_trace, tracing
from functorch_lite.errors import ArgumentTypeError, DTypeError, ShapeError, TreeError
from functorch_lite.primitives.complex_parts import conj
from functorch_lite.primitives.movement import reshape, slice_in_axis
from functorch_lite.transforms.arguments import (
    LEAF,
    FlatFunction,
    Flattener,
    argument_names,
    canonical,
    canonical_leaves,
    check_callable,
    check_outputs,
    leaf_paths,
    name_of,
    normalize_argnums,
    quiet,
    type_text,
)
from functorch_lite.transforms.backward import backward
from functorch_lite.transforms.jvp import jvp_flat
from functorch_lite.transforms.linearize import linearize_flat
from functorch_lite.transforms.vmap import vmap

_f32, _f64 = np.dtype(np.float32), np.dtype(np.float64)
_ONES = {np.float32: np.float32(1), np.float64: np.float64(1)}


def grad(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False, holomorphic: bool = False,
    allow_int: bool = False,
) -> Callable[..., Any]:
    """The gradient of a scalar function with respect to the arguments `argnums`.

    The gradient has the structure, shapes and dtypes of the argument; a tuple of gradients for a tuple of argnums.
    has_aux: `fun` returns (value, aux) and the gradient function returns (gradient, aux).
    holomorphic: `fun` is a complex function of complex arguments. allow_int: integer arguments get float0 zeros.

    >>> grad(lambda x: x * x)(3.0)
    np.float64(6.0)

    Raises: TypeError for integer or complex inputs and non-scalar or non-real outputs.
    """
    value_and_gradient = value_and_grad(fun, argnums, has_aux, holomorphic, allow_int, _name="grad")

    @functools.wraps(fun)
    def gradient(*args, **kwargs):
        value, found = value_and_gradient(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


def value_and_grad(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False, holomorphic: bool = False,
    allow_int: bool = False, *, _name: str = "value_and_grad",
) -> Callable[..., Any]:
    """`fun`'s value and its gradient, as in `grad`: (value, gradient), or ((value, aux), gradient) with has_aux.

    >>> value_and_grad(lambda x: x * x)(3.0)
    (np.float64(9.0), np.float64(6.0))
    """
    check_callable(_name, fun)
    is_single = not isinstance(argnums, tuple | list)
    flatten = Flattener()
    flags = {"transform": _name, "name": name_of(fun), "backwards_only": True}

    @functools.wraps(fun)
    def value_and_gradient(*args, **kwargs):
        positions = normalize_argnums(_name, fun, argnums, len(args))
        selected = args[positions[0]] if is_single else [args[i] for i in positions]
        trace = staging_trace()
        leaves, treedef = (trace.trees.find(selected) if trace is not None else None) or flatten(selected)

        def paths():
            return _selected_paths(fun, args, positions)

        if not holomorphic and _are_real_arrays(leaves):
            values, weak, active = leaves, (), ()
        else:
            values, weak = canonical_leaves(_name, fun, leaves, paths)
            active = _differentiable(_name, values, paths, holomorphic, allow_int)

        def rebuild(flat):
            new = list(args)
            found = treedef.unflatten(flat)
            for i, arg in zip(positions, (found,) if is_single else found, strict=True):
                new[i] = arg
            return new, kwargs

        with quiet():
            flat_fun = FlatFunction(fun, rebuild)
            outs, tape = linearize_flat(flat_fun, values, active, weak=weak, paths=paths, **flags)
            value, cts = _value_and_seeds(_name, fun, flat_fun.out_tree, outs, has_aux, holomorphic)
            found = backward(tape, cts, consume=True)
            if active:
                rest = iter(found)
                found = [next(rest) if on else _no_gradient(v) for v, on in zip(values, active, strict=True)]
            grads = [_zeros_beside(v) if c is None else c for c, v in zip(found, values, strict=True)]
        if config.conjugate_grad and not holomorphic:
            grads = [conj(g) if dtypes.is_complex(g.dtype) else g for g in grads]
        found = treedef.unflatten(grads)
        if trace is not None:
            trace.trees.remember(found, grads, treedef)
        return value, found if is_single else tuple(found)

    return value_and_gradient


def _value_and_seeds(transform, fun, out_tree, outs, has_aux, holomorphic):
    """The value, checked, and the cotangents of all outputs: one where the gradient is taken, None elsewhere."""
    if out_tree is LEAF and type(outs[0]) in _ONES and not has_aux and not holomorphic:
        return outs[0], [_ONES[type(outs[0])]]  # there is nothing to check
    value = tree.unflatten(out_tree, outs)
    _check_value(transform, fun, value, outs, has_aux, holomorphic)
    return value, [aval_of(outs[0]).dtype.type(1), *[None] * (len(outs) - 1)]


def _are_real_arrays(leaves):
    """Whether all are NumPy arrays of float32 or float64, which need no further look."""
    for x in leaves:
        if type(x) is not np.ndarray or (x.dtype is not _f32 and x.dtype is not _f64):
            return False
    return True


def _finish(ct, value):
    return _zeros_beside(value) if ct is None else ct


def _zeros_beside(value):
    """Zeros of the type of `value`, on its device."""
    with at_home_of([value]):
        return zeros_of(aval_of(value))


def _no_gradient(value):
    return np.zeros(value.shape, dtypes.float0)


def _selected_paths(fun, args, positions):
    names = argument_names(fun, len(args))
    return [names[i] + path for i in positions for path in tree.paths(args[i])]


def _differentiable(transform, values, paths, holomorphic, allow_int) -> list[bool]:
    active = []
    for i, v in enumerate(values):
        inexact = dtypes.is_inexact(v.dtype)
        if not inexact and not allow_int:
            raise DTypeError(
                f"{transform}: `{paths()[i]}` has dtype {v.dtype}; derivatives need floating point. "
                "Convert it with .astype(float), leave it out of argnums, or pass allow_int=True for a zero gradient."
            )
        if holomorphic and not dtypes.is_complex(v.dtype):
            raise DTypeError(f"{transform}: holomorphic=True needs complex inputs, `{paths()[i]}` has dtype {v.dtype}.")
        active.append(inexact)
    return active


def _check_value(transform, fun, value, outs, has_aux, holomorphic):
    name = name_of(fun)
    if has_aux:
        if not (isinstance(value, tuple) and len(value) == 2):
            raise ArgumentTypeError(
                f"{transform}: with has_aux=True {name} must return a pair (value, aux), "
                f"it returned {type_text(value)}."
            )
        value = value[0]
    if tree.structure(value).num_leaves != 1 or not tree.structure(value).is_leaf():
        more = "To get more out, return (value, aux) and pass has_aux=True."
        raise ArgumentTypeError(
            f"{transform}: {name} must return one scalar, it returned {type_text(value)}. "
            f"{'Is a `return` missing?' if value is None else more}"
        )
    aval = aval_of(outs[0]) if hasattr(outs[0], "dtype") or isinstance(outs[0], int | float | complex) else None
    if aval is None:
        raise ArgumentTypeError(f"{transform}: {name} must return a scalar array or number, it returned {value!r}.")
    if aval.shape:
        raise ArgumentTypeError(
            f"{transform}: {name} must return a scalar, it returned shape {aval.shape}. "
            "Sum it, or use jacrev for a Jacobian, vjp for a product."
        )
    if holomorphic != dtypes.is_complex(aval.dtype) or not dtypes.is_inexact(aval.dtype):
        want = "complex (holomorphic=True)" if holomorphic else "real floating point"
        raise DTypeError(
            f"{transform}: {name} must return a {want} scalar, it returned dtype {aval.dtype}. "
            f"{_way_out(aval, holomorphic)}"
        )


def _way_out(aval, holomorphic):
    if holomorphic:
        return "Leave out holomorphic=True for a real function."
    if dtypes.is_complex(aval.dtype):
        return "Take .real or .imag of it, or pass holomorphic=True."
    return "An integer result has derivative zero everywhere: differentiate what it is computed from."


# --- forward mode -----------------------------------------------------------------------------------------------------


def jvp(
    fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> tuple[Any, ...]:
    """`fun(*primals)` and its directional derivative along `tangents`: (value, tangent[, aux]).

    >>> jvp(lambda x: x * x, (3.0,), (1.0,))
    (np.float64(9.0), np.float64(6.0))
    """
    check_callable("jvp", fun)
    if not isinstance(primals, tuple | list) or not isinstance(tangents, tuple | list):
        raise ArgumentTypeError(
            "jvp: primals and tangents must be tuples or lists with one entry for each argument, got "
            f"{type_text(primals)} and {type_text(tangents)}. For one argument write jvp(f, (x,), (t,))."
        )
    leaves, treedef = tree.flatten(list(primals))
    dots, dot_tree = tree.flatten(list(tangents))
    if treedef != dot_tree:
        _refuse_structure("jvp", "primals", fun, primals, tangents)
    paths = functools.partial(leaf_paths, fun, primals)
    values, weak = canonical_leaves("jvp", fun, leaves, paths)
    dots, _ = canonical_leaves("jvp", fun, dots, paths)
    dots = [_checked_tangent("jvp", p, t, i, paths) for i, (p, t) in enumerate(zip(values, dots, strict=True))]
    flat_fun = FlatFunction(fun, lambda flat: (tree.unflatten(treedef, flat), {}))
    with quiet():
        outs, out_dots = jvp_flat(flat_fun, values, dots, name_of(fun), paths, weak)
        check_outputs("jvp", fun, outs, flat_fun.out_tree)
        out_dots = [_zero_tangent(o) if t is None else t for o, t in zip(outs, out_dots, strict=True)]
    value, dot = tree.unflatten(flat_fun.out_tree, outs), tree.unflatten(flat_fun.out_tree, out_dots)
    return (value[0], dot[0], value[1]) if has_aux else (value, dot)


def _refuse_structure(transform, of, fun, primals, tangents):
    """Tangents and primals have different structure: say where."""
    if len(primals) != len(tangents):
        raise TreeError(
            f"{transform}: {len(primals)} primals, but {len(tangents)} tangents. Give one for each argument."
        )
    names = argument_names(fun, len(primals))
    found = [tree.first_difference(p, t, path=n) for n, p, t in zip(names, primals, tangents, strict=True)]
    raise TreeError(f"{transform}: tangents must have the structure of {of}: {next(filter(None, found))}")


def _zero_tangent(out):
    aval = aval_of(out)
    return _zeros_beside(out) if dtypes.is_inexact(aval.dtype) else np.zeros(aval.shape, dtypes.float0)


def _checked_tangent(transform, primal, tangent, i, paths, what="tangent"):
    if tangent.dtype == dtypes.float0 or not dtypes.is_inexact(primal.dtype):
        if dtypes.is_inexact(primal.dtype) or tangent.dtype not in (dtypes.float0, primal.dtype):
            raise DTypeError(
                f"{transform}: `{paths()[i]}` has dtype {primal.dtype}, its {what} dtype {tangent.dtype}. "
                f"The {what} of an integer has dtype float0."
            )
        return None
    if tangent.shape != primal.shape:
        raise ShapeError(
            f"{transform}: `{paths()[i]}` has shape {primal.shape}, its {what} has shape {tangent.shape}. "
            f"A {what} has the shape of its value."
        )
    if tangent.dtype != primal.dtype:
        if dtypes.promote((primal.dtype, tangent.dtype)) == primal.dtype and not isinstance(tangent, np.ndarray):
            return primal.dtype.type(tangent) if not tangent.shape and isinstance(tangent, np.generic) else tangent
        raise DTypeError(
            f"{transform}: `{paths()[i]}` has dtype {primal.dtype}, its {what} has dtype {tangent.dtype}. "
            f"Convert the {what} with .astype({str(primal.dtype)!r})."
        )
    return tangent


def linearize(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """`fun(*primals)` and the function of tangents that is its derivative there (computed once, applied often).

    >>> y, derivative = linearize(lambda x: x * x, 3.0)
    >>> derivative(1.0)
    np.float64(6.0)
    """
    outs, tape, flat_fun, values, treedef, active = _linearized("linearize", fun, primals, False)
    paths = functools.partial(leaf_paths, fun, primals)

    def derivative(*tangents):
        dots, dot_tree = tree.flatten(list(tangents))
        if dot_tree != treedef:
            _refuse_structure("linearize", "the arguments", fun, primals, tangents)
        dots, _ = canonical_leaves("linearize", fun, dots, paths)
        pairs = enumerate(zip(values, dots, strict=True))
        dots = [_checked_tangent("linearize", p, t, i, paths) for i, (p, t) in pairs]
        with quiet():
            found = tape.replay([t for t, on in zip(dots, active, strict=True) if on])
            found = [_zero_tangent(o) if t is None else t for o, t in zip(outs, found, strict=True)]
        out = tree.unflatten(flat_fun.out_tree, found)
        return out[0] if has_aux else out

    value = tree.unflatten(flat_fun.out_tree, outs)
    return (value[0], derivative, value[1]) if has_aux else (value, derivative)


def _linearized(transform, fun, primals, has_aux):
    check_callable(transform, fun)
    leaves, treedef = tree.flatten(list(primals))
    paths = functools.partial(leaf_paths, fun, primals)
    values, weak = canonical_leaves(transform, fun, leaves, paths)
    active = [dtypes.is_inexact(v.dtype) for v in values]
    flat_fun = FlatFunction(fun, lambda flat: (tree.unflatten(treedef, flat), {}))
    with quiet():
        outs, tape = linearize_flat(
            flat_fun, values, active, transform=transform, name=name_of(fun), weak=weak, paths=paths,
            backwards_only=transform == "vjp",
        )
    if has_aux and flat_fun.out_tree.num_children != 2:
        raise ArgumentTypeError(f"{transform}: with has_aux=True {name_of(fun)} must return a pair (value, aux).")
    count = flat_fun.out_tree.children()[0].num_leaves if has_aux else None  # aux may hold anything
    check_outputs(transform, fun, outs, flat_fun.out_tree, count)
    outs = [canonical(o)[0] for o in outs]
    return outs, tape, flat_fun, values, treedef, active


# --- reverse mode -----------------------------------------------------------------------------------------------------


def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """`fun(*primals)` and the function from an output cotangent to a tuple of input cotangents.

    An integer input gets a float0 array: its cotangent carries no information.

    >>> y, pullback = vjp(lambda x: x * x, 3.0)
    >>> pullback(1.0)
    (np.float64(6.0),)
    """
    outs, tape, flat_fun, values, treedef, active = _linearized("vjp", fun, primals, has_aux)
    out_tree = flat_fun.out_tree
    n_out = len(outs)
    if has_aux:
        main = tree.unflatten(out_tree, list(range(n_out)))[0]
        out_tree = tree.structure(main)
        n_out = out_tree.num_leaves

    def pullback(ct):
        cts, ct_tree = tree.flatten(ct)
        if ct_tree != out_tree:
            message = tree.first_difference(tree.unflatten(out_tree, outs[:n_out]), ct)
            raise TreeError(f"vjp: the cotangent must have the structure of {name_of(fun)}'s output: {message}")
        cts, _ = canonical_leaves("vjp", fun, cts, lambda: [f"cotangent{p}" for p in tree.paths(ct)])
        paths = lambda: [f"output{p}" for p in tree.paths(ct)]  # noqa: E731
        pairs = enumerate(zip(outs, cts, strict=False))
        cts = [_checked_tangent("vjp", o, c, i, paths, "cotangent") for i, (o, c) in pairs]
        with quiet():
            found = iter(backward(tape, [*cts, *[None] * (len(outs) - n_out)]))
            grads = [_finish(next(found), v) if on else _no_gradient(v) for v, on in zip(values, active, strict=True)]
        return tuple(tree.unflatten(treedef, grads))

    value = tree.unflatten(flat_fun.out_tree, outs)
    return (value[0], pullback, value[1]) if has_aux else (value, pullback)


def linear_transpose(fun: Callable[..., Any], *primals: Any) -> Callable[..., Any]:
    """The transpose of a linear function: from an output cotangent to a tuple of input cotangents.

    `primals` give shapes and dtypes only. Raises NotLinearError, naming the primitive, for a function not linear.

    >>> linear_transpose(lambda x: 3.0 * x, 1.0)(1.0)
    (np.float64(3.0),)
    """
    check_callable("linear_transpose", fun)
    leaves, treedef = tree.flatten(list(primals))
    is_type = [hasattr(x, "shape") and hasattr(x, "dtype") for x in leaves]
    checked = [0.0 if t else x for x, t in zip(leaves, is_type, strict=True)]
    values, _ = canonical_leaves("linear_transpose", fun, checked, functools.partial(leaf_paths, fun, primals))
    avals: list[Any] = [aval_of(x if t else v) for x, v, t in zip(leaves, values, is_type, strict=True)]

    def transposed(ct):
        trace = TapeTrace(current_trace())
        inputs = [trace.input(a) for a in avals]
        with quiet(), at_home_of(tree.leaves(ct)):
            with tracing(trace):
                out, out_tree = tree.flatten(fun(*tree.unflatten(treedef, inputs)))
            linear = [o if isinstance(o, TapeTracer) and o.tag is trace.tag else None for o in out]
            cts, ct_tree = tree.flatten(ct)
            if ct_tree != out_tree:
                message = tree.first_difference(tree.unflatten(out_tree, out), ct)
                raise TreeError(
                    f"linear_transpose: the cotangent must have the structure of {name_of(fun)}'s output: {message}"
                )
            cts, _ = canonical_leaves("linear_transpose", fun, cts, lambda: [f"cotangent{p}" for p in tree.paths(ct)])
            found = Tape(trace, inputs, linear).backward(cts)
            found = [zeros_of(a) if c is None else c for c, a in zip(found, avals, strict=True)]
        return tuple(tree.unflatten(treedef, found))

    return transposed


# --- Jacobians and Hessians -------------------------------------------------------------------------------------------


def jacfwd(fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False,
           holomorphic: bool = False) -> Callable[..., Any]:
    """The Jacobian by forward mode, one column at a time under `vmap`: for functions with few inputs.

    An output leaf of shape S and an input leaf of shape T give a block of shape S + T.
    """

    def jacobian(f, args, paths):
        leaves, treedef = tree.flatten(args)
        values, weak = canonical_leaves("jacfwd", fun, leaves, paths)
        _differentiable("jacfwd", values, paths, holomorphic, False)

        def push(*tangents):
            _, dot, *aux = jvp(f, args, tree.unflatten(treedef, tangents), has_aux=has_aux)
            return dot, tuple(aux)

        sizes = [int(np.prod(v.shape)) for v in values]
        columns, aux = vmap(push, out_axes=(-1, None), axis_size=sum(sizes))(*_basis(values, sizes))
        blocks = tree.map(lambda c: _Row(tree.unflatten(treedef, _split(c, values, sizes, last=True))), columns)
        return (blocks, *aux)

    return _jacobian_of("jacfwd", fun, argnums, has_aux, jacobian)


def jacrev(fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False,
           holomorphic: bool = False, allow_int: bool = False) -> Callable[..., Any]:
    """The Jacobian by reverse mode, one row at a time under `vmap`: for functions with few outputs."""

    def jacobian(f, args, paths):
        leaves, _ = tree.flatten(args)
        values, _ = canonical_leaves("jacrev", fun, leaves, paths)
        _differentiable("jacrev", values, paths, holomorphic, allow_int)
        value, pullback, *aux = vjp(f, *args, has_aux=has_aux)
        outs, out_tree = tree.flatten(value)
        outs, _ = canonical_leaves("jacrev", fun, outs, lambda: [f"output{p}" for p in tree.paths(value)])
        sizes = [int(np.prod(o.shape)) for o in outs]
        rows = vmap(lambda *cts: pullback(tree.unflatten(out_tree, cts)), axis_size=sum(sizes))(*_basis(outs, sizes))
        parts = tree.map(lambda r: _split(r, outs, sizes, last=False), rows)
        blocks = [_Row(tree.map(lambda r, i=i: r[i], parts)) for i in range(len(outs))]
        return (tree.unflatten(out_tree, blocks), *aux)

    return _jacobian_of("jacrev", fun, argnums, has_aux, jacobian)


class _Parts(tuple):
    """The parts of one Jacobian leaf, one for each output leaf; a leaf itself, as every subclass of a container is."""

    __slots__ = ()


def _jacobian_of(transform, fun, argnums, has_aux, jacobian):
    check_callable(transform, fun)

    @functools.wraps(fun)
    def jacobian_of(*args, **kwargs):
        positions = normalize_argnums(transform, fun, argnums, len(args))

        def partial(*selected):
            new = list(args)
            for i, a in zip(positions, selected, strict=True):
                new[i] = a
            return fun(*new, **kwargs)

        paths = functools.partial(_selected_paths, fun, args, positions)
        blocks, *aux = jacobian(functools.wraps(fun)(partial), [args[i] for i in positions], paths)
        if np.ndim(argnums) == 0:
            blocks = tree.map(lambda row: row[0], blocks)
        else:
            blocks = tree.map(tuple, blocks)
        return (blocks, aux[0]) if has_aux else blocks

    return jacobian_of


class _Row(list):
    """The blocks of one output leaf, one for each selected argument; a leaf itself."""

    __slots__ = ()


def _basis(values, sizes):
    """For each array, the unit vectors of all arrays together that fall in it: [total, *shape]."""
    total, start, found = sum(sizes), 0, []
    for v, n in zip(values, sizes, strict=True):
        block = np.zeros((total, n), v.dtype)
        block[start + np.arange(n), np.arange(n)] = 1
        found.append(constant(block.reshape((total, *v.shape)), v))
        start += n
    return found


def _split(x, values, sizes, last):
    parts, start = [], 0
    for v, n in zip(values, sizes, strict=True):
        part = slice_in_axis(x, start, start + n, len(x.shape) - 1 if last else 0)
        rest = x.shape[:-1] if last else x.shape[1:]
        parts.append(reshape(part, (*rest, *v.shape) if last else (*v.shape, *rest)))
        start += n
    return parts if last else _Parts(parts)


def hessian(fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False,
            holomorphic: bool = False) -> Callable[..., Any]:
    """The matrix of second derivatives: forward mode over reverse mode.

    >>> float(hessian(lambda x: x ** 3)(2.0))
    12.0
    """
    return jacfwd(jacrev(fun, argnums, has_aux, holomorphic), argnums, has_aux, holomorphic)


def hvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """The Hessian of scalar `fun` times a vector, at the cost of two gradients: forward over reverse.

    >>> float(hvp(lambda x: x ** 3, (2.0,), (1.0,)))
    12.0
    """
    numbers = 0 if len(primals) == 1 else tuple(range(len(primals)))
    return jvp(grad(fun, numbers), primals, tangents)[1]
