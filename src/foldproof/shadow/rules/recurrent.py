"""Recurrent layers, decomposed into their cells, step after step."""

from __future__ import annotations

from typing import Any

import torch

from foldproof.shadow.call import Call
from foldproof.shadow.registry import composed
from foldproof.shadow.rules.decomposition import decompose_residues

aten = torch.ops.aten


@composed(aten.mkldnn_rnn_layer.default)
def lstm_layer(call: Call, *args: Any, **kwargs: Any) -> Any:
    """by PyTorch's own decomposition into the steps of an LSTM"""
    return decompose_residues(call, args, kwargs)


@composed(aten.mkldnn_rnn_layer_backward.default)
def lstm_layer_backward(call: Call, *args: Any, **kwargs: Any) -> Any:
    """as the derivative of the steps of an LSTM, if the given results are those of a call on the given operands"""
    given = call.value(call.arguments)
    names = (
        "input weight1 weight2 weight3 weight4 hx_ cx_tmp reverse batch_sizes mode hidden_size num_layers has_biases"
    )
    operands = [given[name] for name in [*names.split(), "bidirectional", "batch_first", "train"]]
    if not torch.equal(aten.mkldnn_rnn_layer.default(*operands)[0], given["output"]):
        raise call.undecided("its workspace is of another call")
    return decompose_residues(call, args, kwargs)
