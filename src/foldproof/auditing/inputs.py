"""Inputs for a graph inside a pipeline: the user's inputs if they fit, else random tensors of the graph's shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.auditing.snapshot import Snapshot


def find_inputs(snapshot: Snapshot, given: Sequence[Any]) -> tuple[Any, ...] | None:
    """Return inputs of ``snapshot``: ``given`` if number, shapes and dtypes fit, else random ones; None if unknown.

    Integers are drawn as zeros and ones, which are valid indices into almost any tensor.
    """
    placeholders = snapshot.placeholders
    if len(given) == len(placeholders) and all(_fits(p, x) for p, x in zip(placeholders, given)):
        return tuple(given)
    drawn = draw_inputs(placeholders)
    return None if any(d is None for d in drawn) else tuple(drawn)


def draw_inputs(placeholders: Sequence[fx.Node]) -> list[Any]:
    """Return random values of the shapes and dtypes of placeholders, None for one that is not described."""
    generator = torch.Generator().manual_seed(0)
    return [_draw(p, generator) for p in placeholders]


def _describe(placeholder: fx.Node) -> Any:
    for key in ("val", "example_value", "tensor_meta"):
        if placeholder.meta.get(key) is not None:
            return placeholder.meta[key]
    return None


def _fits(placeholder: fx.Node, given: Any) -> bool:
    described = _describe(placeholder)
    if described is None or not isinstance(given, Tensor):
        return described is None or not isinstance(described, Tensor)
    if not hasattr(described, "shape"):
        return False
    return described.dtype == given.dtype and _find_shape(described) == tuple(given.shape)


def _find_shape(described: Any) -> tuple[int, ...]:
    # A symbolic size is replaced by its hint; int() would specialize the program that it belongs to.
    return tuple(s.node.hint if isinstance(s, torch.SymInt) else s for s in described.shape)


def _draw(placeholder: fx.Node, generator: torch.Generator) -> Any:
    described = _describe(placeholder)
    if isinstance(described, (int, float, bool)):
        return described
    if not hasattr(described, "shape") or not hasattr(described, "dtype"):
        return None
    shape = _find_shape(described)
    if None in shape:  # a size that depends on values
        return None
    if described.dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(described.dtype)
    return torch.randint(2, shape, generator=generator).to(described.dtype)
