"""Quantization is an approximation on purpose: a step with a bound, and no difference."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor, fx

from foldproof.auditing.snapshot import Snapshot, is_functional
from foldproof.graph.module import InterpretedModule, get_attribute
from foldproof.operators import count_results, find_operator, get_name
from foldproof.verdict import ApproximationStep

Parameters = tuple[Hashable, ...]
"""A quantization's name and all that it is made with."""
Steps = dict[Parameters, ApproximationStep]


def unquantized(snapshot: Snapshot) -> tuple[Snapshot, Steps, Steps]:
    """The graph with each dequantize(quantize(x)) of equal parameters read as x; and these pairs, each as a step.

    So is a fake quantization, which does both at once; that it rounds is nothing new where it stood before. These come
    last.

    ``bound`` is half a quantization step, which holds where x lies in the range that the integers cover. Whether
    parameters do is known: theirs is how far they really move, where that is more.
    """
    steps: Steps = {}
    fakes: Steps = {}
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in snapshot.graph.nodes:
        if _fake(snapshot, node):
            made[node] = made[node.all_input_nodes[0]]
            fakes[_parameters(snapshot, node)] = _step(snapshot, node, _half_a_step(_scale(snapshot, node)))
            continue
        pair = _pair(node)
        if pair is None:
            made[node] = graph.node_copy(node, made.__getitem__)
            continue
        made[node] = made[pair.all_input_nodes[0]]
        bound = max(_half_a_step(_value(snapshot, pair.args[1])), _moved(snapshot, pair, node))
        steps[_parameters(snapshot, pair)] = _step(snapshot, pair, bound)
    if len(made) == len(graph.nodes):
        return snapshot, {}, {}
    graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output") or not is_functional(n))
    module = InterpretedModule(snapshot.module, graph)
    return Snapshot(module, copies=snapshot.copies), steps, fakes


def _step(snapshot: Snapshot, node: fx.Node, bound: float) -> ApproximationStep:
    called = find_operator(node.target) or type(get_attribute(snapshot.module, str(node.target))).__name__
    return ApproximationStep(f"{node.name}: {called}, within its range", bound)


def _half_a_step(scale: Any) -> float:
    return float(scale.abs().max() if isinstance(scale, Tensor) else scale) / 2


def _scale(snapshot: Snapshot, fake: fx.Node) -> Any:
    if fake.op == "call_module":
        return get_attribute(snapshot.module, f"{fake.target}.scale")
    return _value(snapshot, fake.args[1])


def _moved(snapshot: Snapshot, quantize: fx.Node, dequantize: fx.Node) -> float:
    """How far a parameter is moved; 0 for what is computed."""
    operand = quantize.all_input_nodes[0]
    if operand.op != "get_attr":
        return 0.0
    x, *rest = (_value(snapshot, a) for a in quantize.args)
    whole = quantize.target(x, *rest)  # type: ignore[operator]
    back = dequantize.target(whole, *rest)  # type: ignore[operator]
    return float((back.double() - x.double()).abs().max()) if x.numel() else 0.0


def _parameters(snapshot: Snapshot, node: fx.Node) -> Parameters:
    given: list[Any] = [_value(snapshot, x) for x in (*node.args[1:], *node.kwargs.values())]
    if node.op == "call_module":
        held = snapshot.module.get_submodule(str(node.target)).state_dict()
        given += [held[name] for name in ("scale", "zero_point") if name in held]
    told = (x.tolist() if isinstance(x, Tensor) else x for x in given)
    return node.name, str(find_operator(node.target) or node.target), repr(list(told))


def _fake(snapshot: Snapshot, node: fx.Node) -> bool:
    """Whether a node rounds to a quantized value and back at once."""
    if node.op == "call_module":
        kind = type(snapshot.module.get_submodule(str(node.target)))
        return any(c.__name__ == "FakeQuantizeBase" for c in kind.__mro__)
    target = find_operator(node.target)
    return target is not None and "fake_quantize" in get_name(target) and count_results(target) == 1


def _pair(node: fx.Node) -> fx.Node | None:
    """The quantize node that ``node`` undoes, if it does."""
    if not _is(node, "dequantize_per_"):
        return None
    source = node.args[0]
    if not isinstance(source, fx.Node) or not _is(source, "quantize_per_"):
        return None
    return source if list(source.args[1:]) == list(node.args[1:]) else None


def _is(node: fx.Node, name: str) -> bool:
    target = find_operator(node.target)
    return target is not None and target.namespace == "quantized_decomposed" and get_name(target).startswith(name)


def _value(snapshot: Snapshot, x: Any) -> Any:
    return get_attribute(snapshot.module, str(x.target)) if isinstance(x, fx.Node) else x
