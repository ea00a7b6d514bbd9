# SPDX-License-Identifier: MIT
"""Putting gradient transformations together: one after the other, or each on its own part of the parameters."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from functorch_lite import tree
from functorch_lite.nn.select import Where, combine, mask
from functorch_lite.optim.base import EmptyState, GradientTransformation
from functorch_lite.optim.leafwise import LeafwiseUpdate, in_a_row

Update = Callable[..., tuple[Any, Any]]


def chain(*transformations: GradientTransformation) -> GradientTransformation:
    """The transformations one after the other; the state is the tuple of their states.

    >>> from functorch_lite import optim
    >>> opt = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(1e-3))
    """

    def init(params):
        return tuple(t.init(params) for t in transformations)

    links = list(_links([t.update for t in transformations]))
    if len(links) == 1 and _is_leafwise(links[0][1]):
        return GradientTransformation(init, links[0][1])

    def update(grads, state, params=None):
        states: tuple[Any, ...] = ()
        for n, link in links:
            grads, own = link(grads, state[len(states) : len(states) + n], params)
            states += own
        return grads, states

    return GradientTransformation(init, update)


def _links(updates: Sequence[Update]) -> Iterator[tuple[int, Update]]:
    """Updates of tuples of states, each with how many: those of leafwise ones in a row are one."""
    for leafwise, run in groupby(updates, _is_leafwise):
        if leafwise:
            row = list(run)
            yield len(row), _in_one_pass(row)
        else:
            yield from [(1, _alone(update)) for update in run]


def _is_leafwise(update: Update) -> bool:
    return isinstance(update, LeafwiseUpdate)


def _in_one_pass(updates: Sequence[Any]) -> LeafwiseUpdate:
    def begin(state, params):
        return in_a_row([update.begin(own, params) for update, own in zip(updates, state, strict=True)])

    return LeafwiseUpdate(begin)


def _alone(update: Update) -> Update:
    def link(grads, state, params):
        updates, own = update(grads, state[0], params)
        return updates, (own,)

    return link


def identity() -> GradientTransformation:
    """The gradients as they are."""
    return GradientTransformation(lambda params: EmptyState(), lambda grads, state, params=None: (grads, state))


def freeze() -> GradientTransformation:
    """No updates: parameters stay."""
    return GradientTransformation(
        lambda params: EmptyState(), lambda grads, state, params=None: (tree.map(lambda g: None, grads), state)
    )


def masked(transformation: GradientTransformation, where: Where) -> GradientTransformation:
    """`transformation` on the leaves that `where` selects, the other gradients as they are.

    where: a pattern for paths, a predicate (path, leaf) -> bool, or a tree of booleans like the parameters.
    """
    return by_part({"in": transformation, "out": identity()}, lambda params: _labels(params, where))


def groups(
    transformations: dict[str, GradientTransformation], default: GradientTransformation
) -> GradientTransformation:
    """Settings per group: a pattern for paths -> its transformation; `default` takes the leaves that match none.

    The first pattern that matches a leaf has it.

    >>> from functorch_lite import optim
    >>> opt = optim.groups({"*.bias": optim.sgd(0.1)}, default=optim.adamw(1e-3))
    """

    def labels(params):
        chosen: list[str] = [""] * len(tree.leaves(params))
        for pattern in transformations:
            selected = tree.leaves(mask(params, pattern))
            chosen = [c or (pattern if s else "") for c, s in zip(chosen, selected, strict=True)]
        return chosen

    return by_part({**transformations, "": default}, labels)


def _labels(params: Any, where: Any) -> list[str]:
    return ["in" if selected else "out" for selected in tree.leaves(mask(params, where))]


def by_part(
    transformations: dict[str, GradientTransformation], labels: Callable[[Any], list[str]]
) -> GradientTransformation:
    """Each transformation on the leaves of its label; `labels(params)` names a label for each leaf, in order."""

    def init(params):
        parts = _split(params, params, labels(params), transformations)
        return {label: t.init(parts[label]) for label, t in transformations.items()}

    def update(grads, state, params=None):
        like = grads if params is None else params
        names = labels(like)
        own_grads = _split(grads, like, names, transformations)
        own_params = None if params is None else _split(params, like, names, transformations)
        updates, states = {}, {}
        for label, transformation in transformations.items():
            own = None if own_params is None else own_params[label]
            if own is None and params is not None:  # the parameters are one array, and another part has it
                updates[label], states[label] = None, state[label]
                continue
            updates[label], states[label] = transformation.update(own_grads[label], state[label], own)
        return combine(*updates.values()), states

    return GradientTransformation(init, update)


def _split(values: Any, like: Any, names: list[str], transformations: dict[str, Any]) -> dict[str, Any]:
    """For each label the tree of its leaves, None elsewhere."""
    treedef = tree.structure(like)
    leaves = treedef.flatten_up_to(values)
    return {
        label: tree.unflatten(treedef, [v if name == label else None for v, name in zip(leaves, names, strict=True)])
        for label in transformations
    }
