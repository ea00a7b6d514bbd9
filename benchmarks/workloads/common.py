# SPDX-License-Identifier: MIT
"""What the workloads share: their record, the namespaces that they are written over, pytrees of tensors, Adam.

A workload's maths is written once over `Api`, so that functorch_lite and JAX run literally the same function; the
PyTorch version is written by hand over `TorchApi`, with PyTorch's own fused functions where it has them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Group = Literal["small", "scan", "call", "bound", "rest"]


@dataclass(frozen=True)
class Api:
    """The names that functorch_lite and JAX share. at(x)[i].add(y): functional update; tree: functions on pytrees.

    attention(q, k, v): the library's own causal attention, on [heads, length, width].
    """

    np: Any
    lax: Any
    tree: Any
    grad: Callable[..., Any]
    value_and_grad: Callable[..., Any]
    vmap: Callable[..., Any]
    hessian: Callable[..., Any]
    at: Callable[[Any], Any]
    attention: Callable[..., Any]


@dataclass(frozen=True)
class TorchApi:
    """The module `torch`, and value_and_grad(loss)(params, *batch) -> (value, gradient) by the best way at hand.

    That way is `torch.autograd` in eager code, and `torch.func`, which gives one graph, under torch.compile.
    """

    torch: Any
    value_and_grad: Callable[..., Any]


@dataclass(frozen=True)
class Workload:
    """One function in two writings, and its inputs.

    group: the geometric mean that it counts in: small programs, scans, call overhead, bound by matrix products and
        convolutions, the rest.
    make: the function over an Api, to be jitted. torch: the same over a TorchApi.
    inputs: makes the arguments, pytrees (dicts, lists, tuples) of NumPy arrays.
    torch_compile: run it through torch.compile "always", only in a "full" run, or "never" (loops of thousands of
        steps would be unrolled).
    tolerance: of float32 results, relative to the largest value of each.
    """

    name: str
    group: Group
    make: Callable[[Api], Callable[..., Any]]
    torch: Callable[[TorchApi], Callable[..., Any]]
    inputs: Callable[[], tuple[Any, ...]]
    torch_compile: Literal["always", "full", "never"] = "full"
    tolerance: float = 1e-4


# --- pytrees of dicts, lists and tuples, in one order for all three -----------------------------------------------


def tree_map(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """f on each leaf of `tree` and of the trees of the same structure."""
    if isinstance(tree, dict):
        return {k: tree_map(f, tree[k], *(r[k] for r in rest)) for k in sorted(tree)}
    if isinstance(tree, (list, tuple)):
        return type(tree)([tree_map(f, *parts) for parts in zip(tree, *rest, strict=True)])
    return f(tree, *rest)


def leaves(tree: Any) -> list[Any]:
    """The leaves, dicts in the order of their keys."""
    if isinstance(tree, dict):
        return [leaf for k in sorted(tree) for leaf in leaves(tree[k])]
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def rebuild(tree: Any, flat: Sequence[Any]) -> Any:
    """A tree like `tree` with the leaves `flat`."""
    remaining = iter(flat)
    return tree_map(lambda _: next(remaining), tree)


# --- inputs -------------------------------------------------------------------------------------------------------


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    """float32 normal numbers."""
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def dense(rng: np.random.Generator, n_in: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight [n_in, n_out] with variance 1/n_in, and a small bias."""
    return normal(rng, n_in, n_out, scale=n_in**-0.5), normal(rng, n_out, scale=0.1)


def labels(rng: np.random.Generator, n_classes: int, *shape: int) -> np.ndarray:
    """int32 labels."""
    return rng.integers(0, n_classes, shape).astype(np.int32)


# --- losses and a training step -----------------------------------------------------------------------------------


def cross_entropy(api: Api, logits: Any, targets: Any) -> Any:
    """Mean of -log softmax(logits)[target] over the rows: logits [..., n_classes], integer targets [...]."""
    np = api.np
    shifted = logits - api.lax.stop_gradient(np.max(logits, axis=-1, keepdims=True))
    chosen = np.take_along_axis(shifted, targets[..., None], axis=-1)[..., 0]
    return np.mean(np.log(np.sum(np.exp(shifted), axis=-1)) - chosen)


def with_adam_state(rng: np.random.Generator, params: Any) -> tuple[Any, Any, Any, np.ndarray]:
    """(params, first moments, second moments, count) in mid-training.

    Moments are away from zero: there a difference in the last digit of a tiny gradient would turn its step around.
    """
    first = tree_map(lambda p: normal(rng, *p.shape, scale=0.01), params)
    second = tree_map(lambda p: (rng.random(p.shape) * 1e-3 + 1e-3).astype(np.float32), params)
    return params, first, second, np.array(10.0, np.float32)


RATE, B1, B2, EPS = 1e-3, 0.9, 0.999, 1e-8


def adam_step(api: Api, loss: Callable[..., Any]) -> Callable[..., Any]:
    """step(params, m, v, count, *batch) -> (params, m, v, count, loss): D. Kingma, J. Ba, arXiv:1412.6980."""
    np, tree = api.np, api.tree

    def step(params, m, v, count, *batch):
        value, grads = api.value_and_grad(loss)(params, *batch)
        count = count + 1.0
        m = tree.map(lambda m, g: B1 * m + (1 - B1) * g, m, grads)
        v = tree.map(lambda v, g: B2 * v + (1 - B2) * (g * g), v, grads)
        m_scale, v_scale = 1 / (1 - B1**count), 1 / (1 - B2**count)
        params = tree.map(lambda p, m, v: p - RATE * (m * m_scale) / (np.sqrt(v * v_scale) + EPS), params, m, v)
        return params, m, v, count, value

    return step


def torch_adam_step(t: TorchApi, loss: Callable[..., Any]) -> Callable[..., Any]:
    """The same with PyTorch's multi-tensor functions, which its own optimizers use."""
    torch = t.torch

    def step(params, m, v, count, *batch):
        value, grads = t.value_and_grad(loss)(params, *batch)
        with torch.no_grad():
            count = count + 1.0
            flat = leaves(grads)
            ms = torch._foreach_add(torch._foreach_mul(leaves(m), B1), flat, alpha=1 - B1)
            vs = torch._foreach_addcmul(torch._foreach_mul(leaves(v), B2), flat, flat, value=1 - B2)
            steps = torch._foreach_mul(ms, RATE / (1 - B1**count))
            roots = torch._foreach_sqrt(torch._foreach_mul(vs, 1 / (1 - B2**count)))
            steps = torch._foreach_div(steps, torch._foreach_add(roots, EPS))
            params = rebuild(params, torch._foreach_sub(leaves(params), steps))
        return params, rebuild(m, ms), rebuild(v, vs), count, value

    return step
