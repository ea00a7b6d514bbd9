# SPDX-License-Identifier: MIT
"""functorch_lite: grad, vmap and jit for the NumPy and CuPy arrays you already have."""

import importlib
from typing import TYPE_CHECKING

from functorch_lite import lax as lax
from functorch_lite import numpy as numpy
from functorch_lite import tree as tree
from functorch_lite.config import config as config
from functorch_lite.transforms import ShapeDtype as ShapeDtype
from functorch_lite.transforms import checkpoint as checkpoint
from functorch_lite.transforms import checkpoint_name as checkpoint_name
from functorch_lite.transforms import checkpoint_policies as checkpoint_policies
from functorch_lite.transforms import closure_convert as closure_convert
from functorch_lite.transforms import custom_jvp as custom_jvp
from functorch_lite.transforms import custom_vjp as custom_vjp
from functorch_lite.transforms import debug as debug
from functorch_lite.transforms import ensure_compile_time_eval as ensure_compile_time_eval
from functorch_lite.transforms import eval_shape as eval_shape
from functorch_lite.transforms import grad as grad
from functorch_lite.transforms import hessian as hessian
from functorch_lite.transforms import hvp as hvp
from functorch_lite.transforms import jacfwd as jacfwd
from functorch_lite.transforms import jacrev as jacrev
from functorch_lite.transforms import jit as jit
from functorch_lite.transforms import jvp as jvp
from functorch_lite.transforms import linear_transpose as linear_transpose
from functorch_lite.transforms import linearize as linearize
from functorch_lite.transforms import make_program as make_jaxpr  # noqa: F401  (JAX's name for it)
from functorch_lite.transforms import make_program as make_program
from functorch_lite.transforms import pure_callback as pure_callback
from functorch_lite.transforms import stop_gradient as stop_gradient
from functorch_lite.transforms import value_and_grad as value_and_grad
from functorch_lite.transforms import vjp as vjp
from functorch_lite.transforms import vmap as vmap

__version__ = "0.1.0"

# Loaded when first used: `import functorch_lite` stays quick.
_LAZY = frozenset(("data", "interop", "models", "nn", "optim", "random", "scipy", "train"))

if TYPE_CHECKING:
    from functorch_lite import data as data
    from functorch_lite import interop as interop
    from functorch_lite import models as models
    from functorch_lite import nn as nn
    from functorch_lite import optim as optim
    from functorch_lite import random as random
    from functorch_lite import scipy as scipy
    from functorch_lite import train as train


def __getattr__(name: str):
    if name in _LAZY:
        return importlib.import_module(f"functorch_lite.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LAZY})
