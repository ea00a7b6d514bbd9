# SPDX-License-Identifier: MIT
"""Connectionist temporal classification: the likelihood of a label sequence under every alignment with the input.

Source: A. Graves and others, "Connectionist temporal classification", ICML 2006.
"""

from typing import Any

import functorch_lite.numpy as fnp
from functorch_lite import lax
from functorch_lite.errors import ArgumentError, ArgumentTypeError, ShapeError
from functorch_lite.nn.activations import logsumexp
from functorch_lite.nn.islands import float32_loss
from functorch_lite.nn.reductions import Reduction, reduced
from functorch_lite.transforms.arguments import on_its_device

Array = Any


@float32_loss
@on_its_device
def ctc_loss(
    log_p: Array,
    targets: Array,
    input_lengths: Array,
    target_lengths: Array,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    reduction: Reduction = "mean",
) -> Array:
    """-log of the sum over alignments of their probability: log_p [time, n, classes] or [time, classes].

    targets: integer [n, s] or [s], padded with anything; input_lengths and target_lengths: integer [n] or scalar.
    "mean" divides each loss by its target length, at least 1, and takes the mean over n, as PyTorch does.
    zero_infinity: a target that is too long for its input, with infinite loss, counts as 0. The gradient of an infinite
    loss is 0. The gradient is the derivative by log_p; through `log_softmax` it is PyTorch's.

    Raises ShapeError, ArgumentTypeError for targets that are no integers, ArgumentError for a `blank` that is no class.
    """
    _check(log_p, targets, input_lengths, target_lengths, blank)
    n_time, n_classes = log_p.shape[0], log_p.shape[-1]
    extended = _with_blanks(targets, blank)
    within = (extended >= 0) & (extended < n_classes)
    states = fnp.broadcast_to(fnp.where(within, extended, blank)[None], (n_time, *extended.shape))
    emissions = fnp.take_along_axis(log_p, states, axis=-1)
    last = _last_scores(emissions, _may_skip(extended, blank), fnp.asarray(input_lengths))
    losses = -_of_final_states(last, fnp.asarray(target_lengths))
    if zero_infinity:
        losses = fnp.where(losses == fnp.inf, 0, losses)
    if reduction == "mean":
        losses = losses / fnp.maximum(fnp.asarray(target_lengths), 1).astype(losses.dtype)
    return reduced(losses, reduction)


def _check(log_p, targets, input_lengths, target_lengths, blank):
    if log_p.ndim not in (2, 3):
        raise ShapeError(f"ctc_loss: `log_p` should be [time, n, classes] or [time, classes], but is {log_p.shape}.")
    if targets.ndim != log_p.ndim - 1 or targets.shape[:-1] != log_p.shape[1:-1]:
        raise ShapeError(f"ctc_loss: `targets` {targets.shape} do not fit log_p {log_p.shape}.")
    if targets.dtype.kind not in "iu":
        raise ArgumentTypeError(f"ctc_loss: `targets` should be integers, but are {targets.dtype}.")
    for name, lengths in (("input_lengths", input_lengths), ("target_lengths", target_lengths)):
        if fnp.shape(lengths) != log_p.shape[1:-1]:
            expected = log_p.shape[1:-1]
            raise ShapeError(f"ctc_loss: `{name}` should be {expected} for log_p {log_p.shape}.")
    if not 0 <= blank < log_p.shape[-1]:
        raise ArgumentError(f"ctc_loss: `blank` {blank} is none of the {log_p.shape[-1]} classes.")


def _with_blanks(targets: Array, blank: int) -> Array:
    """blank, label, blank, label ... blank: [..., 2 s + 1]."""
    blanks = fnp.full_like(targets, blank)
    pairs = fnp.stack([blanks, targets], axis=-1).reshape((*targets.shape[:-1], -1))
    return fnp.concatenate([pairs, fnp.full((*targets.shape[:-1], 1), blank, targets.dtype)], axis=-1)


def _may_skip(extended: Array, blank: int) -> Array:
    """Whether a state may follow the one two before it: a label that differs from the last one."""
    return (extended != blank) & (extended != _shifted(extended, 2, blank))


def _shifted(x: Array, by: int, fill: Any) -> Array:
    padding = [(0, 0)] * (x.ndim - 1) + [(by, 0)]
    return fnp.pad(x, padding, constant_values=fill)[..., : x.shape[-1]]


def _last_scores(emissions: Array, may_skip: Array, lengths: Array) -> Array:
    """log of the sum over alignments that end in each state at the last time step: [..., 2 s + 1]."""
    n_states = emissions.shape[-1]
    first = fnp.where(fnp.arange(n_states) < 2, emissions[0], -fnp.inf)
    times = fnp.arange(1, emissions.shape[0], dtype=lengths.dtype)

    def step(scores, now):
        time, emission = now
        skipped = fnp.where(may_skip, _shifted(scores, 2, -fnp.inf), -fnp.inf)
        before = fnp.stack([scores, _shifted(scores, 1, -fnp.inf), skipped])
        return fnp.where((time < lengths)[..., None], logsumexp(before, 0) + emission, scores), None

    return lax.scan(step, first, (times, emissions[1:]))[0]


def _of_final_states(scores: Array, lengths: Array) -> Array:
    """log of the probability of having said all labels: the last label or the blank after it."""
    states = fnp.arange(scores.shape[-1], dtype=lengths.dtype)
    end = 2 * lengths[..., None]
    return logsumexp(fnp.where((states == end) | (states == end - 1), scores, -fnp.inf), -1)
