# SPDX-License-Identifier: MIT
"""Greatest common divisor and least common multiple, by Euclid's algorithm in a loop."""

from typing import Any

import numpy as np

from functorch_lite.control_flow import while_loop
from functorch_lite.numpy import ops as e
from functorch_lite.numpy.promotion import broadcast_to
from functorch_lite.numpy.ufuncs import composed, constant
from functorch_lite.primitives.reduction import reduce_or


def _any_left(state):
    rest = state[1]
    return reduce_or(e.ne(rest, constant(rest, 0)), tuple(range(len(rest.shape))))


def _euclid(state):
    x, y = state
    done = e.eq(y, constant(y, 0))
    safe = e.select(done, broadcast_to(constant(y, 1), y.shape), y)
    return e.select(done, x, y), e.select(done, y, e.rem(x, safe))


def _magnitude(x):
    return e.absolute(x) if x.dtype.kind == "i" else x


def _gcd(x: Any, y: Any) -> Any:
    return while_loop(_any_left, _euclid, (_magnitude(x), _magnitude(y)))[0]


def _lcm(x: Any, y: Any) -> Any:
    x, y = _magnitude(x), _magnitude(y)
    divisor = _gcd(x, y)
    zero = e.eq(divisor, constant(divisor, 0))
    return e.mul(e.div(x, e.select(zero, broadcast_to(constant(x, 1), x.shape), divisor)), y)


gcd = composed(np.gcd, _gcd)
lcm = composed(np.lcm, _lcm)
