# SPDX-License-Identifier: MIT
"""`functorch_lite.scipy.stats`: densities and distribution functions with derivatives, kernel density, ranks.

Each distribution is a namespace with logpdf and pdf, or logpmf and pmf, and, where there is a closed form, cdf, logcdf,
sf, logsf, ppf and isf; arguments broadcast. Outside the support the logarithm of the density is minus infinity, and its
gradient 0.
"""

from functorch_lite.scipy.distributions.bounded import beta as beta
from functorch_lite.scipy.distributions.bounded import chi2 as chi2
from functorch_lite.scipy.distributions.bounded import expon as expon
from functorch_lite.scipy.distributions.bounded import gamma as gamma
from functorch_lite.scipy.distributions.bounded import pareto as pareto
from functorch_lite.scipy.distributions.bounded import truncnorm as truncnorm
from functorch_lite.scipy.distributions.bounded import uniform as uniform
from functorch_lite.scipy.distributions.bounded import vonmises as vonmises
from functorch_lite.scipy.distributions.bounded import wrapcauchy as wrapcauchy
from functorch_lite.scipy.distributions.discrete import bernoulli as bernoulli
from functorch_lite.scipy.distributions.discrete import betabinom as betabinom
from functorch_lite.scipy.distributions.discrete import binom as binom
from functorch_lite.scipy.distributions.discrete import geom as geom
from functorch_lite.scipy.distributions.discrete import nbinom as nbinom
from functorch_lite.scipy.distributions.discrete import poisson as poisson
from functorch_lite.scipy.distributions.kernel_density import gaussian_kde as gaussian_kde
from functorch_lite.scipy.distributions.multivariate import dirichlet as dirichlet
from functorch_lite.scipy.distributions.multivariate import multinomial as multinomial
from functorch_lite.scipy.distributions.multivariate import multivariate_normal as multivariate_normal
from functorch_lite.scipy.distributions.real_line import cauchy as cauchy
from functorch_lite.scipy.distributions.real_line import gennorm as gennorm
from functorch_lite.scipy.distributions.real_line import gumbel_l as gumbel_l
from functorch_lite.scipy.distributions.real_line import gumbel_r as gumbel_r
from functorch_lite.scipy.distributions.real_line import laplace as laplace
from functorch_lite.scipy.distributions.real_line import logistic as logistic
from functorch_lite.scipy.distributions.real_line import norm as norm
from functorch_lite.scipy.distributions.real_line import t as t
from functorch_lite.scipy.ranks import mode as mode
from functorch_lite.scipy.ranks import rankdata as rankdata
from functorch_lite.scipy.ranks import sem as sem
