"""Where the new constants of a graph come from: a value that the graph before computes, or the pass, run again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof.auditing.log import Rerun
from foldproof.auditing.snapshot import Snapshot, is_functional
from foldproof.program import as_program
from foldproof.proof.question import equal_content, match_leaves

Derive = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def new_constants(before: fx.GraphModule, after: fx.GraphModule) -> dict[str, Tensor]:
    """Floating-point tensors that only *after* holds, by name."""
    first, second = as_program(before).leaves, as_program(after).leaves
    matched, _ = match_leaves(first, second)
    return {
        name: leaf.tensor
        for name, leaf in second.items()
        if name not in matched and leaf.tensor.dtype.is_floating_point
    }


def folded(before: Snapshot, wanted: Mapping[str, Tensor]) -> Derive | None:
    """For a pass that evaluates constant parts of a graph: new constants are values that *before* computes, bit for bit.

    None where one of ``wanted`` is no such value.
    """
    nodes = _constant_nodes(before.graph)
    if not nodes:
        return None
    own = {name: leaf.tensor for name, leaf in as_program(before.module).leaves.items()}
    with torch.no_grad():
        values = _evaluate(nodes, own)
    source: dict[str, fx.Node] = {}
    for name, tensor in wanted.items():
        candidates = (n for n, v in values.items() if n.op != "get_attr" and isinstance(v, Tensor))
        found = next((n for n in candidates if equal_content(values[n], tensor)), None)
        if found is None:
            return None
        source[name] = found

    def derive(leaves: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        computed = _evaluate(nodes, {name: leaves.get(name, tensor) for name, tensor in own.items()})
        return {name: computed[node] for name, node in source.items()}

    return derive


def _constant_nodes(graph: fx.Graph) -> list[fx.Node]:
    """The nodes that depend on nothing but parameters."""
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        if node.op == "get_attr" or (
            node.op == "call_function"
            and is_functional(node)
            and node.all_input_nodes
            and all(n in found for n in node.all_input_nodes)
        ):
            found[node] = None
    return list(found) if any(n.op == "call_function" for n in found) else []


def _evaluate(nodes: list[fx.Node], leaves: Mapping[str, Tensor]) -> dict[fx.Node, Any]:
    values: dict[fx.Node, Any] = {}
    for node in nodes:
        if node.op == "get_attr":
            if str(node.target) in leaves:
                values[node] = leaves[str(node.target)]
            continue
        if not all(n in values for n in node.all_input_nodes):
            continue
        args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
        values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values


def recomputed(rerun: Rerun, wanted: Mapping[str, Tensor]) -> Derive:
    """For a pass that computes weights: run it again on other parameters, and read what it makes of them."""
    program = as_program(rerun.program)

    def derive(leaves: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        # In the dtype that the pass was given: it may look at it, or mix it with others.
        given = {
            name: leaves[name].to(leaf.tensor.dtype) if name in leaves else leaf.tensor
            for name, leaf in program.leaves.items()
        }
        copy = program.with_leaves(given)
        result = rerun.run(copy)
        made = as_program(result if isinstance(result, (nn.Module, ExportedProgram)) else copy).leaves
        return {name: made[name].tensor for name in wanted if name in made}

    return derive
