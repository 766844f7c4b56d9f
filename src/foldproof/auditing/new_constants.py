"""Origins of a graph's new constants: a computation of the graph before, or a second run of the pass.

A constant whose origin is known can follow the parameters, so a proof holds for all of them. Without an origin it is a
number, and a proof holds for the present parameters only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof.auditing.log import find_program
from foldproof.auditing.snapshot import (
    Snapshot,
    is_functional,
    take_snapshot,
)
from foldproof.digest import digest
from foldproof.graph.module import InterpretedModule, get_attribute, set_attribute
from foldproof.graph.region import collect_dependencies
from foldproof.graph.text import map_nodes, target_name, write_arguments
from foldproof.log import giving_up, log_caught
from foldproof.onnx_graph.reader import single
from foldproof.operators import find_operator, list_shared
from foldproof.program import Leaf, as_program
from foldproof.program.state import storage_key
from foldproof.proof.floats import redrawn_leaves
from foldproof.proof.obligation import equal_content, match_leaves, tied
from foldproof.thresholds import MAX_CONSTANT_ROUNDINGS
from foldproof.torch_internals import copy_attribute
from foldproof.verdict import ApproximationStep

Derive = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
Again = tuple[Callable[[Any], Any], Any]
"""A pass and the program to run it on again."""


def find_new_constants(before: fx.GraphModule, after: fx.GraphModule, *, twins: bool = False) -> dict[str, Tensor]:
    """Return the tensors that only *after* holds, by name.

    With ``twins``, include tensors that equal one of *before* under another name: they may be equal by chance, as many
    are zero.
    """
    first, second = as_program(before).leaves, as_program(after).leaves
    matched, _ = match_leaves(first, second)
    known = {
        name
        for name, source in matched.items()
        if not twins or name == source or first[source].tensor.data_ptr() == second[name].tensor.data_ptr()
    }
    return {name: leaf.tensor for name, leaf in second.items() if name not in known}


@dataclass(frozen=True)
class Unfolded:
    """A graph ``after`` a pass with constants replaced by the computations of the graph before that give them.

    ``surely`` is False if a constant may be equal by chance. ``steps`` name constants that are equal but for a few
    roundings, as sines are that another library computed.
    """

    after: Snapshot
    surely: bool = True
    steps: tuple[ApproximationStep, ...] = ()


def unfold_constants(before: Snapshot, after: Snapshot, again: Again | None = None) -> Unfolded:
    """Replace each constant of *after* that *before* computes from parameters by that computation.

    Constants are matched bit for bit, and by few roundings where no bits match. So the values that a pass evaluated
    keep their origin, and a verdict holds for other parameters, too. A pass that can be run ``again`` (see `recompute`)
    shows the origin by its results for other parameters.
    """
    wanted = find_new_constants(before.module, after.module)
    nodes = _list_constant_nodes(before, after)
    if not wanted or not nodes:
        return Unfolded(after)
    values = _evaluate(before.module, nodes)
    computed = [n for n in nodes if n.op != "get_attr" and isinstance(values.get(n), Tensor)]
    equal = {name: [n for n in computed if equal_content(values[n], tensor)] for name, tensor in wanted.items()}
    near = {name: [n for n in computed if _is_near(values[n], wanted[name])] for name in equal if not equal[name]}
    origins, surely = _find_origins(before, {name: found for name, found in (equal | near).items() if found}, again)
    if not origins:
        return Unfolded(after)
    steps = [_name_step(name, values[origins[name]], wanted[name]) for name in near if name in origins]
    graph, root = fx.Graph(), nn.Module()
    for node in after.graph.nodes:
        if node.op in ("get_attr", "call_module") and str(node.target) not in origins:
            copy_attribute(after.module, root, str(node.target))
    made: dict[fx.Node, fx.Node] = {}
    origin: dict[fx.Node, fx.Node] = {}

    def origin_of(node: fx.Node) -> fx.Node:
        """Copy a node of *before* and everything that it depends on into the new graph."""
        for operand in node.all_input_nodes:
            origin_of(operand)
        if node not in origin:
            origin[node] = graph.node_copy(node, origin.__getitem__)
            if node.op == "get_attr":  # under a new name, because *after* may use the old one for another tensor
                tensor = get_attribute(before.module, str(node.target))
                origin[node].target = f"origin_{len(origin)}"
                set_attribute(root, str(origin[node].target), tensor)
        return origin[node]

    for node in after.graph.nodes:
        found = origins.get(str(node.target)) if node.op == "get_attr" else None
        made[node] = origin_of(found) if found is not None else graph.node_copy(node, made.__getitem__)
    return Unfolded(Snapshot(InterpretedModule(root, graph), copies=after.copies), surely, tuple(steps))


def _is_near(a: Tensor, b: Tensor) -> bool:
    """Return True if two constants differ by a few roundings; elements near 0 by as much as those near 1 do."""
    if a.shape != b.shape or a.dtype != b.dtype or not a.is_floating_point() or not a.numel():
        return False
    one, other = a.detach().double(), b.detach().double()
    size = other.abs().clamp(min=min(1.0, float(other.abs().max())))
    return bool(((one - other).abs() <= MAX_CONSTANT_ROUNDINGS * torch.finfo(b.dtype).eps * size).all())


def _name_step(name: str, value: Tensor, held: Tensor) -> ApproximationStep:
    bound = float((value.detach().double() - held.detach().double()).abs().max())
    return ApproximationStep(f"the constant {name} is read as what the graph before computes", bound)


def _find_origins(
    before: Snapshot, equal: Mapping[str, list[fx.Node]], again: Again | None
) -> tuple[dict[str, fx.Node], bool]:
    """Choose the origin of each constant among the nodes of ``equal`` content; True as second result if all are sure.

    Values at redrawn parameters decide. If the pass, run ``again``, computes the constant at those, the origin has to
    match it. If not, all nodes have to agree with each other, and none may depend on a parameter that has a double.
    """
    if not equal:
        return {}, True
    leaves = as_program(before.module).leaves
    other = redrawn_leaves(leaves, torch.Generator().manual_seed(0), 1.0, 1.0)
    nodes = dict.fromkeys(n for found in equal.values() for n in found)
    elsewhere = _evaluate(before.module, collect_dependencies(nodes), other)
    derive = make_derive(*again, dict.fromkeys(equal, torch.empty(0))) if again is not None else None
    made: Mapping[str, Tensor] = {}
    with giving_up("running a pass on other parameters"):  # the pass may refuse them
        made = derive(other) if derive is not None else {}
    origins: dict[str, fx.Node] = {}
    surely = True
    for name, found in equal.items():
        if name in made:
            found = [n for n in found if n in elsewhere and _are_close(elsewhere[n], made[name])]
        elif any(_may_be_mistaken(before, n) for n in collect_dependencies(found)) or not all(
            n in elsewhere and _are_close(elsewhere[n], elsewhere[found[0]]) for n in found
        ):
            surely = False
        if found:
            origins[name] = found[0]
    return origins, surely


def _may_be_mistaken(before: Snapshot, node: fx.Node) -> bool:
    """True if another parameter may have the same content by chance, as all its elements are one number.

    This is common before training. A parameter of a single element always is one number, and counts only if another
    parameter equals it.
    """
    held = get_attribute(before.module, str(node.target)) if node.op == "get_attr" else None
    if not isinstance(held, Tensor) or not held.numel():
        return False
    if held.numel() == 1:
        leaves = as_program(before.module).leaves.values()
        return len({id(leaf.tensor) for leaf in leaves if equal_content(leaf.tensor, held)}) > 1
    return bool((held == held.flatten()[0]).all())


def _are_close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-30, equal_nan=True)


def _list_constant_nodes(before: Snapshot, after: Snapshot) -> list[fx.Node]:
    """List the nodes of *before* that depend only on parameters, which neither graph writes to."""
    written = _find_written(before) | _find_written(after)
    found: dict[fx.Node, None] = {}
    for node in before.graph.nodes:
        if node.op == "get_attr":
            held = get_attribute(before.module, str(node.target))
            constant = isinstance(held, Tensor) and storage_key(held) not in written
        else:
            operands = node.all_input_nodes
            made = bool(operands) or node.target is single  # others may be memory that nothing has written to
            constant = node.op == "call_function" and is_functional(node) and made
            constant = constant and all(n in found for n in operands)
        if constant:
            found[node] = None
    return list(found) if any(n.op == "call_function" for n in found) else []


def _find_written(snapshot: Snapshot) -> set[int]:
    """Return the memory (see `storage_key`) of parameters that the graph may write to, perhaps through views."""
    acting = [n for n in snapshot.graph.nodes if not is_functional(n)]
    pending = [operand for node in acting for operand in node.all_input_nodes]
    memory = set()
    seen: set[fx.Node] = set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op == "get_attr":
            held = get_attribute(snapshot.module, str(node.target))
            memory |= {storage_key(held)} if isinstance(held, Tensor) else set()
        aten = find_operator(node.target)
        if aten is None or list_shared(aten):
            pending += node.all_input_nodes
    return memory


def _evaluate(
    module: fx.GraphModule, nodes: Iterable[fx.Node], leaves: Mapping[str, Tensor] | None = None
) -> dict[fx.Node, Any]:
    """Compute the nodes from the module's parameters, or from ``leaves``; leave out those that fail."""
    values: dict[fx.Node, Any] = {}
    for node in nodes:
        if node.op == "get_attr":
            values[node] = (leaves or {}).get(str(node.target), get_attribute(module, str(node.target)))
        elif all(n in values for n in node.all_input_nodes):
            args, kwargs = map_nodes((node.args, dict(node.kwargs)), values.__getitem__)
            with giving_up(f"computing {node.name}"), torch.no_grad():  # a node that fails is no origin
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values


def make_derive(run: Callable[[Any], Any], before: Any, wanted: Mapping[str, Tensor]) -> Derive | None:
    """Return a function that runs a pass again on other parameters and reads the ``wanted`` constants from the result.

    None if the pass can't be run again, or does not make these constants.
    """
    program = as_program(before)

    def derive(leaves: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        # In the dtype that the pass was given: it may check the dtype, or mix it with others.
        def given(name: str, leaf: Leaf) -> Tensor:
            return (leaves[name].to(leaf.tensor.dtype) if name in leaves else leaf.tensor.detach()).clone()

        made = program.with_leaves(tied(program.leaves, given))  # clones, because the pass may write to them
        result = find_program(run(made), made)
        bare = isinstance(made, ExportedProgram) and not isinstance(result, ExportedProgram)
        leaves_made = as_program(made if bare else result).leaves  # the program holds the parameters of a bare graph
        return {name: leaves_made[name].tensor for name in wanted if name in leaves_made}

    try:
        return derive if derive({}).keys() == wanted.keys() else None
    except Exception as error:
        log_caught(error, "running a pass again")
        return None


def is_repeatable(run: Callable[[Any], Any], before: Any, after: Snapshot) -> bool:
    """True if a second run gives the same graph: a pass may count its calls, or miss attributes on a copy."""
    program = as_program(before)
    try:
        made = program.with_leaves(tied(program.leaves, lambda name, leaf: leaf.tensor.detach().clone()))
        result = find_program(run(made), made)
        owners = [made] if isinstance(made, ExportedProgram) else []
        return _digest_contents(take_snapshot(result, owners)) == _digest_contents(after)
    except Exception as error:
        log_caught(error, "running a pass again")
        return False


def _digest_contents(snapshot: Snapshot) -> list[str]:
    """List the outputs and effects of a graph, as digests of expressions in its inputs and its tensors' content."""
    values: dict[fx.Node, str] = {}
    out = []
    for i, node in enumerate(sorted(snapshot.graph.nodes, key=lambda n: n.op != "placeholder")):
        what = f"{node.op} {i if node.op == 'placeholder' else target_name(node.target)}"
        if node.op in ("get_attr", "call_module"):
            held = get_attribute(snapshot.module, str(node.target))
            state = [held] if isinstance(held, Tensor) else [*held.state_dict().values()]
            what = f"{node.op} {'' if isinstance(held, Tensor) else repr(held)} "
            what += " ".join(f"{t.dtype} {tuple(t.shape)} {digest([t])}" for t in state)
        values[node] = hashlib.sha256(f"{what} {write_arguments(node, values)}".encode()).hexdigest()
        if node.op == "output" or not is_functional(node):
            out.append(values[node])
    return out
