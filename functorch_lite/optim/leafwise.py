# SPDX-License-Identifier: MIT
"""Transformations of gradients that look at one leaf at a time: several in a row are one pass over the leaves.

    def begin(state, params):                                      # once a step
        count = state.count + 1

        def each(g, p, m):                                         # for each leaf
            m = average(b1, g, m)
            return m / (1 - b1**count), m                          # the update, and the new state of the leaf

        return Leafwise(each, (state.mean,), lambda mean: State(count, mean))

    return GradientTransformation(init, LeafwiseUpdate(begin))

`chain` puts such transformations together, and `step` adds the update to the parameter in the same pass: no tree of
updates is made on the way, and a staged function has one program for the leaves of equal layers, not one a stage.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from functorch_lite.optim.blockwise import is_absent, map_leaves_to


class Leafwise(NamedTuple):
    """What a transformation does in one step.

    fun: (gradient, parameter, *leaves of states, *leaves of others) -> (update, *new leaves of states); the parameter
    is None where the parameters were left out. states: trees of the state that are like the parameters. state: from
    the new ones, the new state. others: trees that go along (a mask).
    """

    fun: Callable[..., tuple[Any, ...]]
    states: tuple[Any, ...] = ()
    state: Callable[..., Any] = tuple
    others: tuple[Any, ...] = ()


class LeafwiseUpdate:
    """The `update` of a transformation that looks at one leaf at a time. begin: (state, params) -> Leafwise."""

    __slots__ = ("begin",)

    def __init__(self, begin: Callable[[Any, Any], Leafwise]):
        self.begin = begin

    def __call__(self, grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """`(updates, state)`. Where a gradient is absent the update is None, and the state stays."""
        work = self.begin(state, params)
        if params is None:
            return _mapped(work, grads, grads, lambda g, p, *own: work.fun(g, None, *own), lambda p: None)
        return _mapped(work, grads, params, work.fun, lambda p: None)

    def step(self, params: Any, grads: Any, state: Any) -> tuple[Any, Any]:
        """`(params, state)` after one step."""
        work = self.begin(state, params)

        def each(g, p, *own):
            update, *new = work.fun(g, p, *own)
            return (added(p, update), *new)

        return _mapped(work, grads, params, each, lambda p: p)


def _mapped(
    work: Leafwise, grads: Any, params: Any, fun: Callable[..., tuple[Any, ...]], absent: Callable[[Any], Any]
) -> tuple[Any, Any]:
    """The tree of the first results of `fun`, and the new state. absent: the first result without a gradient."""
    n = len(work.states)
    each = lambda g, p, *own: (absent(p), *own[:n]) if is_absent(g) else fun(g, p, *own)  # noqa: E731
    first, *states = map_leaves_to(1 + n, each, grads, params, *work.states, *work.others, is_leaf=is_absent)
    return first, work.state(*states)


def in_a_row(works: Sequence[Leafwise]) -> Leafwise:
    """The steps of several transformations as one; its state is the tuple of their states."""
    at_states = _spans([len(work.states) for work in works])
    n = at_states[-1].stop if works else 0
    at_others = [slice(n + s.start, n + s.stop) for s in _spans([len(work.others) for work in works])]
    stages = [(work.fun, a, b) for work, a, b in zip(works, at_states, at_others, strict=True)]

    def fun(g, p, *leaves):
        new: list[Any] = []
        for each, own, others in stages:
            g, *more = each(g, p, *leaves[own], *leaves[others])
            new += more
        return (g, *new)

    def state(*trees):
        return tuple([work.state(*trees[own]) for work, own in zip(works, at_states, strict=True)])

    states = [tree for work in works for tree in work.states]
    return Leafwise(fun, tuple(states), state, tuple([tree for work in works for tree in work.others]))


def _spans(counts: Sequence[int]) -> list[slice]:
    starts = [sum(counts[:k]) for k in range(len(counts))]
    return [slice(start, start + count) for start, count in zip(starts, counts, strict=True)]


def added(parameter: Any, update: Any) -> Any:
    """parameter + update, in the dtype of the parameter; the parameter itself where there is no update."""
    return parameter if update is None else (parameter + update).astype(parameter.dtype)
