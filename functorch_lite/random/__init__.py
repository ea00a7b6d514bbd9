# SPDX-License-Identifier: MIT
"""Random numbers as functions of a key, with the names, arguments and bits of jax.random.

    key = random.key(0)
    key, sub = random.split(key)
    x = random.normal(sub, (3,))

Use each key once: under `config(check_key_reuse=True)` a second use is a KeyReuseError that names both lines, in
compiled functions, loops and mapped functions too. `fold_in` does not use its key up, and `clone` says that one is used
again on purpose. Not checked: a `while_loop` under `vmap` whose rows end at different times.

Keys are plain uint32 arrays. Every function works under `grad`, `vmap`, `jit` and `scan`; `vmap` over keys gives what a
loop over them gives, and a compiled function what an eager one does. A float dtype not given is `config.default_float`,
an integer one int32.
"""

from functorch_lite.random.counts import binomial as binomial
from functorch_lite.random.counts import multinomial as multinomial
from functorch_lite.random.counts import poisson as poisson
from functorch_lite.random.discrete import bernoulli as bernoulli
from functorch_lite.random.discrete import geometric as geometric
from functorch_lite.random.discrete import rademacher as rademacher
from functorch_lite.random.discrete import randint as randint
from functorch_lite.random.gamma import ball as ball
from functorch_lite.random.gamma import beta as beta
from functorch_lite.random.gamma import chisquare as chisquare
from functorch_lite.random.gamma import dirichlet as dirichlet
from functorch_lite.random.gamma import f as f
from functorch_lite.random.gamma import gamma as gamma
from functorch_lite.random.gamma import generalized_normal as generalized_normal
from functorch_lite.random.gamma import loggamma as loggamma
from functorch_lite.random.gamma import t as t
from functorch_lite.random.inversion import cauchy as cauchy
from functorch_lite.random.inversion import exponential as exponential
from functorch_lite.random.inversion import gumbel as gumbel
from functorch_lite.random.inversion import laplace as laplace
from functorch_lite.random.inversion import logistic as logistic
from functorch_lite.random.inversion import pareto as pareto
from functorch_lite.random.inversion import rayleigh as rayleigh
from functorch_lite.random.inversion import triangular as triangular
from functorch_lite.random.inversion import weibull_min as weibull_min
from functorch_lite.random.keys import PRNGKey as PRNGKey
from functorch_lite.random.keys import clone as clone
from functorch_lite.random.keys import fold_in as fold_in
from functorch_lite.random.keys import key as key
from functorch_lite.random.keys import key_data as key_data
from functorch_lite.random.keys import split as split
from functorch_lite.random.keys import wrap_key_data as wrap_key_data
from functorch_lite.random.multivariate import multivariate_normal as multivariate_normal
from functorch_lite.random.multivariate import orthogonal as orthogonal
from functorch_lite.random.multivariate import wald as wald
from functorch_lite.random.normal import double_sided_maxwell as double_sided_maxwell
from functorch_lite.random.normal import lognormal as lognormal
from functorch_lite.random.normal import maxwell as maxwell
from functorch_lite.random.normal import normal as normal
from functorch_lite.random.normal import truncated_normal as truncated_normal
from functorch_lite.random.permutations import categorical as categorical
from functorch_lite.random.permutations import choice as choice
from functorch_lite.random.permutations import permutation as permutation
from functorch_lite.random.uniform import bits as bits
from functorch_lite.random.uniform import uniform as uniform
