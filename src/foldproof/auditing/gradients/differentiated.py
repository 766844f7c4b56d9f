"""Dynamo's graph with its gradients, as a program with the inputs and results of the joint graph.

The gradients are those of PyTorch's autograd, which runs while the program runs. Shadows sit below it, so that a proof
follows it operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.auditing.loops import Unreadable
from foldproof.auditing.snapshot import Snapshot
from foldproof.graph.module import InterpretedModule, get_attribute, set_attribute
from foldproof.torch_internals import tree_leaves

Leaf = int | str
"""The place of an input, or the name of a parameter or buffer."""


@dataclass(frozen=True)
class Result:
    """One result of a joint graph: an output by its place, or the gradient or the new value of a leaf."""

    kind: str
    of: Leaf


@dataclass(frozen=True)
class Plan:
    """The inputs and results of a joint graph, in terms of the graph that it differentiates.

    ``seeds`` are the places of the outputs that have cotangents, in the order of these.
    """

    inputs: int
    seeds: Sequence[int]
    results: Sequence[Result | None]

    def differentiate(self, forward: Snapshot, like: Snapshot) -> Snapshot:
        """Return ``forward`` with its gradients; ``like`` is the joint graph, whose inputs it gets."""
        root, graph = nn.Module(), fx.Graph()
        inner, names = _lift(forward)
        given = []
        for node in like.placeholders:
            given.append(graph.placeholder(node.name))
            given[-1].meta = dict(node.meta)
        held = []
        for name in names:
            set_attribute(root, name, get_attribute(forward.module, name))
            held.append(graph.get_attr(name))
        call = graph.call_function(Differentiated(inner, names, self), (*given, *held))
        graph.output(tuple(graph.call_function(getitem, (call, i)) for i in range(len(self.results))))
        made = Snapshot(InterpretedModule(root, graph), copies=forward.copies)
        made.size = forward.size
        return made


class Differentiated:
    """A forward graph and its gradients: (inputs, cotangents, parameters and buffers) → the results of a plan.

    ``names`` are those of its parameters and buffers, which follow the inputs.
    """

    __name__ = "differentiate"

    def __init__(self, graph: nn.Module, names: Sequence[str], plan: Plan) -> None:
        self._graph, self._names, self._plan = graph, names, plan
        self._leaves = [r.of for r in plan.results if r is not None and r.kind == "gradient"]

    def __call__(self, *given: Any) -> tuple[Any, ...]:
        n, m = self._plan.inputs, self._plan.inputs + len(self._plan.seeds)
        tensors: dict[Leaf, Any] = dict(enumerate(given[:n])) | dict(zip(self._names, given[m:]))
        with torch.enable_grad():
            leaves = {of: tensors[of].detach().requires_grad_() for of in self._leaves}
            tensors |= leaves
            outputs = tree_leaves(self._graph(*tensors.values()))
            pairs = [(outputs[i], c) for i, c in zip(self._plan.seeds, given[n:m]) if outputs[i].requires_grad]
            gradients = differentiate([x for x, _ in pairs], [*leaves.values()], [c for _, c in pairs])
        found: Mapping[str, Mapping[Leaf, Any]] = {
            "output": dict(enumerate(outputs)),
            "gradient": dict(zip(leaves, gradients)),
            "written": tensors,
        }
        picked = [None if r is None else found[r.kind][r.of] for r in self._plan.results]
        return tuple(x.detach() if isinstance(x, Tensor) else x for x in picked)


def _lift(forward: Snapshot) -> tuple[nn.Module, list[str]]:
    """Return the graph with its parameters and buffers as inputs after the others, and their names."""
    root, graph = nn.Module(), fx.Graph()
    nodes = list(forward.graph.nodes)
    made: dict[fx.Node, fx.Node] = {n: graph.placeholder(n.name) for n in nodes if n.op == "placeholder"}
    lifted: dict[str, fx.Node] = {}
    for node in nodes:
        if node.op in ("get_attr", "call_module"):
            value = get_attribute(forward.module, str(node.target))
            if isinstance(value, Tensor):
                lifted.setdefault(str(node.target), node)
            else:
                set_attribute(root, str(node.target), value)
    inputs = {name: graph.placeholder(node.name) for name, node in lifted.items()}
    for node in nodes:
        if node.op == "get_attr" and str(node.target) in inputs:
            made[node] = inputs[str(node.target)]
        elif node not in made:
            made[node] = graph.node_copy(node, made.__getitem__)
    return InterpretedModule(root, graph), list(inputs)


def differentiate(
    outputs: Sequence[Tensor], leaves: Sequence[Tensor], cotangents: Sequence[Tensor]
) -> list[Tensor | None]:
    """Return the gradients of leaves, None for those that no output depends on."""
    if not outputs or not leaves:
        return [None] * len(leaves)
    return [*torch.autograd.grad(list(outputs), list(leaves), list(cotangents), allow_unused=True)]


def read_plan(
    joint: fx.GraphModule, cotangents: Sequence[fx.Node], find: Callable[[Any], Leaf | None], inputs: int
) -> Plan:
    """Read what the inputs and results of a joint graph are.

    Args:
        joint: a graph of AOTAutograd, which describes its inputs and outputs.
        cotangents: those of its inputs.
        find: a function from AOTAutograd's description of an input to the leaf of Dynamo's graph.
        inputs: the number of inputs of Dynamo's graph, without parameters.

    Raises:
        Unreadable: an input or a result has no reading.
    """
    seeds = []
    for node in cotangents:
        of = node.meta["desc"].output
        if type(of).__name__ != "PlainAOTOutput":
            raise Unreadable(f"no reading of the cotangent of {of}")
        seeds.append(of.idx)
    end = next(n for n in joint.graph.nodes if n.op == "output")
    results: list[Result | None] = []
    for told in end.meta["desc"]:
        kind = type(told).__name__
        if told is None:
            results.append(None)
        elif kind == "PlainAOTOutput":
            results.append(Result("output", told.idx))
        elif kind in _OF_INPUTS:
            leaf = find(getattr(told, _OF_INPUTS[kind][1]))
            if leaf is None:
                raise Unreadable(f"no reading of the result {told}")
            results.append(Result(_OF_INPUTS[kind][0], leaf))
        else:
            raise Unreadable(f"no reading of the result {told}")
    return Plan(inputs, tuple(seeds), tuple(results))


_OF_INPUTS = {"GradAOTOutput": ("gradient", "grad_of"), "InputMutationAOTOutput": ("written", "mutated_input")}


def list_cotangents(joint: fx.GraphModule) -> list[fx.Node]:
    """Return the inputs of a graph that are cotangents."""
    return [
        n for n in joint.graph.nodes if n.op == "placeholder" and type(n.meta.get("desc")).__name__ == "TangentAOTInput"
    ]
