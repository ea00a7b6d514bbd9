# SPDX-License-Identifier: MIT
"""Composable transforms of pure functions: jvp, linearize, grad, vmap, jit, checkpoint, custom rules."""

from functorch_lite.transforms import attention as attention
from functorch_lite.transforms.arguments import ShapeDtype as ShapeDtype
from functorch_lite.transforms.callbacks import debug as debug
from functorch_lite.transforms.callbacks import ensure_compile_time_eval as ensure_compile_time_eval
from functorch_lite.transforms.callbacks import pure_callback as pure_callback
from functorch_lite.transforms.checkpoint import checkpoint as checkpoint
from functorch_lite.transforms.checkpoint import checkpoint_name as checkpoint_name
from functorch_lite.transforms.checkpoint import checkpoint_policies as checkpoint_policies
from functorch_lite.transforms.custom_jvp import custom_jvp as custom_jvp
from functorch_lite.transforms.custom_vjp import custom_vjp as custom_vjp
from functorch_lite.transforms.grad import grad as grad
from functorch_lite.transforms.grad import hessian as hessian
from functorch_lite.transforms.grad import hvp as hvp
from functorch_lite.transforms.grad import jacfwd as jacfwd
from functorch_lite.transforms.grad import jacrev as jacrev
from functorch_lite.transforms.grad import jvp as jvp
from functorch_lite.transforms.grad import linear_transpose as linear_transpose
from functorch_lite.transforms.grad import linearize as linearize
from functorch_lite.transforms.grad import value_and_grad as value_and_grad
from functorch_lite.transforms.grad import vjp as vjp
from functorch_lite.transforms.inspection import closure_convert as closure_convert
from functorch_lite.transforms.inspection import eval_shape as eval_shape
from functorch_lite.transforms.inspection import make_program as make_program
from functorch_lite.transforms.jit import jit as jit
from functorch_lite.transforms.stop_gradient import stop_gradient as stop_gradient
from functorch_lite.transforms.vmap import vmap as vmap
