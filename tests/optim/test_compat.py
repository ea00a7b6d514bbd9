# SPDX-License-Identifier: MIT
"""compat="optax": Optax's equations, written down in NumPy; the peers' tests compare with Optax itself."""

import inspect

import numpy as np
import pytest

from functorch_lite import optim
from functorch_lite.errors import ArgumentError
from tests.records.optimizers import problem

N_STEPS = 40


def rmsprop(g, s, t, p):
    v = 0.9 * s.get("v", 0) + 0.1 * g * g
    return 0.1 * g / np.sqrt(v + 1e-8), {"v": v}


def adagrad(g, s, t, p):
    total = s.get("total", 0.1) + g * g
    return 0.1 * g / np.sqrt(total + 1e-7), {"total": total}


def moments(g, s):
    return 0.9 * s.get("m", 0) + 0.1 * g, 0.999 * s.get("v", 0) + 0.001 * g * g


def amsgrad(g, s, t, p):
    m, v = moments(g, s)
    peak = np.maximum(s.get("peak", 0), v / (1 - 0.999**t))
    return 0.1 * m / (1 - 0.9**t) / (np.sqrt(peak) + 1e-8), {"m": m, "v": v, "peak": peak}


def nadam(g, s, t, p):
    m, v = moments(g, s)
    towards = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
    return 0.1 * towards / (np.sqrt(v / (1 - 0.999**t)) + 1e-8), {"m": m, "v": v}


def radam(g, s, t, p):
    m, v = moments(g, s)
    longest, b2t = 2 / 0.001 - 1, 0.999**t
    rho = longest - 2 * t * b2t / (1 - b2t)
    mean = m / (1 - 0.9**t)
    if rho < 5:
        return 0.1 * mean, {"m": m, "v": v}
    r = np.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho))
    return 0.1 * r * mean / (np.sqrt(v / (1 - b2t)) + 1e-3), {"m": m, "v": v}


def yogi(g, s, t, p):
    m, v = 0.9 * s.get("m", 1e-6) + 0.1 * g, s.get("v", 1e-6)
    v = v - 0.001 * np.sign(v - g * g) * g * g
    return 0.1 * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-3), {"m": m, "v": v}


def lars(g, s, t, p):
    u = g + 0.1 * p
    velocity = 0.9 * s.get("velocity", 0) + 0.1 * u * 0.05 * np.linalg.norm(p) / np.linalg.norm(u)
    return velocity, {"velocity": velocity}


def adafactor(g, s, t, p):
    share = t**-0.8
    v = (1 - share) * s.get("v", 0) + share * (g * g + 1e-30)
    u = g / np.sqrt(v)
    u = u / max(1.0, np.sqrt(np.mean(u * u)))
    return max(np.sqrt(np.mean(p * p)), 1e-3) * 0.1 * u + 0.01 * p, {"v": v}


def clipped(g, s, t, p):
    return 0.1 * g * min(1.0, 0.5 / np.linalg.norm(g)), {}


OPTAX = {"compat": "optax"}
PAIRS = {
    "rmsprop": (optim.rmsprop(0.1, **OPTAX), rmsprop),
    "adagrad": (optim.adagrad(0.1, **OPTAX), adagrad),
    "amsgrad": (optim.adam(0.1, amsgrad=True, **OPTAX), amsgrad),
    "nadam": (optim.nadam(0.1, **OPTAX), nadam),
    "radam": (optim.radam(0.1, eps=1e-3, **OPTAX), radam),
    "yogi": (optim.yogi(0.1, **OPTAX), yogi),
    "lars": (optim.lars(0.1, trust=0.05, weight_decay=0.1, **OPTAX), lars),
    "adafactor": (optim.adafactor(0.1, weight_decay=0.01, **OPTAX), adafactor),
    "clip": (optim.chain(optim.clip_by_global_norm(0.5, **OPTAX), optim.sgd(0.1)), clipped),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_equations_are_optaxs(name):
    opt, equations = PAIRS[name]
    matrix, centre, start, noise = problem()
    p, state, q, s = start, opt.init(start), start, {}
    for t in range(1, N_STEPS + 1):
        p, state = opt.step(p, matrix @ (p - centre) + noise[t], state)
        step, s = equations(matrix @ (q - centre) + noise[t], s, t, q)
        q = q - step
    np.testing.assert_allclose(p, q, rtol=1e-10)


DEFAULTS = {
    "adamw": {"weight_decay": 1e-4},
    "lion": {"weight_decay": 1e-3},
    "adabelief": {"eps": 1e-16},
    "novograd": {"b1": 0.9, "b2": 0.25, "eps": 1e-6},
    "sophia": {"eps": 1e-8, "weight_decay": 1e-4},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_defaults_are_optaxs(name):
    make, g = getattr(optim, name), np.array([0.3, -2.0])
    paths = []
    for opt in (make(0.1, **OPTAX), make(0.1, **DEFAULTS[name]), make(0.1)):
        p, state = np.array([1.0, 2.0]), opt.init(g)
        for _ in range(3):
            p, state = opt.step(p, g, state)
        paths.append(p)
    np.testing.assert_allclose(paths[0], paths[1], rtol=1e-14)
    assert np.any(paths[0] != paths[2])


FUNCTIONS = {name: f for name, f in vars(optim).items() if inspect.isfunction(f)}
WITH_COMPAT = [name for name, f in FUNCTIONS.items() if "compat" in inspect.signature(f).parameters]


@pytest.mark.parametrize("name", WITH_COMPAT)
def test_another_word_is_refused(name):
    fun = getattr(optim, name)
    rate = [0.1] if name.startswith("clip") or "learning_rate" in inspect.signature(fun).parameters else []
    with pytest.raises(ArgumentError, match="`compat` should be 'torch' or 'optax', but is 'jax'"):
        fun(*rate, compat="jax")


def test_parameters_that_are_one_array_may_belong_to_one_part_alone():
    opt, p = optim.muon(0.1, weight_decay=0.1, compat="optax"), np.ones(3)
    assert np.all(opt.step(p, p, opt.init(p))[0] < 1)


def test_adafactor_of_zero_gradients_stands_still():
    opt, p = optim.adafactor(0.1, compat="optax"), np.ones((128, 130), np.float32)
    new, state = opt.step(p, np.zeros_like(p), opt.init(p))
    np.testing.assert_array_equal(new, p)
    assert state.square.rows.shape == (128, 1)
