"""Modules in training mode: batch statistics and dropout explain most differences that are taken for bugs."""

from __future__ import annotations

from typing import Any

from torch import nn

from foldproof.comparison.candidate import Candidate
from foldproof.formatting import format_count

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_WITH_DROPOUT = (nn.MultiheadAttention, nn.RNNBase)


def tell_training(reference: Any, candidate: Candidate) -> str:
    """Return a sentence on modules in training mode whose results depend on it; empty if there are none."""
    other = candidate.holder if candidate.holder is not None else candidate.program
    sides = [("the reference", reference), ("the candidate", other)]
    told = [f"{name} is in training mode ({found})" for name, side in sides if (found := _find(side))]
    return f"{' and '.join(told)}; call eval() for its results in use" if told else ""


def _find(side: Any) -> str:
    """Return a module in training mode in words, with the number of others."""
    if not isinstance(side, nn.Module):
        return ""
    found = [(name, m) for name, m in side.named_modules() if m.training and _matters(m)]
    if not found:
        return ""
    name, first = found[0]
    named = f"{type(first).__name__} {name}".strip()
    more = f" and {format_count(len(found) - 1, 'other module')}" if len(found) > 1 else ""
    return named + more


def _matters(module: nn.Module) -> bool:
    if isinstance(module, _NORMS):
        return True
    if isinstance(module, _DROPOUTS):
        return module.p > 0
    return isinstance(module, _WITH_DROPOUT) and float(module.dropout) > 0
