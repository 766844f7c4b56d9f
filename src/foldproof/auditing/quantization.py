"""Quantization: an approximation on purpose, so it is a step with a bound, and not a difference."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from foldproof.auditing.snapshot import Snapshot, is_functional
from foldproof.comparison.inputs import redrawn
from foldproof.graph.interpreter import Interpreter
from foldproof.graph.module import InterpretedModule, get_attribute
from foldproof.log import log_caught
from foldproof.operators import count_results, find_operator, get_name
from foldproof.program import copied
from foldproof.program.state import deepcopied
from foldproof.thresholds import RANGE_INPUTS
from foldproof.torch_internals import tree_leaves
from foldproof.verdict import ApproximationStep

Parameters = tuple[Hashable, ...]
"""Name and arguments of a quantization."""
Steps = dict[Parameters, ApproximationStep]


@dataclass
class Measured:
    """The largest change by each quantization, by its node's name, and the outputs of the first run."""

    changes: dict[str, float] = field(default_factory=dict)
    outputs: list[Tensor] = field(default_factory=list)


def measure_quantization(snapshot: Snapshot, inputs: Sequence[Any]) -> Measured | None:
    """Run a graph on its inputs, and on others of the same elements; None if it can't be run by itself.

    A graph that may write to state runs on a copy.
    """
    measured = Measured()
    values: dict[fx.Node, Any] = {}

    def watch(node: fx.Node, out: Any) -> None:
        values[node] = out
        pair = _find_quantize(node)
        made = node if _is_fake(snapshot, node) else pair
        if made is not None and isinstance(out, Tensor) and out.numel():
            change = (out.double() - values[made.all_input_nodes[0]].double()).abs()
            measured.changes[made.name] = max(measured.changes.get(made.name, 0.0), float(change.max()))

    try:
        module = snapshot.module if snapshot.functional else deepcopied(snapshot.module)
        for seed in range(RANGE_INPUTS):
            given, _ = redrawn(inputs, {}, seed, integers=False) if seed else (tuple(inputs), {})
            out = Interpreter(module, watch).run(*copied(given), enable_io_processing=False)
            measured.outputs = measured.outputs or [t for t in tree_leaves(out) if isinstance(t, Tensor)]
            values.clear()
    except Exception as error:
        log_caught(error, "measuring a quantization")
        return None
    return measured


def remove_quantization(
    snapshot: Snapshot, changes: Mapping[str, float] | None = None
) -> tuple[Snapshot, Steps, Steps]:
    """Replace each dequantize(quantize(x)) of equal parameters by x.

    Returns:
        The graph, the pairs as steps, and the fake quantizations (which do both at once, and are replaced, too) as
        steps. The latter are separate, because their rounding is not new if the graph before had them.

    The ``bound`` of a step is half a quantization step, which holds if x lies in the range of the integers. If x was
    seen to leave it (``changes``, by the node's name), the bound is the largest change that was seen, and the step is
    named as one that cuts off. A parameter is known, so its bound is its real change, if that is larger.
    """
    changes = changes or {}
    steps: Steps = {}
    fakes: Steps = {}
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in snapshot.graph.nodes:
        if _is_fake(snapshot, node):
            made[node] = made[node.all_input_nodes[0]]
            fakes[_describe_parameters(snapshot, node)] = _make_step(
                snapshot, node, _halve_step(_find_scale(snapshot, node)), changes.get(node.name, 0.0)
            )
            continue
        pair = _find_quantize(node)
        if pair is None:
            made[node] = graph.node_copy(node, made.__getitem__)
            continue
        made[node] = made[pair.all_input_nodes[0]]
        bound = max(_halve_step(_find_value(snapshot, pair.args[1])), _measure_change(snapshot, pair, node))
        steps[_describe_parameters(snapshot, pair)] = _make_step(snapshot, pair, bound, changes.get(pair.name, 0.0))
    if len(made) == len(graph.nodes):
        return snapshot, {}, {}
    graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output") or not is_functional(n))
    module = InterpretedModule(snapshot.module, graph)
    return Snapshot(module, copies=snapshot.copies), steps, fakes


def _make_step(snapshot: Snapshot, node: fx.Node, bound: float, change: float) -> ApproximationStep:
    called = find_operator(node.target) or type(get_attribute(snapshot.module, str(node.target))).__name__
    if change > 1.01 * bound:  # the quotient and the product are rounded, too
        told = f"{node.name}: {called}, cutting off values beyond its range on the inputs tried"
        return ApproximationStep(told, change)
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
