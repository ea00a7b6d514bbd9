# SPDX-License-Identifier: MIT
"""Records of dot_general: axes in every position, batch axes, several contracted axes, empty ones."""

import numpy as np

from functorch_lite.primitives import contraction as p
from tests.records.op_record import OpRecord, Sample, calls, complex_normal, normal

ALL_FLOATS = ("float32", "float16", "bfloat16", "complex64")


def _dot(name, shape_x, shape_y, contract, batch, subscripts, note="ordinary"):
    def samples(rng):
        real = Sample((normal(rng, *shape_x), normal(rng, *shape_y)), note)
        return [real, Sample((complex_normal(rng, *shape_x), complex_normal(rng, *shape_y)), "complex")]

    return OpRecord(
        f"dot_general_{name}", lambda x, y: p.dot_general(x, y, contract, batch), samples,
        lambda x, y: np.einsum(subscripts, x, y), ALL_FLOATS, plain=lambda x, y: np.einsum(subscripts, x, y),
    )


NONE = ((), ())
RECORDS = [
    _dot("matrix", (2, 3), (3, 4), ((1,), (0,)), NONE, "ij,jk->ik"),
    _dot("left_transposed", (3, 2), (3, 4), ((0,), (0,)), NONE, "ji,jk->ik"),
    _dot("right_transposed", (2, 3), (4, 3), ((1,), (1,)), NONE, "ij,kj->ik"),
    _dot("both_transposed", (3, 2), (4, 3), ((0,), (1,)), NONE, "ji,kj->ik"),
    _dot("vector_vector", (3,), (3,), ((0,), (0,)), NONE, "i,i->"),
    _dot("matrix_vector", (2, 3), (3,), ((1,), (0,)), NONE, "ij,j->i"),
    _dot("vector_matrix", (3,), (3, 2), ((0,), (0,)), NONE, "i,ij->j"),
    _dot("vector_matrix_transposed", (3,), (2, 3), ((0,), (1,)), NONE, "i,ji->j"),
    _dot("outer", (2,), (3,), NONE, NONE, "i,j->ij"),
    _dot("batched", (2, 3, 4), (2, 4, 2), ((2,), (1,)), ((0,), (0,)), "bij,bjk->bik"),
    _dot("batch_in_the_middle", (3, 2, 4), (4, 2, 2), ((2,), (0,)), ((1,), (1,)), "ibj,jbk->bik"),
    _dot("two_batch_axes_swapped", (2, 3, 2), (3, 2, 2), ((2,), (2,)), ((0, 1), (1, 0)), "abj,baj->ab"),
    _dot("two_contracted_swapped", (2, 3, 4), (4, 3, 2), ((1, 2), (1, 0)), NONE, "iab,bak->ik"),
    _dot("contracted_out_of_order", (2, 3, 4), (4, 3, 2), ((2, 1), (0, 1)), NONE, "iab,bak->ik"),
    _dot("many_free", (2, 2, 3), (3, 2, 2), ((2,), (0,)), NONE, "abj,jcd->abcd"),
    _dot("empty_contraction", (2, 0), (0, 3), ((1,), (0,)), NONE, "ij,jk->ik", "size 0"),
    _dot("empty_free", (0, 2), (2, 3), ((1,), (0,)), NONE, "ij,jk->ik", "size 0"),
    OpRecord(
        "dot_general_integers", lambda x, y: p.dot_general(x, y, ((1,), (0,))),
        calls(lambda rng: (rng.integers(0, 9, (2, 3)), rng.integers(0, 9, (3, 2)))), np.matmul,
        (), order=0, plain=np.matmul,
    ),
]
