"""What a graph in the middle of a pipeline is given: the user's inputs where they fit, else tensors of its shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.auditing.snapshot import Snapshot


def inputs_for(snapshot: Snapshot, given: Sequence[Any]) -> tuple[Any, ...] | None:
    """Inputs of ``snapshot``: ``given`` if their number, shapes and dtypes fit, else random ones; None if unknown.

    Integers are drawn as zeros and ones, which are good for indices into anything.
    """
    placeholders = snapshot.placeholders
    if len(given) == len(placeholders) and all(_fits(p, x) for p, x in zip(placeholders, given)):
        return tuple(given)
    generator = torch.Generator().manual_seed(0)
    drawn = [_drawn(p, generator) for p in placeholders]
    return None if any(d is None for d in drawn) else tuple(drawn)


def _described(placeholder: fx.Node) -> Any:
    for key in ("val", "example_value", "tensor_meta"):
        if placeholder.meta.get(key) is not None:
            return placeholder.meta[key]
    return None


def _fits(placeholder: fx.Node, given: Any) -> bool:
    described = _described(placeholder)
    if described is None or not isinstance(given, Tensor):
        return described is None or not isinstance(described, Tensor)
    if not hasattr(described, "shape"):
        return False
    return described.dtype == given.dtype and _shape(described) == tuple(given.shape)


def _shape(described: Any) -> tuple[int, ...]:
    # A symbolic size counts as its hint; int() would fix it, in the program that it belongs to.
    return tuple(s.node.hint if isinstance(s, torch.SymInt) else s for s in described.shape)


def _drawn(placeholder: fx.Node, generator: torch.Generator) -> Any:
    described = _described(placeholder)
    if isinstance(described, (int, float, bool)):
        return described
    if not hasattr(described, "shape") or not hasattr(described, "dtype"):
        return None
    shape = _shape(described)
    if None in shape:  # a size that hangs on values
        return None
    if described.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(described.dtype)
    return torch.randint(2, shape, generator=generator).to(described.dtype)
