# SPDX-License-Identifier: MIT
"""Records of convolution: each plan of the evaluation rule, each setting, one to three spatial axes."""

import itertools

import numpy as np

from functorch_lite.primitives.convolution import conv_general_dilated
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, normal


def direct(x, w, strides, padding, lhs_dilation, rhs_dilation, groups, batch_groups):
    """The definition, one product of numbers at a time."""
    spatial = range(len(strides))
    x = x.reshape(batch_groups, x.shape[0] // batch_groups, groups, w.shape[1], *x.shape[2:])
    size = [
        max(((n - 1) * a + lo + hi - (k - 1) * b) // s + 1, 0)
        for n, k, a, b, s, (lo, hi) in zip(
            x.shape[4:], w.shape[2:], lhs_dilation, rhs_dilation, strides, padding, strict=True
        )
    ]
    out = np.zeros((x.shape[1], w.shape[0], *size), np.result_type(x, w))
    for o, p, k in itertools.product(range(w.shape[0]), np.ndindex(*size), np.ndindex(*w.shape[2:])):
        at = [p[i] * strides[i] + k[i] * rhs_dilation[i] - padding[i][0] for i in spatial]
        at = [divmod(a, step) for a, step in zip(at, lhs_dilation, strict=True)]
        if any(rest or not 0 <= a < n for (a, rest), n in zip(at, x.shape[4:], strict=True)):
            continue
        part = o * groups * batch_groups // w.shape[0]
        rows = x[part % batch_groups, :, part % groups if groups > 1 else 0]
        out[(slice(None), o, *p)] += rows[(slice(None), slice(None), *(a for a, _ in at))] @ w[(o, slice(None), *k)]
    return out


def record(name, x, w, strides, padding, lhs=None, rhs=None, groups=1, batch_groups=1, **more):
    """A record of one choice of settings; `x` and `w` are shapes."""
    lhs, rhs = lhs or (1,) * len(strides), rhs or (1,) * len(strides)
    settings = (strides, padding, lhs, rhs, groups, batch_groups)
    return OpRecord(
        f"conv_{name}", lambda x, w: conv_general_dilated(x, w, *settings),
        calls(lambda rng: (normal(rng, *x), normal(rng, *w))), lambda x, w: direct(x, w, *settings),
        reason="sums of up to 60 products", **more,
    )


FLOATS = ("float32", "float16", "bfloat16")

RECORDS = [
    record("same", (2, 2, 4, 3), (3, 2, 3, 3), (1, 1), ((1, 1), (1, 1)), dtypes=FLOATS),
    record("1d_dilated", (2, 2, 7), (2, 2, 2), (1,), ((1, 0),), rhs=(2,)),
    record("strided", (2, 2, 5, 4), (2, 2, 3, 2), (2, 1), ((1, 2), (0, 1)), rhs=(1, 2)),
    record("negative_padding", (2, 2, 6, 4), (2, 2, 2, 2), (2, 1), ((-1, 2), (1, -1))),
    record("dilated_input", (2, 2, 3, 3), (3, 2, 2, 3), (1, 1), ((1, 0), (1, 2)), lhs=(2, 3), rhs=(2, 1)),
    record("dilated_input_strided", (1, 2, 4), (2, 2, 3), (2,), ((1, 2),), lhs=(3,)),
    record("groups", (2, 4, 4, 3), (4, 2, 2, 2), (1, 1), ((1, 0), (0, 1)), groups=2),
    record("depthwise", (2, 3, 4, 4), (3, 1, 3, 2), (1, 2), ((1, 1), (0, 1)), groups=3),
    record("depthwise_two_filters", (2, 2, 4), (4, 1, 2), (1,), ((0, 1),), groups=2),
    record("depthwise_dilated_input", (2, 2, 3), (2, 1, 2), (1,), ((1, -1),), lhs=(2,), groups=2),
    record("batch_groups", (4, 2, 4, 3), (4, 2, 2, 2), (1, 1), ((0, 1), (1, 0)), batch_groups=2),
    record("large_kernel", (2, 3, 4, 5), (2, 3, 4, 4), (1, 1), ((0, 0), (0, 0))),
    record("large_kernel_depthwise", (1, 2, 4, 5), (2, 1, 4, 4), (1, 1), ((0, 0), (0, 0)), groups=2),
    record("pointwise", (2, 3, 2, 2), (2, 3, 1, 1), (1, 1), ((0, 0), (0, 0))),
    record("3d", (1, 2, 3, 3, 2), (2, 2, 2, 2, 2), (1, 2, 1), ((1, 0), (0, 1), (0, 0))),
    record("no_spatial_axes", (2, 3), (2, 3), (), ()),
    OpRecord(
        "conv_complex", lambda x, w: conv_general_dilated(x, w, (1,), ((1, 1),)),
        calls(lambda rng: (complex_normal(rng, 2, 2, 4), complex_normal(rng, 2, 2, 3))),
        lambda x, w: direct(x, w, (1,), ((1, 1),), (1,), (1,), 1, 1), ("complex64",),
    ),
    OpRecord(
        "conv_integer_and_empty", lambda x, w: conv_general_dilated(x, w, (1,), ((0, 0),)),
        calls(
            lambda rng: (rng.integers(-3, 4, (2, 2, 5)), rng.integers(-3, 4, (1, 2, 2))),
            lambda rng: Sample((normal(rng, 0, 2, 4), normal(rng, 1, 2, 2)), "no examples"),
            lambda rng: Sample((normal(rng, 1, 2, 3), normal(rng, 1, 2, 5)), "kernel larger than the input"),
        ),
        lambda x, w: direct(x, w, (1,), ((0, 0),), (1,), (1,), 1, 1), order=1,
    ),
]
