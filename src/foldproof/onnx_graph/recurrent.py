"""Recurrent layers, step after step: RNN, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from foldproof.onnx_graph import pointwise
from foldproof.onnx_graph.registry import NotTranslated, Numbers, defines, whole_numbers

State = tuple[Tensor, ...]
Cell = Callable[[Tensor, State, int], State]
"""The next state, of which the first part is the output, from a step's input, the state, and the direction."""


@defines("RNN", several=True)
def rnn(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Numbers | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = (),
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """h' = f(W·x + R·h + b)"""
    functions = _Functions(activations, activation_alpha, activation_beta, clip, ("Tanh",), w.shape[0])
    biases = _biases(b, 1, w, hidden_size)

    def cell(step: Tensor, state: State, d: int) -> State:
        (h,) = state
        (f,) = functions.of(d)
        of_input, of_state = biases[d]
        return (f(step @ w[d].mT + of_input + h @ r[d].mT + of_state),)

    return _run(cell, x, w, lengths, (initial_h,), direction, hidden_size, layout)


@defines("GRU", several=True)
def gru(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Numbers | None = None,
    initial_h: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = (),
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    """gates in the order update, reset, hidden; h' = (1 - update)·hidden + update·h"""
    functions = _Functions(activations, activation_alpha, activation_beta, clip, ("Sigmoid", "Tanh"), w.shape[0])
    biases = _biases(b, 3, w, hidden_size)

    def cell(step: Tensor, state: State, d: int) -> State:
        (h,) = state
        f, g = functions.of(d)
        update_w, reset_w, hidden_w = w[d].chunk(3)
        update_r, reset_r, hidden_r = r[d].chunk(3)
        of_input, of_state = (one.chunk(3) for one in biases[d])
        update = f(step @ update_w.mT + h @ update_r.mT + of_input[0] + of_state[0])
        reset = f(step @ reset_w.mT + h @ reset_r.mT + of_input[1] + of_state[1])
        if linear_before_reset:
            recurrent = reset * (h @ hidden_r.mT + of_state[2])
        else:
            recurrent = (reset * h) @ hidden_r.mT + of_state[2]
        hidden = g(step @ hidden_w.mT + of_input[2] + recurrent)
        return ((1 - update) * hidden + update * h,)

    return _run(cell, x, w, lengths, (initial_h,), direction, hidden_size, layout)


@defines("LSTM", several=True)
def lstm(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Numbers | None = None,
    initial_h: Tensor | None = None,
    initial_c: Tensor | None = None,
    peepholes: Tensor | None = None,
    *,
    activation_alpha: Sequence[float] = (),
    activation_beta: Sequence[float] = (),
    activations: Sequence[str] = (),
    clip: float = 0.0,
    direction: str = "forward",
    hidden_size: int,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """gates in the order input, output, forget, cell; c' = forget·c + input·cell, and h' = output·tanh(c')"""
    if input_forget:
        raise NotTranslated("LSTM with coupled gates has no definition")
    names = ("Sigmoid", "Tanh", "Tanh")
    functions = _Functions(activations, activation_alpha, activation_beta, clip, names, w.shape[0])
    biases = _biases(b, 4, w, hidden_size)

    def cell(step: Tensor, state: State, d: int) -> State:
        h, c = state
        f, g, out = functions.of(d)
        of_input, of_state = biases[d]
        gates = (step @ w[d].mT + of_input + h @ r[d].mT + of_state).chunk(4, -1)
        looks = None if peepholes is None else peepholes[d].chunk(3)

        def gate(i: int, at: Tensor) -> Tensor:
            return f(gates[i] if looks is None else gates[i] + looks[i] * at)

        kept = gate(2, c) * c + gate(0, c) * g(gates[3])
        return gate(1, kept) * out(kept), kept

    return _run(cell, x, w, lengths, (initial_h, initial_c), direction, hidden_size, layout)


class _Functions:
    """The activations of each direction, behind the limits of ``clip``."""

    def __init__(
        self,
        names: Sequence[str],
        alpha: Sequence[float],
        beta: Sequence[float],
        clip: float,
        usual: Sequence[str],
        directions: int,
    ) -> None:
        if alpha or beta:
            raise NotTranslated("recurrent layers with parameters of their activations have no definition")
        self._names, self._clip, self._count = list(names) or list(usual) * directions, clip, len(usual)

    def of(self, direction: int) -> list[Callable[[Tensor], Tensor]]:
        own = self._names[direction * self._count : (direction + 1) * self._count]
        return [self._clipped(pointwise.activation(name, [])) for name in own]

    def _clipped(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return (lambda x: function(x.clamp(-self._clip, self._clip))) if self._clip else function


def _biases(b: Tensor | None, gates: int, w: Tensor, hidden: int) -> list[Sequence[Tensor]]:
    """Return the biases of inputs and states, for each direction."""
    if b is None:
        zero = torch.zeros(gates * hidden, dtype=w.dtype, device=w.device)
        return [(zero, zero)] * w.shape[0]
    return [one.chunk(2) for one in b]


def _run(
    cell: Cell,
    x: Tensor,
    w: Tensor,
    lengths: Numbers | None,
    initial: Iterable[Tensor | None],
    direction: str,
    hidden: int,
    layout: int,
) -> tuple[Tensor, ...]:
    """Return the outputs of all steps, and the last states, of all directions."""
    x = x.transpose(0, 1) if layout else x
    steps, batch = x.shape[:2]
    if lengths is not None and any(n != steps for n in whole_numbers(lengths)):
        raise NotTranslated("recurrent layers of sequences of several lengths have no definition")
    zero = torch.zeros(w.shape[0], batch, hidden, dtype=x.dtype, device=x.device)
    starts = [zero if one is None else one.transpose(0, 1) if layout else one for one in initial]
    outputs, ends = [], []
    for d in range(w.shape[0]):
        backwards = direction == "reverse" or d == 1
        state, made = tuple(one[d] for one in starts), []
        for t in reversed(range(steps)) if backwards else range(steps):
            state = cell(x[t], state, d)
            made.append(state[0])
        outputs.append(torch.stack(made[::-1] if backwards else made))
        ends.append(state)
    whole = torch.stack(outputs, 1)
    last = [torch.stack(one) for one in zip(*ends)]
    if layout:
        return whole.permute(2, 0, 1, 3), *(one.transpose(0, 1) for one in last)
    return whole, *last
