"""Coverage: the names of what a compiler did to a program, and whether it is proved."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from foldproof.auditing import Audit, Step
from foldproof.auditing.loops import LOWERING

TAKES_APART = ("AOTAutograd", "run_decompositions")
"""Steps that replace operators by their decompositions."""


def list_coverage(found: Audit) -> dict[str, bool]:
    """Return each pass that changed a graph, and each decomposition and lowering, with True where its step is proved.

    Operators of a step share its verdict, as no step takes apart or lowers one of them alone.
    """
    covered: dict[str, bool] = {}
    for step in found.steps:
        if step.fired:
            for name in _names(step):
                covered[name] = covered.get(name, True) and step.verdict.ok
    return covered


def _names(step: Step) -> Iterator[str]:
    if step.name == LOWERING:
        yield from (f"lowering {one}" for one in _operators(step.before))
        return
    yield f"pass {step.name}"
    if step.name in TAKES_APART:
        yield from (f"decomposition {one}" for one in _operators(step.before) - _operators(step.after))


def _operators(module: fx.GraphModule) -> set[str]:
    return {_name(node) for node in module.graph.nodes if node.op in ("call_function", "call_method")}


def _name(node: fx.Node) -> str:
    if isinstance(node.target, str):
        return node.target
    return str(node.target) if "OpOverload" in type(node.target).__name__ else getattr(node.target, "__name__", "?")
