"""Quantization: an approximation on purpose, so it is a step with a bound, and not a difference."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor, fx

from foldproof.auditing.snapshot import Snapshot, is_functional
from foldproof.graph.module import InterpretedModule, get_attribute
from foldproof.operators import count_results, find_operator, get_name
from foldproof.verdict import ApproximationStep

Parameters = tuple[Hashable, ...]
"""Name and arguments of a quantization."""
Steps = dict[Parameters, ApproximationStep]


def remove_quantization(snapshot: Snapshot) -> tuple[Snapshot, Steps, Steps]:
    """Replace each dequantize(quantize(x)) of equal parameters by x.

    Returns:
        The graph, the pairs as steps, and the fake quantizations (which do both at once, and are replaced, too) as
        steps. The latter are separate, because their rounding is not new if the graph before had them.

    The ``bound`` of a step is half a quantization step, which holds if x lies in the range of the integers. A parameter
    is known, so its bound is its real change, if that is larger.
    """
    steps: Steps = {}
    fakes: Steps = {}
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in snapshot.graph.nodes:
        if _is_fake(snapshot, node):
            made[node] = made[node.all_input_nodes[0]]
            fakes[_describe_parameters(snapshot, node)] = _make_step(
                snapshot, node, _halve_step(_find_scale(snapshot, node))
            )
            continue
        pair = _find_quantize(node)
        if pair is None:
            made[node] = graph.node_copy(node, made.__getitem__)
            continue
        made[node] = made[pair.all_input_nodes[0]]
        bound = max(_halve_step(_find_value(snapshot, pair.args[1])), _measure_change(snapshot, pair, node))
        steps[_describe_parameters(snapshot, pair)] = _make_step(snapshot, pair, bound)
    if len(made) == len(graph.nodes):
        return snapshot, {}, {}
    graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output") or not is_functional(n))
    module = InterpretedModule(snapshot.module, graph)
    return Snapshot(module, copies=snapshot.copies), steps, fakes


def _make_step(snapshot: Snapshot, node: fx.Node, bound: float) -> ApproximationStep:
    called = find_operator(node.target) or type(get_attribute(snapshot.module, str(node.target))).__name__
    return ApproximationStep(f"{node.name}: {called}, within its range", bound)


def _halve_step(scale: Any) -> float:
    return float(scale.abs().max() if isinstance(scale, Tensor) else scale) / 2


def _find_scale(snapshot: Snapshot, fake: fx.Node) -> Any:
    if fake.op == "call_module":
        return get_attribute(snapshot.module, f"{fake.target}.scale")
    return _find_value(snapshot, fake.args[1])


def _measure_change(snapshot: Snapshot, quantize: fx.Node, dequantize: fx.Node) -> float:
    """Return the largest change of a parameter by quantization; 0 for a computed value."""
    operand = quantize.all_input_nodes[0]
    if operand.op != "get_attr":
        return 0.0
    x, *rest = (_find_value(snapshot, a) for a in quantize.args)
    whole = quantize.target(x, *rest)  # type: ignore[operator]
    back = dequantize.target(whole, *rest)  # type: ignore[operator]
    return float((back.double() - x.double()).abs().max()) if x.numel() else 0.0


def _describe_parameters(snapshot: Snapshot, node: fx.Node) -> Parameters:
    given: list[Any] = [_find_value(snapshot, x) for x in (*node.args[1:], *node.kwargs.values())]
    if node.op == "call_module":
        held = snapshot.module.get_submodule(str(node.target)).state_dict()
        given += [held[name] for name in ("scale", "zero_point") if name in held]
    told = (x.tolist() if isinstance(x, Tensor) else x for x in given)
    return node.name, str(find_operator(node.target) or node.target), repr(list(told))


def _is_fake(snapshot: Snapshot, node: fx.Node) -> bool:
    """True if the node is a fake quantization: it rounds to a quantized value and back."""
    if node.op == "call_module":
        kind = type(snapshot.module.get_submodule(str(node.target)))
        return any(c.__name__ == "FakeQuantizeBase" for c in kind.__mro__)
    target = find_operator(node.target)
    return target is not None and "fake_quantize" in get_name(target) and count_results(target) == 1


def _find_quantize(node: fx.Node) -> fx.Node | None:
    """Return the quantize node that ``node`` dequantizes; None if it does not."""
    if not _is(node, "dequantize_per_"):
        return None
    source = node.args[0]
    if not isinstance(source, fx.Node) or not _is(source, "quantize_per_"):
        return None
    return source if list(source.args[1:]) == list(node.args[1:]) else None


def _is(node: fx.Node, name: str) -> bool:
    target = find_operator(node.target)
    return target is not None and target.namespace == "quantized_decomposed" and get_name(target).startswith(name)


def _find_value(snapshot: Snapshot, x: Any) -> Any:
    return get_attribute(snapshot.module, str(x.target)) if isinstance(x, fx.Node) else x
