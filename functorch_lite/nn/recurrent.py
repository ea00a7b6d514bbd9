# SPDX-License-Identifier: MIT
"""Recurrent layers: cells of `recurrent_cells` over whole sequences by `lax.scan`, stacked and in both directions."""

from typing import Any, ClassVar, Literal

import functorch_lite.numpy as fnp
from functorch_lite import lax, random, tree
from functorch_lite.errors import ArgumentError, ShapeError
from functorch_lite.nn.dropout import Dropout
from functorch_lite.nn.module import Array, Module
from functorch_lite.nn.recurrent_cells import GRUCell, LSTMCell, RNNCell
from functorch_lite.transforms.arguments import on_its_device


class _Recurrent(Module):
    cells: tuple[Module, ...]
    dropout: Dropout
    num_layers: int
    bidirectional: bool
    batch_first: bool
    cell_type: ClassVar[Any]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = None,
        key: Array,
        **cell_options: Any,
    ):
        if num_layers < 1:
            raise ArgumentError(f"{type(self).__name__}: `num_layers` should be positive, but is {num_layers}.")
        self.num_layers, self.bidirectional, self.batch_first = num_layers, bidirectional, batch_first
        self.dropout = Dropout(dropout)
        directions = 1 + bidirectional
        cells: list[Any] = []
        for i, k in enumerate(random.split(key, num_layers * directions)):
            size = input_size if i < directions else cells[0].out_size * directions
            cells.append(self.cell_type(size, hidden_size, bias=bias, dtype=dtype, key=k, **cell_options))
        self.cells = tuple(cells)

    @on_its_device
    def __call__(self, x: Array, state: Any = None, *, lengths: Array | None = None) -> tuple[Array, Any]:
        """`(outputs, last states)`; see the class."""
        self._check(x, lengths)
        x = fnp.moveaxis(x, -2, 0) if self.batch_first else x
        lead = (1,) * (x.ndim - 2)
        times = fnp.arange(x.shape[0]).reshape(-1, *lead)
        going = None if lengths is None else (times < lengths)[..., None]
        directions = 1 + self.bidirectional
        states = []
        for first in range(0, len(self.cells), directions):
            x = self.dropout(x) if first else x
            x, last = self._layer(first, x, state, going)
            states += last
        out = fnp.moveaxis(x, 0, -2) if self.batch_first else x
        return out, tree.map(lambda *parts: fnp.stack(parts), *states)

    def _layer(self, first: int, x: Array, state: Any, going: Array | None) -> tuple[Array, list[Any]]:
        """The outputs of the cells of one layer, both directions side by side, and their last states."""
        outs, lasts = [], []
        for backwards in (False, True)[: 1 + self.bidirectional]:
            i = first + backwards
            initial = None if state is None else tree.map(lambda s, i=i: s[i], state)
            out, last = _run(self.cells[i], x, initial, going, backwards)
            outs.append(out)
            lasts.append(last)
        return (outs[0] if len(outs) == 1 else fnp.concatenate(outs, axis=-1)), lasts

    def _check(self, x: Array, lengths: Array | None) -> None:
        cell: Any = self.cells[0]
        name = type(self).__name__
        if x.ndim < 2 or x.shape[-1] != cell.input_size:
            axes = "..., time" if self.batch_first else "time, ..."
            raise ShapeError(f"{name}: `x` should be [{axes}, {cell.input_size}], but is {x.shape}.")
        batch = x.shape[:-2] if self.batch_first else x.shape[1:-1]
        if lengths is not None and fnp.shape(lengths) != batch:
            raise ShapeError(f"{name}: `lengths` should be {batch} for x {x.shape}, but is {fnp.shape(lengths)}.")


def _run(cell: Any, x: Array, state: Any, going: Array | None, backwards: bool) -> tuple[Array, Any]:
    """Outputs [time, ..., out] and the last state. Where `going` is False the state stays and the output is 0."""
    initial = cell.initial_state(x[0]) if state is None else cell.checked(state)

    def step(state, now):
        projected, going = now
        new = cell.step(projected, state)
        out = cell.output(new)
        if going is None:
            return new, out
        return tree.map(lambda a, b: fnp.where(going, a, b), new, state), fnp.where(going, out, 0)

    last, outs = lax.scan(step, initial, (cell.project(x), going), reverse=backwards)
    return outs, last


class RNN(_Recurrent):
    """Elman cells over time, `num_layers` of them on top of each other; see `LSTM` for shapes and arguments.

    nonlinearity: "tanh" or "relu".
    """

    cell_type = RNNCell

    def __init__(self, *args: Any, nonlinearity: Literal["tanh", "relu"] = "tanh", **kwargs: Any):
        super().__init__(*args, nonlinearity=nonlinearity, **kwargs)


class LSTM(_Recurrent):
    """x [time, ..., input_size] -> (outputs [time, ..., directions * out_size], (h, c)).

    `layer(x, (h0, c0), lengths=lengths)`: h [num_layers * directions, ..., out_size] and c [..., hidden_size] are the
    last states, in PyTorch's order (layer 0 forward, layer 0 backward, layer 1 ...), and so are the initial ones, zero
    by default. out_size is hidden_size, or proj_size if that is not 0.

    num_layers: each layer takes the outputs of the one before. bidirectional: half the outputs are those of cells that
    run from the end. batch_first: x and outputs are [..., time, features]. dropout: on the outputs of all layers but
    the last, in training. lengths: integer [...], how many steps of each sequence count; outputs after them are 0 and
    the last states are those at the end of each sequence, as with PyTorch's packed sequences.

    Raises ShapeError, naming the argument, for shapes that do not fit.

    >>> import numpy as np
    >>> outputs, (h, c) = LSTM(3, 5, 2, bidirectional=True, key=random.key(0))(np.ones((7, 4, 3), np.float32))
    >>> outputs.shape, h.shape
    ((7, 4, 10), (4, 4, 5))
    """

    cell_type = LSTMCell

    def __init__(self, *args: Any, proj_size: int = 0, **kwargs: Any):
        super().__init__(*args, proj_size=proj_size, **kwargs)


class GRU(_Recurrent):
    """Gated recurrent units over time: (outputs, h); see `LSTM` for shapes and arguments."""

    cell_type = GRUCell
