# SPDX-License-Identifier: MIT
"""Optimizers: pairs of pure functions over pytrees, and the transformations they are chained from."""

from . import schedules as schedules
from .adagrad import adagrad as adagrad
from .adagrad import scale_by_sum_of_squares as scale_by_sum_of_squares
from .adam import adam as adam
from .adam import scale_by_adam as scale_by_adam
from .adamw import adamw as adamw
from .base import GradientTransformation as GradientTransformation
from .base import apply_updates as apply_updates
from .base import stateless as stateless
from .chain import chain as chain
from .chain import freeze as freeze
from .chain import groups as groups
from .chain import identity as identity
from .chain import masked as masked
from .clip import clip as clip
from .clip import clip_by_global_norm as clip_by_global_norm
from .clip import global_norm as global_norm
from .decay import add_decayed_weights as add_decayed_weights
from .lion import lion as lion
from .lion import scale_by_lion as scale_by_lion
from .rmsprop import rmsprop as rmsprop
from .rmsprop import scale_by_rms as scale_by_rms
from .scale import scale as scale
from .scale import scale_by_learning_rate as scale_by_learning_rate
from .scale import scale_by_schedule as scale_by_schedule
from .schedules import constant as constant
from .schedules import cosine_decay as cosine_decay
from .schedules import exponential as exponential
from .schedules import join as join
from .schedules import linear as linear
from .schedules import polynomial as polynomial
from .schedules import step as step
from .sgd import sgd as sgd
from .sgd import trace as trace
