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
