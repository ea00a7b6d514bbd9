# SPDX-License-Identifier: MIT
"""Recurrent cells: one step of a sequence, with PyTorch's equations, parameters and initial values.

weight_ih [gates * hidden_size, input_size], weight_hh [gates * hidden_size, hidden_size or proj_size], bias_ih and
bias_hh [gates * hidden_size] start uniform in +-1 / sqrt(hidden_size). `cell(x, state) -> state`, x [..., input_size].

Sources: J. Elman, "Finding structure in time" (1990); S. Hochreiter, J. Schmidhuber, "Long short-term memory" (1997);
K. Cho and others, arXiv:1406.1078; H. Sak and others, arXiv:1402.1128 (projection).
"""

from typing import Any, ClassVar, Literal

import functorch_lite.numpy as fnp
from functorch_lite import random
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.activations import relu, sigmoid
from functorch_lite.nn.initializers import torch_default
from functorch_lite.nn.module import Array, Module
from functorch_lite.transforms.arguments import on_its_device


class _Cell(Module):
    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None
    bias_hh: Array | None
    input_size: int
    hidden_size: int
    n_gates: ClassVar[int]

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, dtype: Any = None, key: Array):
        self._set_parameters(input_size, hidden_size, hidden_size, bias, dtype, key)

    def _set_parameters(self, input_size, hidden_size, out_size, bias, dtype, key):
        init, rows = torch_default(hidden_size), self.n_gates * hidden_size
        keys = random.split(key, 4)
        self.weight_ih = init(keys[0], (rows, input_size), dtype)
        self.weight_hh = init(keys[1], (rows, out_size), dtype)
        self.bias_ih = init(keys[2], (rows,), dtype) if bias else None
        self.bias_hh = init(keys[3], (rows,), dtype) if bias else None
        self.input_size, self.hidden_size = input_size, hidden_size

    @property
    def out_size(self) -> int:
        """The size of the output of a step."""
        return self.weight_hh.shape[1]

    def initial_state(self, x: Array) -> Any:
        """The zero state for inputs like x [..., input_size]."""
        return fnp.zeros((*x.shape[:-1], self.out_size), self._state_dtype(x))

    def _state_dtype(self, x: Array) -> Any:
        return fnp.result_type(x.dtype, self.weight_hh.dtype)

    @on_its_device
    def __call__(self, x: Array, state: Any = None) -> Any:
        if x.shape[-1:] != (self.input_size,):
            raise ShapeError(f"{type(self).__name__}: `x` should be [..., {self.input_size}], but is {x.shape}.")
        state = self.initial_state(x) if state is None else self.checked(state)
        return self.step(self.project(x), state)

    def checked(self, state: Any) -> Any:
        """`state` itself. Raises ShapeError when it is not of this cell."""
        if state.shape[-1:] != (self.out_size,):
            raise ShapeError(f"{type(self).__name__}: `state` should be [..., {self.out_size}], but is {state.shape}.")
        return state

    def project(self, x: Array) -> Array:
        """weight_ih x + bias_ih: what does not depend on the state, for all time steps at once."""
        out = fnp.matmul(x, self.weight_ih.T)
        return out if self.bias_ih is None else out + self.bias_ih

    def _recur(self, h: Array) -> Array:
        out = fnp.matmul(h, self.weight_hh.T)
        return out if self.bias_hh is None else out + self.bias_hh

    def step(self, projected: Array, state: Any) -> Any:
        """The next state, from what `project` made of the input."""
        raise NotImplementedError

    def output(self, state: Any) -> Array:
        """The part of a state that is the output of its step."""
        return state


class RNNCell(_Cell):
    """h' = tanh(weight_ih x + bias_ih + weight_hh h + bias_hh), or relu: x [..., input_size], h [..., hidden_size]."""

    nonlinearity: Literal["tanh", "relu"]
    n_gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        dtype: Any = None,
        key: Array,
    ):
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(f"RNNCell: `nonlinearity` should be 'tanh' or 'relu', but is {nonlinearity!r}.")
        super().__init__(input_size, hidden_size, bias=bias, dtype=dtype, key=key)
        self.nonlinearity = nonlinearity

    def step(self, projected: Array, state: Array) -> Array:
        """The next hidden state."""
        total = projected + self._recur(state)
        return fnp.tanh(total) if self.nonlinearity == "tanh" else relu(total)


class LSTMCell(_Cell):
    """The state is (h, c); gates i, f, g, o lie one after the other in the parameters:

        c' = sigmoid(f) c + sigmoid(i) tanh(g),    h' = sigmoid(o) tanh(c')

    x [..., input_size], c [..., hidden_size], h [..., hidden_size]. proj_size: h' is projected to this many elements by
    weight_hr [proj_size, hidden_size].

    >>> import numpy as np
    >>> h, c = LSTMCell(3, 5, key=random.key(0))(np.ones((2, 3), np.float32))
    >>> h.shape, c.shape
    ((2, 5), (2, 5))
    """

    weight_hr: Array | None
    n_gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        proj_size: int = 0,
        dtype: Any = None,
        key: Array,
    ):
        if not 0 <= proj_size < hidden_size:
            raise ArgumentError(f"LSTMCell: `proj_size` should be in 0..{hidden_size - 1}, but is {proj_size}.")
        key, projection_key = random.split(key)
        self._set_parameters(input_size, hidden_size, proj_size or hidden_size, bias, dtype, key)
        shape = (proj_size, hidden_size)
        self.weight_hr = torch_default(hidden_size)(projection_key, shape, dtype) if proj_size else None

    def initial_state(self, x: Array) -> tuple[Array, Array]:
        """Zeros (h, c) for inputs like x [..., input_size]."""
        lead, dtype = x.shape[:-1], self._state_dtype(x)
        return fnp.zeros((*lead, self.out_size), dtype), fnp.zeros((*lead, self.hidden_size), dtype)

    def checked(self, state: Any) -> Any:
        """`state` itself. Raises ShapeError when it is not (h, c) of this cell."""
        sizes = self.out_size, self.hidden_size
        if len(state) != 2 or any(part.shape[-1:] != (n,) for part, n in zip(state, sizes, strict=True)):
            raise ShapeError(f"LSTMCell: `state` should be (h [..., {sizes[0]}], c [..., {sizes[1]}]).")
        return state

    def step(self, projected: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        """The next (h, c)."""
        h, c = state
        i, f, g, o = fnp.split(projected + self._recur(h), 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * fnp.tanh(g)
        h = sigmoid(o) * fnp.tanh(c)
        return (h if self.weight_hr is None else fnp.matmul(h, self.weight_hr.T)), c

    def output(self, state: tuple[Array, Array]) -> Array:
        """h."""
        return state[0]


class GRUCell(_Cell):
    """Gates r, z, n lie one after the other in the parameters, i of the input and h of the state:

        n = tanh(n_i + sigmoid(r_i + r_h) n_h),    h' = (1 - z) n + z h,    z = sigmoid(z_i + z_h)

    x [..., input_size], h [..., hidden_size]. As in PyTorch the reset gate multiplies n_h with its bias.
    """

    n_gates = 3

    def step(self, projected: Array, state: Array) -> Array:
        """The next hidden state."""
        r, z, n = fnp.split(projected, 3, axis=-1)
        r_h, z_h, n_h = fnp.split(self._recur(state), 3, axis=-1)
        new = fnp.tanh(n + sigmoid(r + r_h) * n_h)
        return new + sigmoid(z + z_h) * (state - new)
