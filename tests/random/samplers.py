# SPDX-License-Identifier: MIT
"""One small call of every sampler, as a function of the key: what the laws of random functions are tested on."""

import numpy as np

from functorch_lite import random

_LOGITS = np.array([[0.5, -1.0, 2.0, 0.0], [3.0, 0.0, -2.0, 1.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
_COV = np.array([[2.0, 0.5], [0.5, 1.0]], np.float32)
_P = np.array([0.1, 0.0, 0.4, 0.3, 0.2], np.float32)
_A = np.array([0.2, 1.0, 5.0], np.float32)

SAMPLERS = {
    "split": lambda key: random.split(key, 3),
    "fold_in": lambda key: random.fold_in(key, 7),
    "bits8": lambda key: random.bits(key, (5,), np.uint8),
    "bits": lambda key: random.bits(key, (3, 2)),
    "uniform": lambda key: random.uniform(key, (3, 5)),
    "uniform_bounds": lambda key: random.uniform(key, (2, 3), minval=_A, maxval=7.3),
    "uniform_f16": lambda key: random.uniform(key, (4,), np.float16),
    "uniform_f64": lambda key: random.uniform(key, (4,), np.float64, 0.1, 0.7),
    "normal": lambda key: random.normal(key, (50,)),
    "normal_scalar": random.normal,
    "normal_f16": lambda key: random.normal(key, (4,), np.float16),
    "normal_f64": lambda key: random.normal(key, (4,), np.float64),
    "normal_complex": lambda key: random.normal(key, (4,), np.complex64),
    "truncated_normal": lambda key: random.truncated_normal(key, -1.0, _A),
    "lognormal": lambda key: random.lognormal(key, 0.5, (3,)),
    "maxwell": lambda key: random.maxwell(key, (3,)),
    "double_sided_maxwell": lambda key: random.double_sided_maxwell(key, 1.0, _A),
    "exponential": lambda key: random.exponential(key, (3,)),
    "laplace": lambda key: random.laplace(key, (3,)),
    "logistic": lambda key: random.logistic(key, (3,)),
    "cauchy": lambda key: random.cauchy(key, (3,)),
    "gumbel": lambda key: random.gumbel(key, (3,)),
    "gumbel_high": lambda key: random.gumbel(key, (3,), mode="high"),
    "gumbel_highest": lambda key: random.gumbel(key, (3,), mode="highest"),
    "weibull_min": lambda key: random.weibull_min(key, 2.0, _A),
    "pareto": lambda key: random.pareto(key, _A),
    "rayleigh": lambda key: random.rayleigh(key, _A),
    "triangular": lambda key: random.triangular(key, 0.0, 1.0, 4.0, (3,)),
    "wald": lambda key: random.wald(key, _A),
    "randint": lambda key: random.randint(key, (7,), -5, 17),
    "randint_i64": lambda key: random.randint(key, (2,), 0, 2**40, np.int64),
    "randint_bounds": lambda key: random.randint(key, (3,), np.array([0, 10, -3]), np.array([5, 1000, 3])),
    "randint_small": lambda key: random.randint(key, (7,), 0, 256, np.uint8),
    "bernoulli": lambda key: random.bernoulli(key, 0.3, (7,)),
    "bernoulli_high": lambda key: random.bernoulli(key, 0.3, (7,), mode="high"),
    "rademacher": lambda key: random.rademacher(key, (7,)),
    "geometric": lambda key: random.geometric(key, 0.3, (7,)),
    "permutation": lambda key: random.permutation(key, 7),
    "permutation_rows": lambda key: random.permutation(key, _LOGITS),
    "permutation_independent": lambda key: random.permutation(key, _LOGITS, axis=1, independent=True),
    "choice": lambda key: random.choice(key, 10, (4,)),
    "choice_without": lambda key: random.choice(key, 10, (4,), replace=False),
    "choice_p": lambda key: random.choice(key, 5, (4,), p=_P),
    "choice_p_without": lambda key: random.choice(key, _LOGITS, (2,), replace=False, p=_P[:4], axis=1),
    "categorical": lambda key: random.categorical(key, _LOGITS),
    "categorical_without": lambda key: random.categorical(key, _LOGITS, shape=(2, 3), replace=False),
    "gamma": lambda key: random.gamma(key, _A),
    "loggamma": lambda key: random.loggamma(key, _A, (2, 3)),
    "beta": lambda key: random.beta(key, _A, 2.0),
    "dirichlet": lambda key: random.dirichlet(key, _A, (2,)),
    "chisquare": lambda key: random.chisquare(key, _A),
    "f": lambda key: random.f(key, _A, 3.0),
    "t": lambda key: random.t(key, _A),
    "generalized_normal": lambda key: random.generalized_normal(key, 3.0, (3,)),
    "ball": lambda key: random.ball(key, 3, shape=(2,)),
    "poisson": lambda key: random.poisson(key, np.array([0.0, 3.0, 40.0], np.float32)),
    "binomial": lambda key: random.binomial(key, np.array([5.0, 100.0], np.float32), 0.3),
    "multinomial": lambda key: random.multinomial(key, 20, _P),
    "multivariate_normal": lambda key: random.multivariate_normal(key, np.zeros(2, np.float32), _COV, (3,)),
    "orthogonal": lambda key: random.orthogonal(key, 3),
}
