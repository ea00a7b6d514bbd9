# SPDX-License-Identifier: MIT
"""A function, its gradient and the gradient of its gradient, by us and by PyTorch, in float64."""

import numpy as np

import functorch_lite as fl
import functorch_lite.numpy as fnp


def ours(fun, *inputs):
    """fun's value for arrays `inputs`, the gradients of a weighted sum of it, and the gradients of one of those."""
    every = tuple(range(len(inputs)))

    def first(*inputs):
        return fl.grad(lambda *a: _weighted(fun(*a)), argnums=every)(*inputs)

    return fun(*inputs), first(*inputs), fl.grad(lambda *a: sum(map(_weighted, first(*a))), argnums=every)(*inputs)


def theirs(torch, fun, *inputs, second=True):
    """The same by PyTorch; a gradient that does not depend on an input is zero."""
    tensors = [torch.tensor(x, requires_grad=True) for x in inputs]
    out = fun(*tensors)
    first = torch.autograd.grad(_weighted_torch(torch, out), tensors, create_graph=True)
    total = torch.stack([_weighted_torch(torch, g) for g in first]).sum()
    differentiable = second and total.requires_grad
    again = torch.autograd.grad(total, tensors, allow_unused=True) if differentiable else [None] * len(inputs)
    again = [np.zeros_like(x) if g is None else g.numpy(force=True) for x, g in zip(inputs, again, strict=True)]
    return out.detach().numpy(), tuple(g.detach().numpy() for g in first), tuple(again)


def _weights(shape):
    return np.cos(np.arange(np.prod(shape, dtype=int)) + 1.0).reshape(shape)


def _weighted(x):
    return fnp.sum(x * _weights(x.shape))


def _weighted_torch(torch, x):
    return (x * torch.tensor(_weights(tuple(x.shape)))).sum()


def assert_same(actual, expected, tolerance=1e-9, second=True):
    np.testing.assert_allclose(actual[0], expected[0], rtol=tolerance, atol=tolerance, err_msg="value")
    for order in (1, 2)[: 1 + second]:
        for a, b in zip(actual[order], expected[order], strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=f"derivative {order}")
