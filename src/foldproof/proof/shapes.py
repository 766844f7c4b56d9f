"""Inputs at several sizes, for programs that were exported with dynamic shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_flatten, tree_unflatten

from foldproof.errors import FoldproofError

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def as_inputs(inputs: Any) -> tuple[Any, ...]:
    """Positional arguments as a tuple.

    Raises:
        FoldproofError: ``inputs`` is no list or tuple (a lone tensor would fall apart into its rows).
    """
    if not isinstance(inputs, (list, tuple)):
        raise FoldproofError(f"inputs must be a tuple of example inputs, not {type(inputs).__name__}: write (x,)")
    return tuple(inputs)


def sampled_inputs(source: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Inputs]:
    """The given inputs and, where ``source`` is a graph that was traced with dynamic sizes, smaller and larger ones.

    Every dynamic dimension is taken at its given size, at its smallest (at least 1), and at one above the given; all
    within the ranges that it was traced with.
    """
    given: Inputs = (tuple(args), dict(kwargs))
    if not isinstance(source, (ExportedProgram, fx.GraphModule)):
        return [given]
    leaves, spec = tree_flatten(given)
    values = _described_inputs(source)
    sizes = [_symbolic_size(value) for value in values]
    if len(sizes) != len(leaves) or not any(isinstance(s, sympy.Expr) for size in sizes for s in size):
        return [given]
    hints = {
        s: leaf.shape[d]
        for leaf, size in zip(leaves, sizes)
        if isinstance(leaf, Tensor)
        for d, s in enumerate(size)
        if isinstance(s, sympy.Symbol)
    }
    ranges = source.range_constraints if isinstance(source, ExportedProgram) else _traced_ranges(values)
    out = [given]
    for choose in (_smallest, _larger):
        chosen = {s: choose(*_range(ranges, s), hint) for s, hint in hints.items()}
        if chosen == hints:
            continue
        resized = [_resized(leaf, size, chosen) for leaf, size in zip(leaves, sizes)]
        out.append(tree_unflatten(resized, spec))
    return out


def _described_inputs(source: ExportedProgram | fx.GraphModule) -> list[Any]:
    """What each user input was traced as."""
    placeholders = {n.name: n for n in source.graph.nodes if n.op == "placeholder"}
    names = list(placeholders)
    if isinstance(source, ExportedProgram):
        names = [s.arg.name for s in source.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    return [placeholders[name].meta.get("val") if name in placeholders else None for name in names]


def _symbolic_size(value: Any) -> tuple[Any, ...]:
    """The sizes of an input: integers or sympy expressions."""
    shape = value.shape if isinstance(value, Tensor) else ()
    return tuple(s.node.expr if isinstance(s, torch.SymInt) else s for s in shape)


def _traced_ranges(values: Sequence[Any]) -> Mapping[sympy.Symbol, Any]:
    """The range of every symbol of a graph without a program around it, as its tracing left them."""
    sizes: list[Any] = [s for value in values if isinstance(value, Tensor) for s in value.shape]
    return next((s.node.shape_env.var_to_range for s in sizes if isinstance(s, torch.SymInt)), {})


def _range(ranges: Mapping[sympy.Symbol, Any], symbol: sympy.Symbol) -> tuple[int, float]:
    found = ranges.get(symbol)
    if found is None:
        return 1, float("inf")
    upper = float(found.upper) if found.upper.is_number else float("inf")
    return max(int(found.lower), 1), upper


def _smallest(lower: int, upper: float, hint: int) -> int:
    return min(lower, max(hint, 1))


def _larger(lower: int, upper: float, hint: int) -> int:
    return int(min(hint + 1, upper))


def _resized(leaf: Any, size: tuple[Any, ...], chosen: Mapping[sympy.Symbol, int]) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    shape = [int(s.subs(chosen)) if isinstance(s, sympy.Expr) else s for s in size]
    if list(leaf.shape) == shape:
        return leaf
    if leaf.dtype.is_floating_point:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(shape, generator=generator).to(leaf.dtype).to(leaf.device)
    count = 1
    for s in shape:
        count *= s
    flat = leaf.reshape(-1) if leaf.numel() else leaf.new_zeros(1)
    return flat[torch.arange(count, device=leaf.device) % flat.numel()].reshape(shape)
