"""Recurrent layers, which are their cells, step after step."""

from __future__ import annotations

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.registry import composed
from foldproof.shadow.residue import Residue
from foldproof.shadow.undecided import Undecided
from foldproof.torch_internals import decompose_lstm_layer

aten = torch.ops.aten

_LSTM = 2  # of oneDNN's kinds of cells


@composed(aten.mkldnn_rnn_layer.default)
def lstm_layer(
    call: Call,
    x: Tensor,
    input_weight: Tensor,
    hidden_weight: Tensor,
    input_bias: Tensor,
    hidden_bias: Tensor,
    hidden: Tensor,
    cell: Tensor,
    reverse: bool,
    batch_sizes: list[int],
    mode: int,
    hidden_size: int,
    num_layers: int,
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    train: bool,
) -> tuple[Residue, Residue, Residue, None]:
    """by PyTorch's own decomposition into the steps of an LSTM"""

    # It is one layer in one direction; how many there are, and how the input was laid out, is told and not used.
    if mode != _LSTM or train or batch_sizes or not len(x):
        raise Undecided("no rule for this form of aten.mkldnn_rnn_layer.default")
    weights = (input_weight, hidden_weight, *((input_bias, hidden_bias) if has_biases else ()))
    start = [state.view(state.shape[-2:]) for state in (hidden, cell)]
    out, (last, memory) = decompose_lstm_layer(x, start, weights, has_biases, reverse)
    return call.residue(out), call.residue(last.view(hidden.shape)), call.residue(memory.view(cell.shape)), None
