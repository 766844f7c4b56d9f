"""Where the new constants of a graph come from: a value that the graph before computes, or the pass, run again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof.auditing.log import program_in
from foldproof.auditing.reading import mapped
from foldproof.auditing.snapshot import (
    Interpreted,
    Snapshot,
    arguments,
    attribute,
    is_functional,
    snapshot_of,
    target_name,
)
from foldproof.program import Leaf, as_program
from foldproof.proof.question import equal_content, match_leaves, tied

Derive = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def new_constants(before: fx.GraphModule, after: fx.GraphModule, *, twins: bool = False) -> dict[str, Tensor]:
    """Tensors that only *after* holds, by name.

    With ``twins`` also those of another name that equal one of *before*, which may be by chance: many are zero.
    """
    first, second = as_program(before).leaves, as_program(after).leaves
    matched, _ = match_leaves(first, second)
    known = {
        name
        for name, source in matched.items()
        if not twins or name == source or first[source].tensor.data_ptr() == second[name].tensor.data_ptr()
    }
    return {name: leaf.tensor for name, leaf in second.items() if name not in known}


def unfolded(before: Snapshot, after: Snapshot) -> Snapshot:
    """*after*, with constants that *before* computes from its parameters, bit for bit, read as those computations.

    So what a pass evaluated keeps its origin, and what is said of the two graphs holds for other parameters, too.
    """
    wanted = new_constants(before.module, after.module)
    nodes = _constant_nodes(before.graph)
    if not wanted or not nodes:
        return after
    with torch.no_grad():
        values = _evaluate(before.module, nodes)
    computed = [n for n in nodes if n.op != "get_attr" and isinstance(values.get(n), Tensor)]
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    origin: dict[fx.Node, fx.Node] = {}

    def origin_of(node: fx.Node) -> fx.Node:
        """A node of *before*, with all that it depends on, in the new graph."""
        for operand in node.all_input_nodes:
            origin_of(operand)
        if node not in origin:
            origin[node] = graph.node_copy(node, origin.__getitem__)
        return origin[node]

    for node in after.graph.nodes:
        found = None
        if node.op == "get_attr" and str(node.target) in wanted:
            tensor = wanted[str(node.target)]
            found = next((n for n in computed if equal_content(values[n], tensor)), None)
        made[node] = origin_of(found) if found is not None else graph.node_copy(node, made.__getitem__)
    if not origin:
        return after
    root = nn.Module()
    for source, copied in ((after.module, made), (before.module, origin)):
        for node in copied:
            if node.op in ("get_attr", "call_module"):
                fx.graph_module._copy_attr(source, root, str(node.target))
    return Snapshot(Interpreted(root, graph), copies=after.copies)


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


def _evaluate(module: fx.GraphModule, nodes: list[fx.Node]) -> dict[fx.Node, Any]:
    values: dict[fx.Node, Any] = {}
    for node in nodes:
        if node.op == "get_attr":
            values[node] = attribute(module, str(node.target))
        elif all(n in values for n in node.all_input_nodes):
            args, kwargs = mapped((node.args, dict(node.kwargs)), values.__getitem__)
            try:
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
            except Exception:
                continue  # it is no constant of *after*, then
    return values


def recomputed(run: Callable[[Any], Any], before: Any, wanted: Mapping[str, Tensor]) -> Derive | None:
    """For a pass that computes weights: run it again on other parameters, and read what it makes of them.

    None where it can't be run again, or does not make what is wanted.
    """
    program = as_program(before)

    def derive(leaves: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        # In the dtype that the pass was given: it may look at it, or mix it with others.
        def given(name: str, leaf: Leaf) -> Tensor:
            return (leaves[name].to(leaf.tensor.dtype) if name in leaves else leaf.tensor.detach()).clone()

        made = program.with_leaves(tied(program.leaves, given))  # which it may write to
        result = program_in(run(made), made)
        bare = isinstance(made, ExportedProgram) and not isinstance(result, ExportedProgram)
        leaves_made = as_program(made if bare else result).leaves  # a bare graph's parameters are its program's
        return {name: leaves_made[name].tensor for name in wanted if name in leaves_made}

    try:
        return derive if derive({}).keys() == wanted.keys() else None
    except Exception:
        return None


def repeats(run: Callable[[Any], Any], before: Any, after: Snapshot) -> bool:
    """Whether a pass that is run again does what it did: it may count its calls, or miss something on a copy."""
    program = as_program(before)
    try:
        made = program.with_leaves(tied(program.leaves, lambda name, leaf: leaf.tensor.detach().clone()))
        result = program_in(run(made), made)
        owners = [made] if isinstance(made, ExportedProgram) else []
        return _contents(snapshot_of(result, owners)) == _contents(after)
    except Exception:
        return False


def _contents(snapshot: Snapshot) -> list[str]:
    """All that a graph puts out and does, as expressions of its inputs and of the contents of its tensors."""
    values: dict[fx.Node, str] = {}
    out = []
    for i, node in enumerate(sorted(snapshot.graph.nodes, key=lambda n: n.op != "placeholder")):
        what = f"{node.op} {i if node.op == 'placeholder' else target_name(node.target)}"
        if node.op in ("get_attr", "call_module"):
            held = attribute(snapshot.module, str(node.target))
            state = [held] if isinstance(held, Tensor) else [*held.state_dict().values()]
            what = f"{node.op} {'' if isinstance(held, Tensor) else repr(held)} "
            what += " ".join(f"{t.dtype} {tuple(t.shape)} {_digest(t)}" for t in state)
        values[node] = hashlib.sha256(f"{what} {arguments(node, values)}".encode()).hexdigest()
        if node.op == "output" or not is_functional(node):
            out.append(values[node])
    return out


def _digest(x: Tensor) -> str:
    return hashlib.sha256(x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
