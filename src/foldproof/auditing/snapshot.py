"""A graph as it was between two passes: a copy of its nodes and, where they are written to since, of its tensors."""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import getitem
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof import operators
from foldproof.auditing.copies import Copies
from foldproof.auditing.reading import fused_activation, memory_of, read_into
from foldproof.auditing.signature import Signature, signature_of
from foldproof.graph.diff import LabelledGraph
from foldproof.graph.module import InterpretedModule, get_attribute, set_attribute
from foldproof.graph.region import Region, collect_dependencies, cut_region
from foldproof.graph.text import identify_target, map_nodes, target_name, write_arguments
from foldproof.operators import (
    bind_arguments,
    find_operator,
    is_functional_function,
    is_functional_method,
    is_functional_module,
    is_norm_function,
    list_updated_statistics,
    list_written,
)
from foldproof.program.mirror import hung_on
from foldproof.torch_internals import (
    HigherOrderOperator,
    is_mkldnn,
    structures_of,
    tree_leaves,
)


@dataclass(frozen=True)
class Lowered:
    """Nodes that a pass replaced by a call of code below the graph, kept to read that call as what it stands for.

    ``places`` say where the inputs of the ``region`` stand among the leaves of the call's arguments.
    """

    region: Region
    places: tuple[int, ...] = ()

    @staticmethod
    def cut(result: fx.Node, matched: Sequence[fx.Node]) -> Lowered:
        """Copies of those of the ``matched`` nodes that ``result`` depends on."""
        inside = set(matched)
        return Lowered(cut_region(collect_dependencies([result], stop=lambda n: n not in inside), result))

    def placed(self, places: Sequence[int]) -> Lowered:
        return replace(self, places=tuple(places))

    def put_into(self, graph: fx.Graph, arguments: Any) -> fx.Node:
        """Write the nodes into ``graph``, where the call with these arguments stood."""
        given = tree_leaves(arguments)
        *nodes, end = self.region.graph.nodes
        made = {node: given[place] for node, place in zip(nodes, self.places)}
        for node in nodes[len(self.places) :]:
            made[node] = _copied_node(graph, node, made)
        return made[end.args[0]]  # type: ignore[no-any-return]


class Snapshot:
    """What a graph computes at one moment.

    Parameters that the graph is given as inputs (by its ``signature``) become attributes of `module`, whose remaining
    placeholders are the user's inputs in the order of ``order`` (a sort key; as they stand by default). What the
    signature says is written back becomes a write. Nodes may be unsorted; some
    passes leave them so. Operators that only a pipeline knows are read as the ATen operators that they stand for.

    `digest` is equal for graphs that are node for node the same, with the very same tensors; `effect` also for those
    that only order their nodes differently or hold nodes that nobody reads. Both are for snapshots with one ``copies``.
    """

    def __init__(
        self,
        source: fx.GraphModule,
        signature: Signature | None = None,
        order: Callable[[fx.Node], Any] | None = None,
        lowered: Mapping[int, Lowered] | None = None,
        copies: Copies | None = None,
    ) -> None:
        signature = signature or Signature()
        self.copies = copies or Copies()
        nodes = collect_dependencies(source.graph.nodes)  # each after those that it reads
        if order is not None:
            given = sorted((n for n in nodes if n.op == "placeholder"), key=order)
            nodes = given + [n for n in nodes if n.op != "placeholder"]
        held: dict[str, Any] = {}
        for node in nodes:
            if node.op == "placeholder" and node.name in signature.parameters:
                name, tensor = signature.parameters[node.name]
                held[name] = tensor
            elif node.op in ("get_attr", "call_module"):
                held[str(node.target)] = get_attribute(source, str(node.target))
        self.size = len(nodes)
        pytree = structures_of(source.graph)
        self.structure = None if pytree is None else f"{pytree.in_spec} → {pytree.out_spec}"
        """How inputs are taken apart and outputs put together, where the graph says it."""
        self.hung = hung_on(source)
        """Functions that change what a call of the module gives, whatever its graph says."""
        self.writes_back = any(signature.written)
        """Whether its last nodes write what only a signature says, so that no pass was given them."""
        # What ExecuTorch hands to a backend is read as the graph that it was made of.
        delegated = {
            name: snapshot_of(value.original_module, copies=self.copies)
            for name, value in held.items()
            if isinstance(getattr(value, "original_module", None), ExportedProgram)
        }
        self.graph = _copied(source, nodes, signature, lowered or {}, delegated)
        used = {str(n.target) for n in self.graph.nodes if n.op in ("get_attr", "call_module")}
        self._held = {name: self._as_it_is(value) for name, value in held.items() if name in used}
        for name, seen in delegated.items():
            self._held |= {f"{name}.{inner}": value for inner, value in seen._held.items()}
        self.values: dict[fx.Node, str] = {}
        """For each node a digest of what it computes from the inputs: equal for equal expressions."""
        self.digest, self.effect, self.functional = self._digests()

    @functools.cached_property
    def module(self) -> fx.GraphModule:
        """The graph as a module that runs: placeholders are inputs, parameters are attributes."""
        root = nn.Module()
        for name, (_, value) in self._held.items():
            set_attribute(root, name, value)
        return InterpretedModule(root, self.graph)

    @property
    def placeholders(self) -> list[fx.Node]:
        return [n for n in self.graph.nodes if n.op == "placeholder"]

    @functools.cached_property
    def names(self) -> list[str]:
        """The names of the nodes, in order."""
        return [n.name for n in self.graph.nodes]

    def identity(self, name: str) -> str:
        """Which tensor or module an attribute is: equal only for the very same one with the same content."""
        return self._held[name][0]

    def labelled(self) -> LabelledGraph:
        """The graph with tensors and modules known by themselves, and not by their content alone."""
        leaves = {n: self.values[n] for n in self.graph.nodes if n.op in ("placeholder", "get_attr")}
        called = {str(n.target) for n in self.graph.nodes if n.op == "call_module"}
        return LabelledGraph(self.graph, leaves, {name: self.identity(name) for name in called})

    def _as_it_is(self, value: Any) -> tuple[str, Any]:
        """What an attribute is: its identity, and a copy that stays as it is now."""
        if isinstance(value, Tensor):
            if is_mkldnn(value):
                return self.copies.known(value), value.to_dense()
            return self.copies.of(value)
        identity = described(value, self.copies)
        return identity, self.copies.module(identity, value) if isinstance(value, nn.Module) else value

    def _digests(self) -> tuple[str, str, bool]:
        whole = hashlib.sha256(f"{self.structure} {[id(x) for x in self.hung]}\n".encode())
        place: dict[fx.Node, str] = {}
        effects: list[str] = []
        functional = True
        inputs = 0
        for i, node in enumerate(self.graph.nodes):
            place[node] = str(i)
            what = f"{node.op} {identify_target(node.target)}"
            if node.op in ("get_attr", "call_module"):
                what = f"{node.op} {self.identity(str(node.target))}"
            elif node.op == "placeholder":
                what, inputs = f"input {inputs}", inputs + 1
            whole.update(f"{what} {write_arguments(node, place)}\n".encode())
            self.values[node] = hashlib.sha256(f"{what} {write_arguments(node, self.values)}".encode()).hexdigest()
            module = self._held[str(node.target)][1] if node.op == "call_module" else None
            quiet = is_functional(node) or is_functional_module(module)
            functional &= quiet
            if node.op == "output" or not quiet:
                effects.append(self.values[node])
        return whole.hexdigest(), "|".join(effects), functional


_PLAIN = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    enum.Enum,
)


def described(x: Any, copies: Copies, inside: frozenset[int] = frozenset()) -> str:
    """All that decides what a module computes, or an argument says: equal only where nothing differs."""
    if x is None or isinstance(x, _PLAIN):
        return repr(x)
    if isinstance(x, Tensor):
        return copies.of(x)[0]
    if id(x) in inside:
        return "itself"
    if isinstance(x, (fx.GraphModule, ExportedProgram)):
        return snapshot_of(x, copies=copies).digest

    def part(value: Any) -> str:
        return described(value, copies, inside | {id(x)})

    if isinstance(x, nn.Module):
        return f"{identify_target(type(x))} {part(vars(x))}"
    if isinstance(x, Mapping):
        return repr([(part(k), part(v)) for k, v in x.items()])
    if isinstance(x, (list, tuple)):
        return f"{type(x).__name__} {[part(v) for v in x]}"
    if isinstance(x, (set, frozenset)):
        return repr(sorted(part(v) for v in x))
    known = copies.known(x)
    if hasattr(x, "tobytes"):  # an array
        return f"{known} {x.tobytes()!r}"
    # Passes may write to what a module is configured by.
    return known if callable(x) or isinstance(x, ModuleType) else f"{known} {part(getattr(x, '__dict__', None))}"


def _copied(
    source: nn.Module,
    nodes: Sequence[fx.Node],
    signature: Signature,
    lowered: Mapping[int, Lowered],
    delegated: Mapping[str, Snapshot],
) -> fx.Graph:
    graph = fx.Graph()
    made: dict[fx.Node, Any] = {}
    for node in nodes:
        if node.op == "output":
            out = map_nodes(node.args[0], made.__getitem__)
            graph.output(_written_back(graph, out, signature, made)).meta = dict(node.meta)
        elif node.op == "placeholder" and node.name in signature.parameters:
            made[node] = graph.create_node("get_attr", signature.parameters[node.name][0], name=node.name)
        elif target_name(node.target) == "executorch_call_delegate":
            delegate = str(node.args[0].target)  # type: ignore[union-attr]
            made[node] = _inlined(graph, delegated[delegate], delegate, map_nodes(node.args[1:], made.__getitem__))
        elif node.target is getitem and isinstance(whole := map_nodes(node.args[0], made.__getitem__), (tuple, list)):
            made[node] = whole[node.args[1]]  # type: ignore[index]
        elif node.op == "call_module" and _observes(source, node):
            # It notes what passes through, and hands it on as it is.
            made[node] = graph.call_function(torch.ops.aten.clone.default, (made[node.all_input_nodes[0]],))
        elif id(node.target) in lowered:
            given = map_nodes((node.args, node.kwargs), made.__getitem__)
            made[node] = lowered[id(node.target)].put_into(graph, given)
        else:
            made[node] = new = _copied_node(graph, node, made)
            memory = memory_of(node)
            if memory is not None:
                made[memory] = new
            if node.op == "placeholder":
                new.args = ()  # no default values: every input is given
    for node in reversed(graph.nodes):
        # Parameters that nobody reads are no part of the function; nor are packed weights that the reading left out.
        if not node.users and (node.op == "get_attr" or target_name(node.target).startswith("mkl")):
            graph.erase_node(node)
    return graph


def _inlined(graph: fx.Graph, inner: Snapshot, name: str, given: Sequence[Any]) -> Any:
    """Write the nodes of ``inner``, whose attributes are below ``name`` here, into ``graph``; give what it puts out."""
    made: dict[fx.Node, Any] = dict(zip(inner.placeholders, given))
    for node in inner.graph.nodes:
        if node.op == "output":
            return map_nodes(node.args[0], made.__getitem__)
        if node not in made:
            made[node] = graph.node_copy(node, made.__getitem__)
            if node.op in ("get_attr", "call_module"):
                made[node].target = f"{name}.{node.target}"
    raise AssertionError("a graph has an output")


def _written_back(graph: fx.Graph, out: Any, signature: Signature, made: Mapping[fx.Node, fx.Node]) -> Any:
    """Writes what the signature says, and gives the outputs that are left."""
    if not signature.written:
        return out
    inputs = {node.name: new for node, new in made.items() if node.op == "placeholder"}
    for value, place in zip(out, signature.written):
        if place is not None:
            graph.call_function(torch.ops.aten.copy_.default, (inputs[place], value))
    return tuple(value for value, place in zip(out, signature.written) if place is None)


def _observes(source: nn.Module, node: fx.Node) -> bool:
    """Whether a module is an observer (and no fake quantization), of torch.ao or torchao."""
    return any(
        c.__name__ in ("ObserverBase", "AffineQuantizedObserverBase") and "quantization" in c.__module__
        for c in type(get_attribute(source, str(node.target))).__mro__
    )


def _copied_node(graph: fx.Graph, node: fx.Node, made: Mapping[fx.Node, fx.Node]) -> fx.Node:
    args, kwargs = map_nodes((node.args, node.kwargs), made.__getitem__)
    new = read_into(graph, node, args, kwargs)
    if new is None:
        new = graph.node_copy(node, made.__getitem__)
    else:
        new.meta = dict(node.meta)  # it comes from the same line
    return fused_activation(graph, node, new)


def is_functional(node: fx.Node) -> bool:
    """Whether the node surely writes to nothing and draws nothing at random."""
    if node.op in ("placeholder", "get_attr", "output") or target_name(node.target).endswith("memory.alloc"):
        return True
    if node.op == "call_module" or isinstance(node.target, HigherOrderOperator):
        return False
    if node.op == "call_method":
        return is_functional_method(str(node.target))
    aten = find_operator(node.target)
    if aten is not None:
        return operators.is_functional(aten, bind_arguments(aten, node.args, node.kwargs))
    assert callable(node.target)
    return is_functional_function(node.target, node.args, node.kwargs)


def updates_statistics(node: fx.Node) -> bool:
    """Whether a call of an operator or function is a normalization that updates statistics, which no schema says."""
    if node.op != "call_function":
        return False
    aten = find_operator(node.target)
    if aten is None:
        return is_norm_function(node.target) and not is_functional(node)
    return not {*list_updated_statistics(aten, bind_arguments(aten, node.args, node.kwargs))} <= {*list_written(aten)}


def snapshot_of(
    program: fx.GraphModule | ExportedProgram, owners: Sequence[ExportedProgram] = (), copies: Copies | None = None
) -> Snapshot:
    """A snapshot of a whole program; ``owners`` are programs whose parameters a bare graph may be given as inputs."""
    if isinstance(program, ExportedProgram):
        return Snapshot(program.graph_module, signature_of(program), copies=copies)
    found = (signature_of(owner, program) for owner in owners)
    return Snapshot(program, next((s for s in found if s is not None), None), copies=copies)
