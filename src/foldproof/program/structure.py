"""The shape of a program's outputs: which containers, keys and plain values stand where."""

from __future__ import annotations

from typing import Any

from torch.utils._pytree import TreeSpec

Structure = Any
"""Nested tuples that compare equal where outputs are put together alike."""


def structure_of(spec: TreeSpec) -> Structure:
    """``spec`` with tuples and lists alike, and a container of one tensor like the tensor (graphs return tuples)."""
    found = _structure(spec)
    while isinstance(found, tuple) and found[0] == "sequence" and len(found[1]) == 1:
        found = found[1][0]
    return found


def _structure(spec: TreeSpec) -> Structure:
    if spec.type is None:
        return "*"
    children = tuple(_structure(child) for child in spec.children())
    if spec.type in (tuple, list):
        return ("sequence", children)
    # Keys (of dicts, dataclasses, named tuples, model outputs) tell outputs apart; the container's class does not.
    return ("keys", str(spec.context), children)
