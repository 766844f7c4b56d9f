"""The structure of a program's outputs: its containers, keys and plain values."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from typing import Any

from torch.fx.immutable_collections import immutable_list

from foldproof.torch_internals import MappingKey, TreeSpec, keystr, tree_leaves_with_path, tree_unflatten

Structure = Any
"""Nested tuples that are equal for equal structures of outputs."""


def arranged(outputs: Sequence[Any], spec: TreeSpec) -> tuple[list[Any], Structure, list[str]]:
    """Return ``outputs`` (in the order of ``spec``), with dicts in the order of their keys, their structure and names.

    Dicts are equal in any order of keys, tuples equal lists, and a container of one tensor equals the tensor (graphs
    return tuples).
    """
    order, found = _arranged(spec, 0)
    while isinstance(found, tuple) and found[0] == "sequence" and len(found[1]) == 1:
        found = found[1][0]
    paths = [path for path, _ in tree_leaves_with_path(tree_unflatten(list(range(spec.num_leaves)), spec))]
    return [outputs[i] for i in order], found, [_named(place, paths[i]) for place, i in enumerate(order)]


def _named(place: int, path: tuple[Any, ...]) -> str:
    """Return the name of an output: by its keys, if it is in a dict, else by its number."""
    return f"output{keystr(path)}" if any(isinstance(key, MappingKey) for key in path) else f"output {place}"


def _arranged(spec: TreeSpec, start: int) -> tuple[list[int], Structure]:
    """Return the positions of the leaves under ``spec``, counted from ``start``, and their structure."""
    if spec.type is None:
        return [start], "*"
    parts = []
    for child in spec.children():
        parts.append(_arranged(child, start))
        start += child.num_leaves
    context = spec.context
    if spec.type in (dict, OrderedDict, defaultdict):
        keys = context[1] if spec.type is defaultdict else context
        places = sorted(range(len(keys)), key=lambda i: repr(keys[i]))
        parts, context = [parts[i] for i in places], [keys[i] for i in places]
    order, children = [i for places, _ in parts for i in places], tuple(structure for _, structure in parts)
    if spec.type in (tuple, list, immutable_list):
        return order, ("sequence", children)
    # Keys (of dicts, dataclasses, named tuples, model outputs) are part of the structure; the container's class is not.
    return order, ("keys", str(context), children)
