# SPDX-License-Identifier: MIT
"""custom_root and custom_linear_solve: solutions of equations, differentiated by the implicit function theorem.

    f(x(c), c) = 0   gives   x_dot = -(df/dx)^-1 (df/dc) c_dot
    A x = b          gives   x_dot = A^-1 (b_dot - A_dot x),   and the cotangent of b is A^-T ct

How the solver works does not matter to the derivative, so it may loop, branch or call back into Python.

Source: Griewank and Walther, "Evaluating Derivatives", 2nd ed., ch. 15; JAX's functions of these names.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from functorch_lite import tree
from functorch_lite.compiler import compile as compile_program
from functorch_lite.control_flow.common import flatten_values, merge_captured, stage_function
from functorch_lite.control_flow.scanning import _some
from functorch_lite.core.aval import aval_of
from functorch_lite.core.evaluate import interpret
from functorch_lite.core.linear import add_tangents, zeros_of
from functorch_lite.core.program import Program
from functorch_lite.core.rules import batch_rules, eval_rules, jvp_rules, transpose_rules
from functorch_lite.core.staging import stage
from functorch_lite.core.tracer import bind
from functorch_lite.errors import ArgumentTypeError, NotLinearError, ShapeError, TreeError
from functorch_lite.primitives.elementwise import neg
from functorch_lite.primitives.higher_order import jit_p, linear_solve_p
from functorch_lite.transforms.arguments import check_callable, name_of, on_its_device, quiet
from functorch_lite.transforms.batching import materialize, program_batch_rules
from functorch_lite.transforms.custom_jvp import custom_jvp
from functorch_lite.transforms.grad import jvp, linearize
from functorch_lite.transforms.inspection import closure_convert
from functorch_lite.transforms.jit_rules import spread
from functorch_lite.transforms.programs import batch_program, jvp_program, transpose_program

# --- custom_root ----------------------------------------------------------------------------------------------------


@on_its_device
def custom_root(
    f: Callable[[Any], Any], initial_guess: Any, solve: Callable[[Callable[[Any], Any], Any], Any],
    tangent_solve: Callable[[Callable[[Any], Any], Any], Any], has_aux: bool = False,
) -> Any:
    """`solve(f, initial_guess)`, a root of `f`, differentiable in what `f` closes over.

    f: from a pytree to one of the same structure, shapes and dtypes. solve: returns x with f(x) = 0, or (x, aux) with
    has_aux. tangent_solve(g, y): returns x with g(x) = y for a linear g; it must be linear in y. The guess and what
    `solve` closes over get no derivative.

    >>> custom_root(lambda x: x - 3.0, 5.0, lambda f, x: x - f(x), lambda g, y: y / g(1.0))
    np.float64(3.0)

    Raises: TreeError or ShapeError when f(x) has another structure or shape than x.
    """
    for function in (f, solve, tangent_solve):
        check_callable("custom_root", function)
    leaves, _, treedef = flatten_values("custom_root", f, initial_guess, "initial_guess")
    guess = tree.unflatten(treedef, leaves)
    residual, captured = closure_convert(f, guess)
    _check_residual(f, guess, functools.partial(residual, guess, *captured))
    run, of_solve = closure_convert(lambda c, x: solve(lambda y: residual(y, *c), x), captured, guess)

    @custom_jvp
    def root(captured, of_solve, guess):
        return run(captured, guess, *of_solve)

    @root.defjvp
    def root_jvp(primals, tangents):
        captured, out = primals[0], root(*primals)
        x = out[0] if has_aux else out
        by_captured = jvp(lambda c: residual(x, *c), (captured,), (tangents[0],))[1]
        derivative = linearize(lambda y: residual(y, *captured), x)[1]
        x_dot = tangent_solve(derivative, tree.map(neg, by_captured))
        return (out, (x_dot, tree.map(_zero, out[1]))) if has_aux else (out, x_dot)

    return root(captured, of_solve, guess)


def _zero(x):
    return zeros_of(aval_of(x))


def _check_residual(f, guess, residual):
    program, _ = stage(lambda: _flat_result(residual, tree.structure(guess), f), [])
    for path, x, got in zip(tree.paths(guess), tree.leaves(guess), program.out_avals, strict=True):
        if aval_of(x).shape != got.shape:
            raise ShapeError(
                f"custom_root: {name_of(f)} must keep shapes: `x{path}` has {aval_of(x)}, the result {got}."
            )


def _flat_result(residual, want, f):
    leaves, found = tree.flatten(residual())
    if found != want:
        raise TreeError(
            f"custom_root: {name_of(f)} must return the structure of its argument {want}, it returned {found}."
        )
    return leaves


# --- custom_linear_solve --------------------------------------------------------------------------------------------
#
# linear_solve: consts, b -> x, aux. Its programs all begin with the same consts:
#     matvec: consts, x -> A x     vecmat: consts, x -> A^T x     solve, transpose_solve: consts, b -> x, aux


@on_its_device
def custom_linear_solve(
    matvec: Callable[[Any], Any], b: Any, solve: Callable[[Callable[[Any], Any], Any], Any],
    transpose_solve: Callable[[Callable[[Any], Any], Any], Any] | None = None, symmetric: bool = False,
    has_aux: bool = False,
) -> Any:
    """`solve(matvec, b)`, the x with matvec(x) = b, differentiable in `b` and in what `matvec` closes over.

    matvec: a linear function of a pytree like `b`. solve(matvec, b): returns x, or (x, aux) with has_aux.
    transpose_solve(vecmat, b): the same for the transposed map; needed for reverse mode unless `symmetric`.

    >>> custom_linear_solve(lambda x: 4.0 * x, 2.0, lambda matvec, b: b / matvec(1.0), symmetric=True)
    np.float64(0.5)

    Raises: NotLinearError in reverse mode without transpose_solve; TreeError or ShapeError for a map not square.
    """
    for function in (matvec, solve, *(() if transpose_solve is None else (transpose_solve,))):
        check_callable("custom_linear_solve", function)
    if symmetric and transpose_solve is None:
        transpose_solve = solve
    with quiet():
        values, _, treedef = flatten_values("custom_linear_solve", matvec, b, "b")
        avals = [aval_of(v) for v in values]
        forward, captured, out_tree, _ = stage_function(
            "custom_linear_solve", matvec, avals, lambda flat: (tree.unflatten(treedef, flat),)
        )
        _check_square(matvec, treedef, avals, out_tree, forward.out_avals, b)
        n_known = len(captured)
        backward = forward if symmetric else transpose_program(forward, n_known, (True,) * len(avals), True)[0]
        build = functools.partial(_solver_program, captured=captured, avals=avals, treedef=treedef, has_aux=has_aux)
        one, of_one, aux_tree = build(solve, forward)
        other, of_other, _ = (None, [], None) if transpose_solve is None else build(transpose_solve, backward)
        programs = [p for p in (forward, backward, one, other) if p is not None]
        merged, consts = merge_captured(programs, [captured, captured, of_one, of_other][: len(programs)])
        outs = bind(
            linear_solve_p, *consts, *values, matvec=merged[0], vecmat=merged[1], solve=merged[2],
            transpose_solve=merged[3] if other is not None else None, n_consts=len(consts),
        )
    x = tree.unflatten(treedef, outs[: len(avals)])
    return (x, tree.unflatten(aux_tree, outs[len(avals) :])) if has_aux else x


def _check_square(matvec, treedef, avals, out_tree, out_avals, b):
    if out_tree != treedef:
        raise TreeError(
            f"custom_linear_solve: {name_of(matvec)} must return the structure of b {treedef}, it returned {out_tree}."
        )
    for path, want, got in zip(tree.paths(b), avals, out_avals, strict=True):
        if want != got:
            raise ShapeError(
                f"custom_linear_solve: {name_of(matvec)} must map a vector like b to one like it: `b{path}` has "
                f"{want}, the result {got}."
            )


def _solver_program(solver, product: Program, *, captured, avals, treedef, has_aux):
    """The program of a user's solver for the map `product`: what each of the two captured, b -> x, aux."""
    n_known = len(captured)
    aux_tree: list[Any] = [None]

    def fun(*args):
        def apply(x):
            return tree.unflatten(treedef, interpret(product, [*args[:n_known], *tree.leaves(x)]))

        result = solver(apply, tree.unflatten(treedef, args[n_known:]))
        if has_aux and not (isinstance(result, tuple) and len(result) == 2):
            raise ArgumentTypeError(
                f"custom_linear_solve: with has_aux=True {name_of(solver)} must return a pair (x, aux)."
            )
        x, aux = result if has_aux else (result, None)
        leaves, found = tree.flatten(x)
        if found != treedef:
            raise TreeError(
                f"custom_linear_solve: {name_of(solver)} must return the structure of b {treedef}, it returned {found}."
            )
        aux_leaves, aux_tree[0] = tree.flatten(aux)
        return [*leaves, *aux_leaves]

    program, own = stage(fun, [*(aval_of(c) for c in captured), *avals], name=name_of(solver))
    return program, [*own, *captured], aux_tree[0]


@eval_rules.register(linear_solve_p)
def _(xp, *args, matvec, vecmat, solve, transpose_solve, n_consts):
    return compile_program(solve)(*args)


@jvp_rules.register(linear_solve_p)
def _(primals, tangents, *, matvec, n_consts, **facts):
    consts, outs = primals[:n_consts], bind(linear_solve_p, *primals, matvec=matvec, n_consts=n_consts, **facts)
    const_dots, dots = tangents[:n_consts], list(tangents[n_consts:])
    n = len(dots)
    if any(t is not None for t in const_dots):  # b_dot - A_dot x
        flags = (*(t is not None for t in const_dots), *[False] * n)
        derived, nonzero = jvp_program(matvec, flags)
        found = bind(jit_p, *consts, *outs[:n], *_some(const_dots), program=derived)
        moved = spread(found[n:], nonzero)
        dots = [add_tangents(t, None if m is None else neg(m)) for t, m in zip(dots, moved, strict=True)]
    if all(t is None for t in dots):
        return outs, [None] * len(outs)
    filled = [zeros_of(aval_of(x)) if t is None else t for x, t in zip(outs, dots, strict=False)]
    found = bind(linear_solve_p, *consts, *filled, matvec=matvec, n_consts=n_consts, **facts)
    return outs, [*found[:n], *[None] * (len(outs) - n)]


@transpose_rules.register(linear_solve_p)
def _(cts, *args, matvec, vecmat, solve, transpose_solve, n_consts):
    if transpose_solve is None:
        raise NotLinearError("custom_linear_solve: reverse mode needs transpose_solve, or symmetric=True.")
    unknown = args[n_consts:]
    filled = [zeros_of(x.aval) if c is None else c for c, x in zip(cts, unknown, strict=False)]
    found = bind(
        linear_solve_p, *args[:n_consts], *filled, matvec=vecmat, vecmat=matvec, solve=transpose_solve,
        transpose_solve=solve, n_consts=n_consts,
    )
    return (*[None] * n_consts, *found[: len(unknown)])


batch_rules.absent(linear_solve_p, "its programs are batched, which may name the mapped axis")


@program_batch_rules.register(linear_solve_p)
def _(trace, args, batched, *, n_consts, **programs):
    flags = (*batched[:n_consts], *[True] * (len(args) - n_consts))
    rows = [
        materialize(a, trace.size) if want and not has else a for a, has, want in zip(args, batched, flags, strict=True)
    ]
    derived = {name: _rows_of(p, trace, flags) for name, p in programs.items()}
    outs = bind(linear_solve_p, *rows, n_consts=n_consts, **derived)
    return outs, [True] * len(outs)


def _rows_of(program: Program | None, trace: Any, flags: Sequence[bool]) -> Program | None:
    return None if program is None else batch_program(program, trace.size, tuple(flags), trace.axis_name, True)[0]
