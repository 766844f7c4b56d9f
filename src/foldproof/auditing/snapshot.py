"""Snapshots of a graph between two passes: copies of its nodes and, if they are written to later, of its tensors."""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import getitem
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof import operators
from foldproof.auditing.copies import Copies
from foldproof.auditing.reading import (
    apply_fused_activation,
    find_memory,
    read_into,
    read_ordered,
    read_written_element,
)
from foldproof.auditing.sight import Sight
from foldproof.auditing.signature import Signature, find_signature
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
    OpOverload,
    is_mkldnn,
    structures_of,
    tree_leaves,
)


@dataclass(frozen=True)
class Lowered:
    """Nodes that a pass replaced by a call of compiled code, kept as the reading of that call.

    ``places`` are the positions of the inputs of the ``region`` among the leaves of the call's arguments.
    """

    region: Region
    places: tuple[int, ...] = ()

    @staticmethod
    def cut(result: fx.Node, matched: Sequence[fx.Node]) -> Lowered:
        """Copy those of the ``matched`` nodes that ``result`` depends on."""
        inside = set(matched)
        return Lowered(cut_region(collect_dependencies([result], stop=lambda n: n not in inside), result))

    def place(self, places: Sequence[int]) -> Lowered:
        return replace(self, places=tuple(places))

    def put_into(self, graph: fx.Graph, arguments: Any) -> fx.Node:
        """Add the nodes to ``graph`` in place of the call with these arguments."""
        given = tree_leaves(arguments)
        *nodes, end = self.region.graph.nodes
        made = {node: given[place] for node, place in zip(nodes, self.places)}
        for node in nodes[len(self.places) :]:
            made[node] = _copy_node(graph, node, made)
        return made[end.args[0]]  # type: ignore[no-any-return]


class Snapshot:
    """The computation of a graph at one moment.

    Parameters that are inputs of the graph (by its ``signature``) become attributes of `module`. Its remaining
    placeholders are the user's inputs, sorted by ``order`` (by default in the order of the graph). Outputs that the
    signature writes back become writes. The nodes may be unsorted, as some passes leave them. Operators of one pipeline
    are read as the ATen operators that they stand for.

    `digest` is equal for graphs that agree node for node, with the same tensor objects. `effect` ignores the order of
    nodes and unused nodes as well. Both are comparable only between snapshots with the same ``copies``.
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
        self.part = ""
        """The half of a joint graph that it is: "forward" or "backward"; empty if it is none."""
        nodes = collect_dependencies(source.graph.nodes)  # sorted: each after its operands
        if order is not None:
            given = sorted((n for n in nodes if n.op == "placeholder"), key=order)
            nodes = given + [n for n in nodes if n.op != "placeholder"]
        self.sight = Sight(source)
        held = _find_attributes(source, nodes, signature)
        self.size = len(nodes)
        pytree = structures_of(source.graph)
        self.structure = None if pytree is None else f"{pytree.in_spec} → {pytree.out_spec}"
        """Structure of inputs and outputs, if the graph specifies it."""
        self.hung = hung_on(source)
        """Functions, such as hooks, that change the result of calling the module besides its graph."""
        self.writes_back = any(signature.written)
        """True if the last nodes are writes that only the signature specifies, and that no pass has seen."""
        # A delegate of ExecuTorch is read as the graph that it was made from.
        delegated = {
            name: take_snapshot(value.original_module, copies=self.copies)
            for name, value in held.items()
            if isinstance(getattr(value, "original_module", None), ExportedProgram)
        }
        self.graph = _copy_graph(source, nodes, signature, lowered or {}, delegated)
        used = {str(n.target) for n in self.graph.nodes if n.op in ("get_attr", "call_module")}
        self._held = {name: self._as_it_is(value) for name, value in held.items() if name in used}
        for name, seen in delegated.items():
            self._held |= {f"{name}.{inner}": value for inner, value in seen._held.items()}
        self.values: dict[fx.Node, str] = {}
        """Digest of each node's expression in the inputs: equal for equal expressions."""
        self.digest, self.effect, self.functional = self._digests()

    def still_shows(self, source: fx.GraphModule, signature: Signature, closely: bool) -> bool:
        """Return True if a graph and the contents of its attributes are as when this snapshot was taken.

        Without looking ``closely``, only writes that PyTorch counts are seen, and none through ``.data`` or NumPy.
        """
        if not self.sight.shows(Sight(source)):
            return False
        held = _find_attributes(source, source.graph.nodes, signature)
        return self._held.keys() <= held.keys() and all(
            (not closely and self.copies.knows(held[name], identity)) or self._as_it_is(held[name])[0] == identity
            for name, (identity, _) in self._held.items()
        )

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
        """Names of the nodes, in order."""
        return [n.name for n in self.graph.nodes]

    def identify(self, name: str) -> str:
        """Return the identity of an attribute: equal only for the same tensor or module with the same content."""
        return self._held[name][0]

    def label(self) -> LabelledGraph:
        """Return the graph with tensors and modules labelled by identity, and not by their content alone."""
        leaves = {n: self.values[n] for n in self.graph.nodes if n.op in ("placeholder", "get_attr")}
        called = {str(n.target) for n in self.graph.nodes if n.op == "call_module"}
        return LabelledGraph(self.graph, leaves, {name: self.identify(name) for name in called})

    def _as_it_is(self, value: Any) -> tuple[str, Any]:
        """Return the identity of an attribute, and a copy of its present state."""
        if isinstance(value, Tensor):
            if is_mkldnn(value):
                return self.copies.identify(value), value.to_dense()
            return self.copies.of(value)
        identity = describe(value, self.copies)
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
                what = f"{node.op} {self.identify(str(node.target))}"
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


def _find_attributes(source: fx.GraphModule, nodes: Iterable[fx.Node], signature: Signature) -> dict[str, Any]:
    """Return the attributes that nodes use, and the parameters among their inputs, by name."""
    held: dict[str, Any] = {}
    for node in nodes:
        if node.op == "placeholder" and node.name in signature.parameters:
            name, tensor = signature.parameters[node.name]
            held[name] = tensor
        elif node.op in ("get_attr", "call_module"):
            held[str(node.target)] = get_attribute(source, str(node.target))
    return held


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


def describe(x: Any, copies: Copies, inside: frozenset[int] = frozenset()) -> str:
    """Describe everything that a module's computation, or an argument, depends on: equal only if nothing differs."""
    if x is None or isinstance(x, _PLAIN):
        return repr(x)
    if isinstance(x, Tensor):
        return copies.of(x)[0]
    if id(x) in inside:
        return "itself"
    if isinstance(x, (fx.GraphModule, ExportedProgram)):
        return take_snapshot(x, copies=copies).digest

    def part(value: Any) -> str:
        return describe(value, copies, inside | {id(x)})

    if isinstance(x, nn.Module):
        return f"{identify_target(type(x))} {part(vars(x))}"
    if isinstance(x, Mapping):
        return repr([(part(k), part(v)) for k, v in x.items()])
    if isinstance(x, (list, tuple)):
        return f"{type(x).__name__} {[part(v) for v in x]}"
    if isinstance(x, (set, frozenset)):
        return repr(sorted(part(v) for v in x))
    known = copies.identify(x)
    if hasattr(x, "tobytes"):  # an array
        return f"{known} {x.tobytes()!r}"
    # Passes may write to the attributes that configure a module.
    return known if callable(x) or isinstance(x, ModuleType) else f"{known} {part(getattr(x, '__dict__', None))}"


def _copy_graph(
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
            graph.output(_write_back(graph, out, signature, made)).meta = dict(node.meta)
        elif node.op == "placeholder" and node.name in signature.parameters:
            made[node] = graph.create_node("get_attr", signature.parameters[node.name][0], name=node.name)
        elif target_name(node.target) == "executorch_call_delegate":
            delegate = str(node.args[0].target)  # type: ignore[union-attr]
            made[node] = _inline(graph, delegated[delegate], delegate, map_nodes(node.args[1:], made.__getitem__))
        elif node.target is getitem and isinstance(whole := map_nodes(node.args[0], made.__getitem__), (tuple, list)):
            made[node] = whole[node.args[1]]  # type: ignore[index]
        elif node.op == "call_module" and _observes(source, node):
            # An observer records its input and returns it unchanged.
            made[node] = graph.call_function(torch.ops.aten.clone.default, (made[node.all_input_nodes[0]],))
        elif target_name(node.target) == "with_effects" and isinstance(node.args[1], OpOverload):
            made[node] = _call_in_order(graph, node, made)
        elif target_name(node.target) == "_sink_tokens":
            made[node] = None  # the end of the order of calls with effects; nobody reads it
        elif id(node.target) in lowered:
            given = map_nodes((node.args, node.kwargs), made.__getitem__)
            made[node] = lowered[id(node.target)].put_into(graph, given)
        else:
            made[node] = new = _copy_node(graph, node, made)
            memory = find_memory(node)
            if memory is not None:
                made[memory] = new
            if node.op == "placeholder":
                new.args = ()  # no default values: every input is given
    for node in reversed(graph.nodes):
        # Unused parameters are no part of the function; nor are packed weights that the reading left out.
        if not node.users and (node.op == "get_attr" or target_name(node.target).startswith("mkl")):
            graph.erase_node(node)
    return graph


def _call_in_order(graph: fx.Graph, node: fx.Node, made: Mapping[fx.Node, Any]) -> tuple[Any, ...]:
    """Add the call of an operator with effects, and return its token and results: nodes run in the graph's order."""
    (token, operator, *args), kwargs = map_nodes((node.args, node.kwargs), made.__getitem__)
    call = graph.create_node("call_function", operator, tuple(args), dict(kwargs), name=node.name)
    call.meta = dict(node.meta)
    n = operators.count_results(operator)
    parts = [call] if n < 2 else [graph.call_function(getitem, (call, i)) for i in range(n)]
    return (token, *parts)


def _inline(graph: fx.Graph, inner: Snapshot, name: str, given: Sequence[Any]) -> Any:
    """Copy the nodes of ``inner`` into ``graph``, with its attributes below ``name``, and return its output."""
    made: dict[fx.Node, Any] = dict(zip(inner.placeholders, given))
    for node in inner.graph.nodes:
        if node.op == "output":
            return map_nodes(node.args[0], made.__getitem__)
        if node not in made:
            made[node] = graph.node_copy(node, made.__getitem__)
            if node.op in ("get_attr", "call_module"):
                made[node].target = f"{name}.{node.target}"
    raise AssertionError("a graph has an output")


def _write_back(graph: fx.Graph, out: Any, signature: Signature, made: Mapping[fx.Node, fx.Node]) -> Any:
    """Add the writes of the signature, and return the remaining outputs."""
    if not signature.written:
        return out
    inputs = {node.name: new for node, new in made.items() if node.op == "placeholder"}
    for value, place in zip(out, signature.written):
        if place is not None:
            graph.call_function(torch.ops.aten.copy_.default, (inputs[place], value))
    return tuple(value for value, place in zip(out, signature.written) if place is None)


def _observes(source: nn.Module, node: fx.Node) -> bool:
    """True if the node calls an observer (not a fake quantization) of torch.ao or torchao."""
    return any(
        c.__name__ in ("ObserverBase", "AffineQuantizedObserverBase") and "quantization" in c.__module__
        for c in type(get_attribute(source, str(node.target))).__mro__
    )


def _copy_node(graph: fx.Graph, node: fx.Node, made: Mapping[fx.Node, fx.Node]) -> fx.Node:
    args, kwargs = map_nodes((node.args, node.kwargs), made.__getitem__)
    element = read_written_element(node, args)
    if element is not None:
        return element
    new = read_into(graph, node, args, kwargs) or read_ordered(graph, node, args)
    if new is None:
        new = graph.node_copy(node, made.__getitem__)
    else:
        new.meta = dict(node.meta)  # keeps the source line
    return apply_fused_activation(graph, node, new)


def is_functional(node: fx.Node) -> bool:
    """True if the node certainly neither writes to memory nor draws random numbers."""
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
    """True if the node calls a normalization that updates statistics, which its schema does not show."""
    if node.op != "call_function":
        return False
    aten = find_operator(node.target)
    if aten is None:
        return is_norm_function(node.target) and not is_functional(node)
    return not {*list_updated_statistics(aten, bind_arguments(aten, node.args, node.kwargs))} <= {*list_written(aten)}


def take_snapshot(
    program: fx.GraphModule | ExportedProgram, owners: Sequence[ExportedProgram] = (), copies: Copies | None = None
) -> Snapshot:
    """Take a snapshot of a program; ``owners`` are programs whose parameters may be inputs of a bare graph."""
    if isinstance(program, ExportedProgram):
        return Snapshot(program.graph_module, find_signature(program), copies=copies)
    found = (find_signature(owner, program) for owner in owners)
    return Snapshot(program, next((s for s in found if s is not None), None), copies=copies)
