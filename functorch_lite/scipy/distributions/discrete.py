# SPDX-License-Identifier: MIT
"""Distributions on whole numbers. The count k is held constant: derivatives are those in the parameters.

Source: N. L. Johnson, A. W. Kemp, S. Kotz, "Univariate discrete distributions", 3rd ed., 2005. Distribution functions
by the incomplete gamma and beta functions: DLMF 8.17.5.
"""

from typing import Any

import functorch_lite.numpy as f
from functorch_lite.numpy import ops as e
from functorch_lite.primitives import special as p
from functorch_lite.scipy.distributions.common import (
    Discrete,
    DiscreteWithCdf,
    inside,
    is_count,
    of_operands,
    probability,
)
from functorch_lite.scipy.gammas import log_comb, log_gamma_quotient

# `p` names a probability in SciPy's signatures.
_xlogy, _xlog1py, _betainc, _lgamma = p.xlogy, p.xlog1py, p.betainc, p.lgamma


def _count(k, loc):
    """k - loc, and the whole number below it."""
    k = e.stop_gradient_of(k - loc)
    return k, f.floor(k)


class poisson(DiscreteWithCdf):
    """The Poisson distribution of mean `mu`."""

    @of_operands
    def logpmf(k: Any, mu: Any, loc: Any = 0.0) -> Any:
        """The logarithm of the probability of the count k."""
        k, _ = _count(k, loc)
        support = is_count(k)
        safe = f.where(support, k, 0.0)
        return inside(support, p.xlogy(safe, mu) - mu - p.lgamma(safe + 1))

    @of_operands
    def cdf(k: Any, mu: Any, loc: Any = 0.0) -> Any:
        """The probability of at most k."""
        _, k = _count(k, loc)
        return f.where(k < 0, 0.0, p.gammaincc(f.where(k < 0, 0.0, k) + 1, mu))

    @of_operands
    def sf(k: Any, mu: Any, loc: Any = 0.0) -> Any:
        """The probability of more than k."""
        _, k = _count(k, loc)
        return f.where(k < 0, 1.0, p.gammainc(f.where(k < 0, 0.0, k) + 1, mu))


class bernoulli(DiscreteWithCdf):
    """The Bernoulli distribution: 1 with probability `p`."""

    @of_operands
    def logpmf(k: Any, p: Any, loc: Any = 0.0) -> Any:
        """The logarithm of the probability of k."""
        return binom.logpmf(k, 1.0, p, loc)

    @of_operands
    def cdf(k: Any, p: Any, loc: Any = 0.0) -> Any:
        """The probability of at most k."""
        _, k = _count(k, loc)
        return f.where(k < 0, 0.0, f.where(k < 1, 1 - p, f.where(k >= 1, 1.0, k)))

    @of_operands
    def sf(k: Any, p: Any, loc: Any = 0.0) -> Any:
        """The probability of more than k."""
        _, k = _count(k, loc)
        return f.where(k < 0, 1.0, f.where(k < 1, p, f.where(k >= 1, 0.0, k)))

    @of_operands
    def ppf(q: Any, p: Any, loc: Any = 0.0) -> Any:
        """The smallest k whose distribution function is at least q; -1 at 0."""
        k = f.where(q == 0, -1.0, f.where(q <= 1 - p, 0.0, 1.0))
        return probability(q, k + loc)


class binom(DiscreteWithCdf):
    """The binomial distribution: successes in `n` trials of probability `p`."""

    @of_operands
    def logpmf(k: Any, n: Any, p: Any, loc: Any = 0.0) -> Any:
        """The logarithm of the probability of k successes."""
        k, _ = _count(k, loc)
        support = is_count(k) & ~(k > n)
        safe = f.where(support, k, 0.0)
        return inside(support, log_comb(n, safe) + _xlogy(safe, p) + _xlog1py(n - safe, -p))

    @of_operands
    def cdf(k: Any, n: Any, p: Any, loc: Any = 0.0) -> Any:
        """The probability of at most k successes."""
        k, n = _count(k, loc)[1], e.stop_gradient_of(n)
        some = ~((k < 0) | (k >= n))
        safe, trials = f.where(some, k, 0.0), f.where(some, n, 1.0)
        return f.where(some, _betainc(trials - safe, safe + 1, 1 - p), f.where(k < 0, 0.0, 1.0))

    @of_operands
    def sf(k: Any, n: Any, p: Any, loc: Any = 0.0) -> Any:
        """The probability of more than k successes."""
        k, n = _count(k, loc)[1], e.stop_gradient_of(n)
        some = ~((k < 0) | (k >= n))
        safe, trials = f.where(some, k, 0.0), f.where(some, n, 1.0)
        return f.where(some, _betainc(safe + 1, trials - safe, p), f.where(k < 0, 1.0, 0.0))


class nbinom(DiscreteWithCdf):
    """The negative binomial distribution: failures before success `n`, of probability `p`.

    The derivatives of cdf and sf in `n` are not known.
    """

    @of_operands
    def logpmf(k: Any, n: Any, p: Any, loc: Any = 0.0) -> Any:
        """The logarithm of the probability of k failures."""
        k, _ = _count(k, loc)
        support = is_count(k)
        safe = f.where(support, k, 0.0)
        ways = log_gamma_quotient(n, safe) - _lgamma(safe + 1)
        return inside(support, ways + n * f.log(p) + _xlog1py(safe, -p))

    @of_operands
    def cdf(k: Any, n: Any, p: Any, loc: Any = 0.0) -> Any:
        """The probability of at most k failures."""
        _, k = _count(k, loc)
        return f.where(k < 0, 0.0, _betainc(n, f.where(k < 0, 0.0, k) + 1, p))

    @of_operands
    def sf(k: Any, n: Any, p: Any, loc: Any = 0.0) -> Any:
        """The probability of more than k failures."""
        _, k = _count(k, loc)
        return f.where(k < 0, 1.0, _betainc(f.where(k < 0, 0.0, k) + 1, n, 1 - p))


class geom(DiscreteWithCdf):
    """The geometric distribution: trials until the first success, of probability `p`; k = 1, 2, ..."""

    @of_operands
    def logpmf(k: Any, p: Any, loc: Any = 0.0) -> Any:
        """The logarithm of the probability of k trials."""
        k, _ = _count(k, loc)
        support = is_count(k) & ~(k < 1)
        return inside(support, _xlog1py(f.where(support, k, 1.0) - 1, -p) + f.log(p))

    @of_operands
    def cdf(k: Any, p: Any, loc: Any = 0.0) -> Any:
        """The probability of at most k trials."""
        return -f.expm1(geom.logsf(k, p, loc))

    @of_operands
    def sf(k: Any, p: Any, loc: Any = 0.0) -> Any:
        """The probability of more than k trials."""
        return f.exp(geom.logsf(k, p, loc))

    @of_operands
    def logsf(k: Any, p: Any, loc: Any = 0.0) -> Any:
        """The logarithm of the probability of more than k trials."""
        _, k = _count(k, loc)
        return _xlog1py(f.where(k < 0, 0.0, k), -p)

    @of_operands
    def ppf(q: Any, p: Any, loc: Any = 0.0) -> Any:
        """The smallest k whose distribution function is at least q; 0 at 0."""
        k = e.stop_gradient_of(f.ceil(f.log1p(-q) / f.log1p(-p)))
        enough = (k > 0) & (geom.cdf(k - 1, p) >= q)
        return probability(q, f.where(enough, k - 1, k) + loc)


class betabinom(Discrete):
    """The beta-binomial distribution: `binom` of n trials whose probability has the distribution beta(a, b)."""

    @of_operands
    def logpmf(k: Any, n: Any, a: Any, b: Any, loc: Any = 0.0) -> Any:
        """The logarithm of the probability of k successes."""
        k, _ = _count(k, loc)
        support = is_count(k) & ~(k > n)
        safe = f.where(support, k, 0.0)
        mixed = _betaln(safe + a, n - safe + b) - _betaln(a, b)
        return inside(support, log_comb(n, safe) + mixed)


def _betaln(a, b):
    return p.lgamma(a) + p.lgamma(b) - p.lgamma(a + b)
