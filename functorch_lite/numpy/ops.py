# SPDX-License-Identifier: MIT
"""The primitives' functions in one namespace, as the numpy layer writes them: `e.add`, `e.select`, `e.reshape`.

They take operands of one dtype and one shape (see `promotion`).
"""

from functorch_lite.primitives.broadcast import broadcast_in_dim as broadcast_in_dim
from functorch_lite.primitives.broadcast import full as full
from functorch_lite.primitives.broadcast import iota as iota
from functorch_lite.primitives.broadcast import reduce_sum as reduce_sum
from functorch_lite.primitives.casts import bitcast as bitcast
from functorch_lite.primitives.casts import convert as convert
from functorch_lite.primitives.casts import stop_gradient_of as stop_gradient_of
from functorch_lite.primitives.comparison import bit_and as bit_and
from functorch_lite.primitives.comparison import bit_not as bit_not
from functorch_lite.primitives.comparison import bit_or as bit_or
from functorch_lite.primitives.comparison import bit_xor as bit_xor
from functorch_lite.primitives.comparison import eq as eq
from functorch_lite.primitives.comparison import ge as ge
from functorch_lite.primitives.comparison import gt as gt
from functorch_lite.primitives.comparison import is_finite as is_finite
from functorch_lite.primitives.comparison import le as le
from functorch_lite.primitives.comparison import lt as lt
from functorch_lite.primitives.comparison import ne as ne
from functorch_lite.primitives.comparison import population_count as population_count
from functorch_lite.primitives.comparison import select as select
from functorch_lite.primitives.comparison import shift_left as shift_left
from functorch_lite.primitives.comparison import shift_right as shift_right
from functorch_lite.primitives.complex_parts import absolute as absolute
from functorch_lite.primitives.complex_parts import conj as conj
from functorch_lite.primitives.complex_parts import imag as imag
from functorch_lite.primitives.complex_parts import make_complex as make_complex
from functorch_lite.primitives.complex_parts import real as real
from functorch_lite.primitives.complex_parts import sign as sign
from functorch_lite.primitives.elementwise import add as add
from functorch_lite.primitives.elementwise import clamp as clamp
from functorch_lite.primitives.elementwise import div as div
from functorch_lite.primitives.elementwise import integer_pow as integer_pow
from functorch_lite.primitives.elementwise import maximum as maximum
from functorch_lite.primitives.elementwise import minimum as minimum
from functorch_lite.primitives.elementwise import mul as mul
from functorch_lite.primitives.elementwise import neg as neg
from functorch_lite.primitives.elementwise import pow as pow
from functorch_lite.primitives.elementwise import rem as rem
from functorch_lite.primitives.elementwise import sub as sub
from functorch_lite.primitives.movement import concatenate as concatenate
from functorch_lite.primitives.movement import inverse_permutation as inverse_permutation
from functorch_lite.primitives.movement import moveaxis as moveaxis
from functorch_lite.primitives.movement import pad as pad
from functorch_lite.primitives.movement import permute_dims as permute_dims
from functorch_lite.primitives.movement import reshape as reshape
from functorch_lite.primitives.movement import rev as rev
from functorch_lite.primitives.movement import slice as slice
from functorch_lite.primitives.movement import slice_in_axis as slice_in_axis
from functorch_lite.primitives.rounding import ceil as ceil
from functorch_lite.primitives.rounding import floor as floor
from functorch_lite.primitives.rounding import nextafter as nextafter
from functorch_lite.primitives.rounding import round_to_even as round_to_even
from functorch_lite.primitives.rounding import trunc as trunc
