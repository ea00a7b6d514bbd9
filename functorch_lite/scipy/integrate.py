# SPDX-License-Identifier: MIT
"""`functorch_lite.scipy.integrate`: integrals of samples. Plain arrays go to SciPy itself."""

from typing import Any

from functorch_lite.numpy.functions import trapezoid as _trapezoid
from functorch_lite.numpy.promotion import asarray, broadcast_to
from functorch_lite.scipy.dispatch import public


@public("scipy.integrate.trapezoid")
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral [...] of samples y [..., n, ...] along an axis by the trapezoidal rule.

    x: the points, [n] or with y's shape; without them neighbours are `dx` apart. Differentiable in y, x and dx.

    >>> trapezoid(np.array([0.0, 1.0, 4.0]), x=np.array([0.0, 1.0, 3.0]))
    np.float64(5.5)
    """
    y = asarray(y)
    if x is not None:
        x = asarray(x)
        x = x if len(x.shape) == 1 else broadcast_to(x, y.shape)
    return _trapezoid(y, x, dx, axis)
