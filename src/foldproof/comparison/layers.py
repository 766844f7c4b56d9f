"""Error along the depth: each layer's distance from the float64 result, and how far rounding alone moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from torch import Tensor, fx

from foldproof.comparison.graph import Graph
from foldproof.comparison.inputs import Inputs
from foldproof.comparison.judge import distance, number, rms
from foldproof.comparison.result import Layer
from foldproof.graph.interpreter import Again
from foldproof.graph.text import operator_name, source_of
from foldproof.rounding.answers import is_exact
from foldproof.rounding.operands import Operands
from foldproof.thresholds import OTHER_VALUE, RUNS_OF_LAYERS
from foldproof.torch_internals import OpOverload


def layers(
    graph: Graph, values: Mapping[str, Tensor], given: Inputs, seed: int, operands: Operands | None, agree: bool
) -> tuple[Layer, ...]:
    """List every operator that rounds, in order; ``values`` are the candidate's, by node, where it shows them.

    Values that stand for something else are left out; ``agree`` tells that the outputs agree.
    """
    float64: dict[str, Tensor] = {}
    reference: dict[str, float] = {}
    candidate: dict[str, float] = {}
    floor: dict[str, list[float]] = {}

    def keep(node: fx.Node, value: Any, again: Again) -> Any:
        if _rounds(node) and isinstance(value, Tensor) and value.is_floating_point():
            float64[node.name] = value
        return value

    def measure(node: fx.Node, value: Any, again: Again) -> Any:
        if node.name in float64:
            reference[node.name] = rms(distance([value], [float64[node.name]], [0]))
            theirs = values.get(node.name)
            if theirs is not None and theirs.shape == value.shape:
                candidate[node.name] = rms(distance([theirs], [float64[node.name]], [0]))
        return value

    def disturb(node: fx.Node, value: Any, again: Again) -> Any:
        if node.name in float64:
            floor.setdefault(node.name, []).append(rms(distance([value], [float64[node.name]], [0])))
        return value

    graph.run_in_float64(*given, after=keep)
    graph.run(*given, after=measure)
    for k in range(RUNS_OF_LAYERS):
        graph.perturbed(*given, seed * 100_003 + 7_000 + k, 1.0, operands, after=disturb)
    sizes = {name: rms([number(x).nan_to_num(0, 0, 0)]) for name, x in float64.items()}
    far = {name for name, distance in candidate.items() if distance > OTHER_VALUE * sizes[name]}
    for name in _other_values(list(graph.module.graph.nodes), far, candidate.keys() - far, agree):
        del candidate[name]
    return tuple(
        Layer(
            node.name,
            operator_name(node),
            source_of(node),
            reference[node.name],
            candidate.get(node.name),
            (sum(x * x for x in floor[node.name]) / RUNS_OF_LAYERS) ** 0.5,
            sizes[node.name],
        )
        for node in graph.nodes
        if node.name in reference and node.name in floor
    )


def _other_values(nodes: Sequence[fx.Node], far: Set[str], near: Set[str], agree: bool) -> set[str]:
    """Return those of ``far`` from which no way leads to an output but through a value of ``near``."""
    reach: set[fx.Node] = set()
    for node in reversed(nodes):
        ends = node.op == "output" and not agree
        if node.name not in near and (ends or any(user in reach for user in node.users)):
            reach.add(node)
    return set(far) - {node.name for node in reach}


def _rounds(node: fx.Node) -> bool:
    target = node.target
    return isinstance(target, OpOverload) and not is_exact(target)
