# SPDX-License-Identifier: MIT
"""One call of every public function of `fl.numpy` that NumPy has too: name, traced arguments, options."""

import numpy as np

rng = np.random.default_rng(0)
V = rng.normal(size=5)
W = rng.normal(size=5)
A = rng.normal(size=(3, 4))
B = rng.normal(size=(3, 4))
S = rng.normal(size=(4, 4))
P = rng.uniform(0.1, 0.9, size=(3, 4))
T3 = rng.normal(size=(2, 3, 4))
Z = A + 1j * B
INTS = rng.integers(1, 9, size=(3, 4))
J = rng.integers(1, 9, size=(3, 4))
M = A > 0
N = np.where(np.eye(3, 4) > 0, np.nan, A)
SORTED = np.sort(V)
F32 = A.astype(np.float32)

UNARY = (
    "absolute negative positive square exp exp2 expm1 sin cos tan arctan sinh cosh tanh arcsinh sign rint floor "
    "ceil trunc degrees radians deg2rad rad2deg fabs signbit isnan isinf isfinite spacing cbrt conjugate "
    "logical_not reciprocal sqrt log log2 log10 log1p arcsin arccos arctanh sinc i0 fix real imag angle nan_to_num "
    "isposinf isneginf iscomplex isreal ravel squeeze transpose copy flip fliplr flipud rot90 tril triu diagonal "
    "trace atleast_1d atleast_2d atleast_3d sum prod mean std var min max amin amax any all ptp cumsum cumprod "
    "argmax argmin nansum nanprod nanmean nanstd nanvar nanmin nanmax nanargmax nanargmin nancumsum nancumprod "
    "median nanmedian sort argsort sort_complex cov corrcoef diff ediff1d gradient unwrap matrix_transpose "
    "zeros_like ones_like count_nonzero round around real_if_close modf frexp diag diagflat "
).split()
BINARY = (
    "add subtract multiply divide true_divide floor_divide remainder mod fmod maximum minimum fmax fmin hypot "
    "arctan2 logaddexp logaddexp2 copysign nextafter equal not_equal less less_equal greater greater_equal "
    "logical_and logical_or logical_xor heaviside power float_power isclose allclose array_equal array_equiv append "
    "inner vdot outer kron tensordot vecdot divmod "
).split()
INTEGER_UNARY = "invert bitwise_count bitwise_not sign square abs sum prod cumsum mean var max reciprocal".split()
INTEGER_BINARY = (
    "bitwise_and bitwise_or bitwise_xor left_shift right_shift add multiply floor_divide remainder power divide "
    "maximum fmod "
).split()

# (name, arguments, options); every array among the arguments is traced
CASES = [(name, (P,) if name in ("arccosh",) else (P,), {}) for name in UNARY]
CASES += [(name, (A,), {}) for name in UNARY if name not in ("sqrt log log2 log10 log1p arcsin arccos arctanh").split()]
CASES += [("arccosh", (1 + P,), {})]
CASES += [(name, (A, np.abs(B)) if "power" in name else (A, B), {}) for name in BINARY if "power" not in name]
CASES += [(name, (P, B), {}) for name in ("power", "float_power")]
CASES += [(name, (A, B[0]), {}) for name in ("add", "remainder", "maximum", "arctan2", "logaddexp")]
CASES += [(name, (INTS,), {}) for name in INTEGER_UNARY]
CASES += [(name, (INTS, J), {}) for name in INTEGER_BINARY]
CASES += [
    (name, (T3,), {"axis": axis})
    for axis in (0, -1)
    for name in "sum prod mean std var min max any all cumsum cumprod argmax argmin sort median average flip".split()
]
CASES += [(name, (T3,), {"axis": (0, 2), "keepdims": True}) for name in "sum prod mean std var min max any all".split()]
CASES += [
    (name, (N,), {"axis": 0})
    for name in "nansum nanprod nanmean nanstd nanvar nanmin nanmax nancumsum nancumprod nanmedian".split()
]
CASES += [(name, (N,), {}) for name in ("nan_to_num", "isnan", "sort", "max")]
CASES += [
    ("arange", (0, 5), {}),
    ("ldexp", (A, INTS), {}),
    ("matmul", (A, B.T), {}),
    ("matmul", (T3, S), {}),
    ("matmul", (V, W), {}),
    ("matmul", (T3, np.swapaxes(T3, 1, 2)), {}),
    ("matmul", (A, S[0]), {}),
    ("matmul", (B[0], S), {}),
    ("matvec", (T3, S[0]), {}),
    ("vecmat", (A[:, 0], A), {}),
    ("dot", (T3, S), {}),
    ("dot", (A, S), {}),
    ("dot", (V, W), {}),
    ("tensordot", (T3, T3), {"axes": ([0, 1], [0, 1])}),
    ("tensordot", (A, S), {"axes": 1}),
    ("cross", (A[:, :3], B[:, :3]), {}),
    ("reshape", (A, (2, -1)), {}),
    ("reshape", (A, (2, 6)), {"order": "F"}),
    ("expand_dims", (A, (0, 2)), {}),
    ("swapaxes", (T3, 0, 2), {}),
    ("moveaxis", (T3, 0, -1), {}),
    ("rollaxis", (T3, 2), {}),
    ("permute_dims", (T3, (2, 0, 1)), {}),
    ("broadcast_to", (V, (3, 5)), {}),
    ("tile", (A, (2, 1)), {}),
    ("repeat", (A, 2), {"axis": 1}),
    ("repeat", (V, np.array([1, 0, 2, 1, 3]).tolist()), {}),
    ("roll", (A, 2), {"axis": 1}),
    ("roll", (A, (1, 2)), {"axis": (0, 1)}),
    ("resize", (A, (5, 3)), {}),
    ("vander", (V,), {}),
    ("diag", (V, 1), {}),
    ("delete", (V, 1), {}),
    ("insert", (V, 2, 7.0), {}),
    ("trim_zeros", (np.array([0.0, 1, 2, 0]),), {}),
    ("pad", (A, 2), {}),
    ("pad", (A, ((1, 0), (2, 1))), {"mode": "edge"}),
    ("pad", (A, 1), {"mode": "reflect"}),
    ("pad", (A, 1), {"mode": "wrap"}),
    ("pad", (A, 1), {"mode": "symmetric"}),
    ("pad", (A, 2), {"mode": "linear_ramp"}),
    ("pad", (A, 1), {"mode": "mean"}),
    ("pad", (A, 1), {"constant_values": 3}),
    ("concatenate", ([A, B],), {}),
    ("concat", ([A, B],), {"axis": 1}),
    ("stack", ([A, B],), {"axis": 1}),
    ("vstack", ([A, B],), {}),
    ("hstack", ([A, B],), {}),
    ("dstack", ([A, B],), {}),
    ("column_stack", ([V, W],), {}),
    ("block", ([[A, B], [B, A]],), {}),
    ("split", (A, 2), {"axis": 1}),
    ("array_split", (V, 3), {}),
    ("hsplit", (A, 2), {}),
    ("vsplit", (A, 3), {}),
    ("dsplit", (T3, 2), {}),
    ("unstack", (A,), {}),
    ("broadcast_arrays", (A, B[0]), {}),
    ("take", (A, [0, 2]), {"axis": 1}),
    ("take", (A, 3), {}),
    ("take_along_axis", (A, np.argsort(B, axis=1)), {"axis": 1}),
    ("choose", (np.array([0, 1, 1, 0]), [S[0], S[1]]), {}),
    ("compress", ([True, False, True], A), {"axis": 0}),
    ("extract", ((A > 0).tolist(), A), {}),
    ("searchsorted", (SORTED, A), {}),
    ("searchsorted", (SORTED, A), {"side": "right"}),
    ("digitize", (A, SORTED), {}),
    ("digitize", (A, SORTED[::-1].copy()), {"right": True}),
    ("where", (M, A, B), {}),
    ("where", (M, A, 0), {}),
    ("select", ([A > 0, A > -1], [A, B]), {}),
    ("clip", (A, -0.5, 0.5), {}),
    ("clip", (A, None, 0.5), {}),
    ("clip", (A, B - 1, B + 1), {}),
    ("einsum", ("ij,kj->ik", A, B), {}),
    ("einsum", ("ii->i", S), {}),
    ("einsum", ("ii", S), {}),
    ("einsum", ("bij,jk,kl->bil", T3, S, S), {}),
    ("einsum", ("...j,j", T3, S[0]), {}),
    ("einsum", ("ij,ij->", A, B), {}),
    ("partition", (np.sort(V)[::-1], 0), {}),
    ("lexsort", ((np.round(V), W),), {}),
    ("quantile", (A, 0.3), {}),
    ("quantile", (A, [0.1, 0.9]), {"axis": 0}),
    ("percentile", (A, 30), {"axis": 1}),
    ("quantile", (A, 0.4), {"method": "nearest"}),
    ("nanquantile", (N, 0.3), {"axis": 1}),
    ("nanpercentile", (N, 30), {"axis": 1}),
    ("average", (A,), {"weights": [0.1, 0.2, 0.3, 0.4], "axis": 1}),
    ("isin", (INTS, [1, 2, 3]), {}),
    ("cov", (A,), {"bias": True}),
    ("histogram", (V,), {"bins": 4}),
    ("histogram2d", (V, W), {"bins": 3}),
    ("histogramdd", (A,), {"bins": 2}),
    ("histogram_bin_edges", (V,), {"bins": 3}),
    ("convolve", (V, W[:3]), {}),
    ("convolve", (V, W[:3]), {"mode": "same"}),
    ("convolve", (V, W[:2]), {"mode": "same"}),
    ("correlate", (V, W[:3]), {"mode": "full"}),
    ("correlate", (V, W[:3]), {}),
    ("correlate", (W[:3], V), {"mode": "full"}),
    ("correlate", (V, W[:2]), {"mode": "same"}),
    ("polyval", (V, A), {}),
    ("polyadd", (V, W[:3]), {}),
    ("polysub", (V, W[:3]), {}),
    ("polymul", (V, W), {}),
    ("polyder", (V,), {}),
    ("polyint", (V,), {}),
    ("polydiv", (V, W[:3]), {}),
    ("polydiv", (V, W[:1]), {}),
    ("polydiv", (W[:2], V), {}),
    ("poly", (V,), {}),
    ("poly", (S,), {}),
    ("poly", (Z[0],), {}),
    ("roots", (np.array([1.0, 0.3, 2.0, 0.1, 3.0]),), {}),
    ("roots", (Z[0],), {}),
    ("polyfit", (SORTED, W, 2), {}),
    ("polyfit", (SORTED, S[:, :1].repeat(2, 1)[[0, 1, 2, 3, 0]], 2), {}),
    ("polyfit", (SORTED, W, 1), {"w": [1.0, 2.0, 0.5, 1.0, 3.0], "cov": True}),
    ("polyfit", (SORTED, W, 1), {"cov": "unscaled"}),
    ("polyfit", (SORTED, np.stack([W, V], 1), 2), {"cov": True}),
    ("polyfit", (SORTED, W, 2), {"full": True}),
    ("packbits", (M,), {}),
    ("packbits", (INTS - 4,), {"axis": 0, "bitorder": "little"}),
    ("packbits", (np.zeros((2, 0), bool),), {"axis": 1}),
    ("unpackbits", (INTS.astype(np.uint8),), {}),
    ("unpackbits", (INTS.astype(np.uint8),), {"axis": 0, "count": -3}),
    ("unpackbits", (INTS.astype(np.uint8),), {"axis": 1, "count": 40, "bitorder": "little"}),
    ("interp", (A, SORTED, W), {}),
    ("interp", (A, SORTED, W), {"left": 0.0, "right": 9.0}),
    ("trapezoid", (A,), {"axis": 0}),
    ("trapezoid", (A, SORTED[:4]), {}),
    ("diff", (A,), {"n": 2}),
    ("diff", (A,), {"prepend": 0.0}),
    ("gradient", (V, 0.5), {}),
    ("gradient", (V,), {"edge_order": 2}),
    ("gradient", (V, SORTED), {}),
    ("linspace", (0.0, V, 4), {}),
    ("logspace", (0.0, V, 3), {}),
    ("geomspace", (1.0, np.abs(V) + 1, 3), {}),
    ("meshgrid", (V, W[:3]), {}),
    ("meshgrid", (V, W[:3]), {"indexing": "ij"}),
    ("full_like", (A, 2.5), {}),
    ("tri", (3,), {}),
    ("cumulative_sum", (V,), {"include_initial": True}),
    ("cumulative_prod", (A,), {"axis": 1}),
    ("ix_", (INTS[0], J[0]), {}),
    ("unravel_index", (INTS, (5, 4)), {}),
    ("ravel_multi_index", ((INTS % 3, J % 3), (3, 3)), {}),
    ("astype", (A, np.float32), {}),
    ("round", (A, 2), {}),
    ("round", (INTS * 7, -1), {}),
    ("bincount", (INTS.ravel(),), {"minlength": 10}),
    ("sort_complex", (V,), {}),
    ("piecewise", (V, [V < 0, V >= 0], [0.0, 1.0]), {}),
    ("real", (Z,), {}),
    ("imag", (Z,), {}),
    ("angle", (Z,), {}),
    ("conj", (Z,), {}),
    ("absolute", (Z,), {}),
    ("exp", (Z,), {}),
    ("vdot", (Z, Z), {}),
    ("vecdot", (Z, Z), {}),
    ("var", (Z,), {}),
    ("rint", (Z,), {}),
    ("sum", (F32,), {}),
    ("mean", (F32.astype(np.float16),), {}),
    ("std", (F32,), {}),
    ("sum", (M,), {}),
    ("mean", (INTS,), {}),
    ("sum", (A,), {"where": M.tolist(), "initial": 2.0}),
    ("max", (A,), {"where": M.tolist(), "initial": -9.0}),
    ("mean", (A,), {"where": M.tolist()}),
    ("std", (A,), {"where": (np.eye(3, 4) == 0).tolist(), "axis": 0}),
    ("nonzero", (M,), {}),
    ("argwhere", (M,), {}),
    ("flatnonzero", (M,), {}),
    ("unique", (INTS,), {}),
    ("unique_counts", (INTS,), {}),
    ("unique_inverse", (INTS,), {}),
    ("unique_all", (INTS,), {}),
    ("union1d", (INTS, J), {}),
    ("intersect1d", (INTS, J), {}),
    ("setdiff1d", (INTS, J), {}),
    ("setxor1d", (INTS, J), {}),
    ("argpartition", (SORTED, 0), {}),
    ("ndim", (A,), {}),
    ("shape", (A,), {}),
    ("size", (A,), {}),
    ("iscomplexobj", (A,), {}),
    ("isrealobj", (A,), {}),
    ("result_type", (F32, 1.0), {}),
    ("tril_indices_from", (S,), {}),
    ("triu_indices_from", (S,), {}),
    ("diag_indices_from", (S,), {}),
    ("einsum_path", ("ij,jk", A, S), {}),
]
ALIASES = {
    "acos": P,
    "acosh": 1 + P,
    "asin": P,
    "asinh": A,
    "atan": A,
    "atanh": P,
    "bitwise_invert": INTS,
    "hanning": 7,
    "hamming": 7,
    "blackman": 7,
    "bartlett": 7,
}
CASES += [(name, (x,), {}) for name, x in ALIASES.items() if not isinstance(x, int)]
CASES += [
    ("atan2", (A, B), {}),
    ("pow", (P, B), {}),
    ("bitwise_left_shift", (INTS, J), {}),
    ("bitwise_right_shift", (INTS, J), {}),
    ("gcd", (INTS, J), {}),
    ("gcd", (INTS - 5, J * 0), {}),
    ("lcm", (INTS, J), {}),
]
# results whose size depends on values: no value, no result
DATA_DEPENDENT = {
    "trim_zeros",
    "nonzero",
    "argwhere",
    "flatnonzero",
    "unique",
    "unique_values",
    "unique_counts",
    "unique_inverse",
    "unique_all",
    "union1d",
    "intersect1d",
    "setdiff1d",
    "setxor1d",
    "bincount",
}
