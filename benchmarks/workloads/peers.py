# SPDX-License-Identifier: MIT
"""The libraries that run the workloads: each stages a workload afresh and gives a call without arguments.

JAX and PyTorch take part where they are installed; torch.compile where a C++ compiler is, which one trial decides.
"""

import importlib.util
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import functorch_lite as fl
from benchmarks.workloads.common import Api, TorchApi, Workload, leaves, rebuild, tree_map
from functorch_lite.compiler.runtime.tiers import improver

OURS, JAX, TORCH, COMPILED = "functorch_lite", "jax", "torch", "torch.compile"


@dataclass(frozen=True)
class Peer:
    """A library. stage(workload): a call that computes it and waits for the outcome; nothing is compiled yet.

    takes: whether it runs this workload. value: one leaf of an outcome as a NumPy array. settle: waits, after a second
    call, for what the library still prepares in the background.
    """

    name: str
    stage: Callable[[Workload], Callable[[], Any]]
    takes: Callable[[Workload], bool] = lambda workload: True
    value: Callable[[Any], np.ndarray] = np.asarray
    settle: Callable[[], None] = lambda: None


def our_api() -> Api:
    """The names that workloads are written over, of functorch_lite."""
    return Api(fl.numpy, fl.lax, fl.tree, fl.grad, fl.value_and_grad, fl.vmap, fl.hessian, fl.numpy.at,
               lambda q, k, v: fl.nn.scaled_dot_product_attention(q, k, v, is_causal=True))


def ours() -> Peer:
    """functorch_lite's jit on NumPy arrays, without its folder of compiled code: a first call compiles."""
    fl.config.update(cache_dir="")
    api = our_api()
    fl.jit(lambda x: x + 1).lower(np.ones(2, np.float32)).compile()  # loads LLVM, which short first calls do without

    def stage(workload):
        fun, inputs = fl.jit(workload.make(api)), workload.inputs()
        return lambda: fun(*inputs)

    return Peer(OURS, stage, settle=improver.finish)


def jax_peer() -> list[Peer]:
    """jax.jit with empty caches, each call waited for."""
    if importlib.util.find_spec("jax") is None:
        return []
    import jax

    def attention(*arrays):
        swapped = [x.swapaxes(0, 1) for x in arrays]  # JAX's layout is [length, heads, width]
        return jax.nn.dot_product_attention(*swapped, is_causal=True).swapaxes(0, 1)

    api = Api(jax.numpy, jax.lax, jax.tree, jax.grad, jax.value_and_grad, jax.vmap, jax.hessian, lambda x: x.at,
              attention)
    jax.jit(lambda x: x + 1)(np.ones(2, np.float32))

    def stage(workload):
        jax.clear_caches()
        fun = jax.jit(workload.make(api))
        inputs = jax.block_until_ready(tree_map(jax.numpy.asarray, workload.inputs()))
        return lambda: jax.block_until_ready(fun(*inputs))

    return [Peer(JAX, stage)]


def torch_peers(*, one_thread: bool, quick: bool) -> list[Peer]:
    """Eager PyTorch, and torch.compile if it works here."""
    if importlib.util.find_spec("torch") is None:
        return []
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # a first call compiles
    import torch

    if one_thread:
        torch.set_num_threads(1)

    def tensors(workload):
        arrays = tree_map(torch.tensor, workload.inputs())
        return tree_map(lambda x: x if x.is_floating_point() else x.long(), arrays)

    def stage_eager(workload):
        fun, inputs = workload.torch(TorchApi(torch, _autograd(torch))), tensors(workload)
        return lambda: fun(*inputs)

    def stage_compiled(workload):
        torch.compiler.reset()
        fun, inputs = torch.compile(workload.torch(TorchApi(torch, _functional(torch)))), tensors(workload)
        return lambda: fun(*inputs)

    def takes(workload):
        return workload.torch_compile == "always" or (workload.torch_compile == "full" and not quick)

    def value(x):
        return x.detach().numpy()

    eager = Peer(TORCH, stage_eager, value=value)
    return [eager, Peer(COMPILED, stage_compiled, takes, value)] if _compiles(torch) else [eager]


def _compiles(torch) -> bool:
    warnings.filterwarnings("ignore", module="torch")  # its caches are off on purpose
    try:
        torch.compile(lambda x: torch.sin(x) + 1)(torch.ones(8))
    except Exception as error:  # whatever stands in its way: no compiler, no Python headers
        print(f"torch.compile is left out: {str(error).strip().splitlines()[0]}")
        return False
    return True


def _autograd(torch):
    def value_and_grad(loss):
        def graded(params, *batch):
            params = tree_map(lambda p: p.detach().requires_grad_(), params)
            value = loss(params, *batch)
            return value.detach(), rebuild(params, torch.autograd.grad(value, leaves(params)))

        return graded

    return value_and_grad


def _functional(torch):
    def value_and_grad(loss):
        def graded(params, *batch):
            grads, value = torch.func.grad_and_value(loss)(params, *batch)
            return value, grads

        return graded

    return value_and_grad
