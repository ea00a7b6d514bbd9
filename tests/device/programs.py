# SPDX-License-Identifier: MIT
"""Programs to run on a device's arrays, (name, function of arrays, NumPy arguments) in CASES, and a training loop."""

import numpy as np

import functorch_lite as fl
from functorch_lite import lax, nn, optim
from functorch_lite import numpy as fnp
from functorch_lite import scipy as fsp

_rng = np.random.default_rng(0)
X = _rng.standard_normal((4, 3))
V = _rng.standard_normal(5)
BIG = 2000  # constants of this length are too large to stand in a program


def _mlp(w1, w2, x, y):
    return nn.cross_entropy(fnp.tanh(x @ w1) @ w2, y)


MLP_ARGS = (
    _rng.standard_normal((3, 5)).astype(np.float32), _rng.standard_normal((5, 4)).astype(np.float32),
    _rng.standard_normal((6, 3)).astype(np.float32), _rng.integers(0, 4, 6),
)


def _loss(x):
    return fnp.sum(fnp.sin(x) * fnp.arange(x.shape[0])[:, None] + fnp.zeros(3))


def _unused(x, y):
    return fnp.sum(x * x)


def _scan_sum(x):
    def body(carry, row):
        return carry + row * fnp.ones(3), fnp.sum(carry) + fnp.array([1.0, 2.0])

    return lax.scan(body, fnp.zeros_like(x[0]), x)


def _while(x):
    return lax.while_loop(lambda s: s[0] < 5, lambda s: (s[0] + 1, s[1] * 1.5 + fnp.eye(3)[0]), (0, x[0]))


def _cond(x):
    return lax.cond(fnp.sum(x) > 0, lambda v: v + fnp.ones(3), lambda v: v - fnp.arange(3.0), x)


def _switch(x):
    return lax.switch(1, [lambda v: v, lambda v: v * 2 + fnp.full(3, 2.0), lambda v: -v], x)


def _large_constant(x):
    return fnp.sum(fnp.outer(x, fnp.arange(BIG)) * fnp.linspace(0.0, 1.0, BIG))


def _indexing(x):
    return fnp.sum(x[[0, 2]] * x[[1, 1]]) + fnp.sum(fnp.diag(x[:3]) + fnp.roll(x, 1, 0)[0])


def _structural(x):
    parts = [fnp.pad(x, 1, mode="reflect"), fnp.pad(x, 1), fnp.repeat(x, np.array([1, 2, 1]), axis=1), fnp.tril(x)]
    parts += [fnp.diag(x[0]), fnp.eye(3) @ x.T, fnp.cumsum(x, 0), fnp.sort(x, 1), fnp.einsum("ij,kj->ik", x, x)]
    parts += [fnp.polyval(x[0], x), fnp.linspace(x[0], x[1], 7), fnp.take_along_axis(x, fnp.argsort(x, 1), 1)]
    return sum(fnp.sum(p * p) for p in parts)


def _updates(x):
    x = fnp.at(x)[0].set(1.0)
    x = fnp.at(x)[[0, 1], [1, 2]].add(x[2, :2])
    return fnp.sum(x * x)


def _random(key):
    a, b = fl.random.split(key)
    return [fl.random.normal(a, (3, 4)), fl.random.uniform(b, (5,)), fl.random.bits(a, (3,)),
            fl.random.permutation(b, 7), fl.random.bernoulli(a, 0.3, (6,))]


def _noisy(x, key):
    return fnp.sum(x * fl.random.normal(key, x.shape, x.dtype) + fl.random.gamma(key, fnp.abs(x) + 1.0))


def _linalg(x):
    a = x.T @ x + fnp.eye(3)
    sign, logdet = fnp.linalg.slogdet(a)
    return logdet + fnp.sum(fnp.linalg.solve(a, x[0])) + fnp.sum(fnp.linalg.cholesky(a)) + fnp.linalg.norm(x)


def _plain(x, key):
    found = [fsp.stats.norm.logpdf(x), fsp.special.gammaln(x), fsp.linalg.expm(x[:3]), nn.softmax(x), lax.top_k(x, 2)]
    found += [nn.one_hot(fnp.argmax(x, 1), 3), lax.pad(x, 0.0, ((1, 1, 0), (0, 0, 1))), lax.cumsum(x, 0)]
    found += [fnp.unique(x, size=5), lax.clamp(0.2, x, 0.5), fl.random.gamma(key, 2.0, (4,)), lax.full_like(x, 2)]
    return [*found, fl.random.poisson(key, 3.0, (4,)), fl.random.choice(key, 5, (3,)), fl.random.fold_in(key, 3)]


KEY = fl.random.key(3)
CASES = [
    ("grad", fl.grad(_loss), (X,)),
    ("grad of an unused argument", fl.grad(_unused, argnums=(0, 1)), (X, V)),
    ("grad of an MLP", fl.grad(_mlp, argnums=(0, 1)), MLP_ARGS),
    ("jit of grad of an MLP", fl.jit(fl.grad(_mlp, argnums=(0, 1))), MLP_ARGS),
    ("value_and_grad in jit", fl.jit(fl.value_and_grad(_loss)), (X,)),
    ("grad of jit", fl.grad(fl.jit(_loss)), (X,)),
    ("jvp", lambda x: fl.jvp(_loss, (x,), (x,)), (X,)),
    ("jvp of a constant", lambda x: fl.jvp(lambda v: fnp.zeros(3), (x,), (x,)), (X,)),
    ("vjp", lambda x: fl.vjp(fnp.sin, x)[1](x), (X,)),
    ("vjp of a constant", lambda x: fl.vjp(lambda v, w: v + 1, x, x)[1](x), (X,)),
    ("linearize", lambda x: fl.linearize(fnp.sin, x)[1](x), (X,)),
    ("linear_transpose", lambda x: fl.linear_transpose(lambda v: v[0] * 2.0, x)(x[0]), (X,)),
    ("vmap", fl.vmap(lambda r: r * fnp.arange(3.0) + fnp.sum(r)), (X,)),
    ("vmap of grad", fl.vmap(fl.grad(lambda r: fnp.sum(r**3) + fnp.max(r))), (X,)),
    ("jacrev", fl.jacrev(lambda v: fnp.sin(v) * v[0]), (V,)),
    ("jacfwd", fl.jacfwd(lambda v: fnp.sin(v) * v[0]), (V,)),
    ("hessian", fl.hessian(lambda v: fnp.sum(fnp.sin(v) ** 2) * v[1]), (V,)),
    ("hvp", lambda v: fl.hvp(lambda u: fnp.sum(u**3), (v,), (v,)), (V,)),
    ("scan", _scan_sum, (X,)),
    ("scan in jit", fl.jit(_scan_sum), (X,)),
    ("grad of scan", fl.grad(lambda x: fnp.sum(_scan_sum(x)[0] ** 2)), (X,)),
    ("vmap of scan", fl.vmap(lambda r: _scan_sum(fnp.stack([r, r]))), (X,)),
    ("while_loop", _while, (X,)),
    ("while_loop in jit", fl.jit(_while), (X,)),
    ("vmap of while_loop", fl.vmap(lambda r: lax.while_loop(lambda v: fnp.sum(v) < 9, lambda v: v + 1.0, r)), (X,)),
    ("grad of fori_loop", fl.grad(lambda v: fnp.sum(lax.fori_loop(0, 3, lambda i, u: fnp.sin(u) + i, v))), (V,)),
    ("cond", _cond, (X,)),
    ("grad of cond", fl.grad(lambda x: fnp.sum(_cond(x) ** 2)), (X,)),
    ("vmap of cond", fl.vmap(_cond), (X,)),
    ("switch", _switch, (X,)),
    ("associative_scan", lambda x: lax.associative_scan(fnp.add, x), (X,)),
    ("map", lambda x: lax.map(lambda r: fnp.sum(r) * fnp.ones(2), x), (X,)),
    ("large constant in jit", fl.jit(_large_constant), (V,)),
    ("large constant in grad", fl.grad(_large_constant), (V,)),
    ("large constant in scan", lambda v: lax.scan(lambda c, r: (c + _large_constant(v), r), v[0], v), (V,)),
    ("indexing", _indexing, (X,)),
    ("indexing in grad", fl.grad(_indexing), (X,)),
    ("indexing in jit", fl.jit(_indexing), (X,)),
    ("structural functions in grad", fl.grad(_structural), (X,)),
    ("structural functions in jit", fl.jit(_structural), (X,)),
    ("updates", _updates, (X,)),
    ("updates in grad", fl.grad(_updates), (X,)),
    ("random", _random, (KEY,)),
    ("random in jit", fl.jit(_random), (KEY,)),
    ("random in grad", fl.grad(_noisy), (X, KEY)),
    ("linear algebra in grad", fl.grad(_linalg), (X,)),
    ("functions of no transform", _plain, (X, KEY)),
    ("checkpoint", fl.grad(fl.checkpoint(_loss)), (X,)),
]


def assert_same_on(xp, function, args):
    """`function` on the device gives arrays there that equal NumPy's."""
    expected = fl.tree.leaves(function(*args))
    found = fl.tree.leaves(function(*[xp.asarray(a) for a in args]))
    assert len(found) == len(expected)
    for f, e in zip(found, expected, strict=True):
        assert isinstance(f, xp.ndarray) or (np.ndim(e) == 0 and not isinstance(f, np.ndarray)), type(f)
        assert getattr(f, "dtype", None) == getattr(e, "dtype", None)
        np.testing.assert_allclose(f.get() if isinstance(f, xp.ndarray) else f, e, rtol=1e-5, atol=1e-6)


class Net(nn.Module):
    conv: nn.Conv2d
    norm: nn.GroupNorm
    pool: nn.MaxPool2d
    mean: nn.AvgPool2d
    out: nn.Linear

    def __init__(self, key):
        first, second = fl.random.split(key)
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1, key=first), nn.GroupNorm(2, 4)
        self.pool, self.mean = nn.MaxPool2d(2), nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
        self.out = nn.Linear(36, 5, key=second)

    def __call__(self, x):
        x = self.mean(self.pool(nn.relu(self.norm(self.conv(x)))))
        return self.out(nn.gelu(x.reshape(x.shape[0], -1)))


def losses(xp, jitted, optimizer):
    """The losses of three steps, and the trained parameters."""
    rng = np.random.default_rng(0)
    net = fl.tree.map(xp.asarray, Net(fl.random.key(0)))
    x, y = xp.asarray(rng.standard_normal((6, 1, 6, 6)).astype(np.float32)), xp.asarray(rng.integers(0, 5, 6))

    def step(net, state):
        loss, grads = fl.value_and_grad(lambda net: nn.cross_entropy(net(x), y))(net)
        return *optimizer.step(net, grads, state), loss

    step, state, found = fl.jit(step) if jitted else step, optimizer.init(net), []
    for _ in range(3):
        net, state, loss = step(net, state)
        found.append(float(loss))
    return found, fl.tree.leaves(net)


def assert_trains_on(xp, jitted):
    """Three steps on the device give NumPy's losses, and the parameters stay there."""
    for optimizer in (optim.adam(1e-2), optim.sgd(0.1, momentum=0.9)):
        found, params = losses(xp, jitted, optimizer)
        assert all(isinstance(p, xp.ndarray) for p in params)
        np.testing.assert_allclose(found, losses(np, jitted, optimizer)[0], rtol=1e-4)
