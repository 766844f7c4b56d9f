"""Inputs at several sizes, for programs that were exported with dynamic shapes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from foldproof.errors import FoldproofError
from foldproof.thresholds import MAX_SAMPLED_ELEMENTS
from foldproof.torch_internals import tree_flatten, tree_unflatten

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def as_inputs(inputs: Any) -> tuple[Any, ...]:
    """Return positional arguments as a tuple.

    Raises:
        FoldproofError: ``inputs`` is no list or tuple (a lone tensor would be split into its rows).
    """
    if not isinstance(inputs, (list, tuple)):
        raise FoldproofError(f"inputs must be a tuple of example inputs, not {type(inputs).__name__}: write (x,)")
    return tuple(inputs)


def sampled_inputs(source: Any, args: Sequence[Any], kwargs: Mapping[str, Any], other: Any = None) -> list[Inputs]:
    """Return the given inputs and, for a ``source`` traced with dynamic sizes, smaller and larger ones.

    Every dynamic dimension is taken at its given size, at its smallest (at least 1), above the given one, and above the
    largest number in the graphs of ``source`` and ``other`` that inputs of a moderate size reach (a size may be
    compared with it); with different sizes for dimensions that happened to be equal. Integers among the inputs that
    stand for sizes change with them, within the ranges and guards of the trace.
    """
    given: Inputs = (tuple(args), dict(kwargs))
    if not isinstance(source, (ExportedProgram, fx.GraphModule)):
        return [given]
    leaves, spec = tree_flatten(given)
    values = _described_inputs(source)
    sizes = [_symbolic_size(value) for value in values]
    if len(sizes) != len(leaves) or not any(isinstance(s, sympy.Expr) for size in sizes for s in size):
        return [given]
    tensors = [(leaf, size) for leaf, size in zip(leaves, sizes) if isinstance(leaf, Tensor)]
    hints = dict(known for leaf, size in tensors for s, n in zip(size, leaf.shape) for known in _solved(s, n))
    if any(isinstance(s, sympy.Expr) and not s.free_symbols <= hints.keys() for _, size in tensors for s in size):
        return [given]
    traced = next((s.node.shape_env for value in values for s in _sizes(value) if isinstance(s, torch.SymInt)), None)
    ranges = source.range_constraints if isinstance(source, ExportedProgram) else traced.var_to_range if traced else {}
    out, done = [given], [hints]
    values = list(hints.values())
    limits = 0, _largest_number([source, other], tensors, hints)
    choices: list[Callable[[int, float, int, int], int]] = [functools.partial(_larger, limit) for limit in limits]
    for choose in (_smallest, *choices):
        chosen = {
            s: choose(*_range(ranges, s), hint, values[:i].count(hint)) for i, (s, hint) in enumerate(hints.items())
        }
        guards = traced.guards if traced else ()
        if chosen in done or any(g.expr.subs(chosen) == sympy.false for g in guards):
            continue
        done.append(chosen)
        resized = [_resized(leaf, size, chosen) for leaf, size in zip(leaves, sizes)]
        out.append(tree_unflatten(resized, spec))
    return out


def _solved(size: Any, given: int) -> Iterator[tuple[sympy.Symbol, int]]:
    """Yield the value of the symbol in a size that equals ``given``."""
    symbols = size.free_symbols if isinstance(size, sympy.Expr) else set()
    if len(symbols) == 1:
        (symbol,) = symbols
        yield from ((symbol, int(value)) for value in sympy.solve(size - given, symbol) if value.is_integer)


def _described_inputs(source: ExportedProgram | fx.GraphModule) -> list[Any]:
    """Return the traced value of each user input."""
    placeholders = {n.name: n for n in source.graph.nodes if n.op == "placeholder"}
    names = list(placeholders)
    if isinstance(source, ExportedProgram):
        names = [s.arg.name for s in source.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    metas: list[dict[str, Any]] = [placeholders[name].meta if name in placeholders else {} for name in names]
    return [meta.get("val", meta.get("example_value")) for meta in metas]  # Dynamo stores examples


def _sizes(value: Any) -> Sequence[Any]:
    """Return the sizes of a tensor, or an integer input itself."""
    return value.shape if isinstance(value, Tensor) else (value,) if isinstance(value, torch.SymInt) else ()


def _symbolic_size(value: Any) -> tuple[Any, ...]:
    """Return `_sizes` as integers or sympy expressions."""
    return tuple(s.node.expr if isinstance(s, torch.SymInt) else s for s in _sizes(value))


def _range(ranges: Mapping[sympy.Symbol, Any], symbol: sympy.Symbol) -> tuple[int, float]:
    found = ranges.get(symbol)
    if found is None:
        return 1, float("inf")
    upper = float(found.upper) if found.upper.is_number else float("inf")
    return max(int(found.lower), 1), upper


def _smallest(lower: int, upper: float, hint: int, number: int) -> int:
    return min(lower, max(hint, 1))


def _larger(limit: int, lower: int, upper: float, hint: int, number: int) -> int:
    """Return a size above the given one and ``limit``, different for the ``number``-th of several that are equal.

    Positions in it, which count from 0, are above ``limit``, too.
    """
    return int(min(max(limit + 1 if limit else 0, hint) + 1 + number, upper))


def _largest_number(
    sources: Sequence[Any], tensors: Sequence[tuple[Tensor, tuple[Any, ...]]], hints: Mapping[sympy.Symbol, int]
) -> int:
    """Return the largest whole number that a node of a graph is given, if inputs of that size are of a moderate one."""
    graphs = [source.graph for source in sources if isinstance(source, (ExportedProgram, fx.GraphModule))]
    calls = [node for graph in graphs for node in graph.nodes if node.op == "call_function"]
    given = [x for node in calls for x in (*node.args, *node.kwargs.values())]
    allowed = max(MAX_SAMPLED_ELEMENTS, 2 * sum(t.numel() for t, _ in tensors))
    for limit in sorted((n for n in given if type(n) is int and n > 1), reverse=True):
        sizes = dict.fromkeys(hints, limit + 2 + len(hints))
        if sum(math.prod(float(_at(n, sizes)) for n in size) for _, size in tensors) <= allowed:
            return limit
    return 0


def _at(size: Any, chosen: Mapping[sympy.Symbol, int]) -> Any:
    return size.subs(chosen) if isinstance(size, sympy.Expr) else size


def _resized(leaf: Any, size: tuple[Any, ...], chosen: Mapping[sympy.Symbol, int]) -> Any:
    numbers = [_at(s, chosen) for s in size]
    if not isinstance(leaf, Tensor):  # an integer that is part of no size stays
        return int(numbers[0]) if numbers and numbers[0].is_number else leaf
    shape = [int(n) for n in numbers]
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
