"""A graph as it was between two passes: a copy of its nodes, its tensors by reference."""

from __future__ import annotations

import copy
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import HigherOrderOperator, OpOverload, OpOverloadPacket
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves

from foldproof.auditing.reading import fused_activation, mapped, operator, read_into

Bound = Mapping[str, tuple[str, Tensor]]
"""Placeholders that are parameters: their names → (the parameter's name, its tensor)."""


@dataclass(frozen=True)
class Lowered:
    """Nodes that a pass replaced by a call of code below the graph, kept to read that call as what it stands for.

    ``inputs`` are the nodes that they read, ``places`` where these stand among the leaves of the call's arguments.
    """

    nodes: tuple[fx.Node, ...]
    result: fx.Node
    inputs: tuple[fx.Node, ...]
    places: tuple[int, ...] = ()

    @staticmethod
    def cut(result: fx.Node, matched: Sequence[fx.Node]) -> Lowered:
        """Copies of those of the ``matched`` nodes that ``result`` depends on."""
        inside = set(matched)
        needed: set[fx.Node] = set()
        stack = [result]
        while stack:
            node = stack.pop()
            if node in inside and node not in needed:
                needed.add(node)
                stack += node.all_input_nodes
        own = [n for n in sorted_nodes(result.graph) if n in needed]
        read = dict.fromkeys(n for node in own for n in node.all_input_nodes if n not in needed)
        graph = fx.Graph()
        made = {n: graph.placeholder(n.name) for n in read}
        for node in own:
            made[node] = graph.node_copy(node, made.__getitem__)
        return Lowered(tuple(made[n] for n in (*read, *own)), made[result], tuple(read))

    def placed(self, places: Sequence[int]) -> Lowered:
        return replace(self, places=tuple(places))

    def put_into(self, graph: fx.Graph, arguments: Any) -> fx.Node:
        """Write the nodes into ``graph``, where the call with these arguments stood."""
        given = tree_leaves(arguments)
        made = {node: given[place] for node, place in zip(self.nodes, self.places)}
        for node in self.nodes[len(self.places) :]:
            made[node] = _copied_node(graph, node, made)
        return made[self.result]  # type: ignore[no-any-return]


class Snapshot:
    """What a graph computes at one moment.

    Parameters that the graph is given as inputs (``bound``) become attributes of `module`, whose remaining placeholders
    are the user's inputs in the order of ``order`` (a sort key; as they stand by default). Nodes may be unsorted; some
    passes leave them so. Operators that only a pipeline knows are read as the ATen operators that they stand for.

    `digest` is equal for graphs that are node for node the same, with the very same tensors; `effect` also for those
    that only order their nodes differently or hold nodes that nobody reads.
    """

    def __init__(
        self,
        source: fx.GraphModule,
        bound: Bound | None = None,
        order: Callable[[fx.Node], Any] | None = None,
        lowered: Mapping[int, Lowered] | None = None,
    ) -> None:
        bound = bound or {}
        nodes = sorted_nodes(source.graph)
        if order is not None:
            given = sorted((n for n in nodes if n.op == "placeholder"), key=order)
            nodes = given + [n for n in nodes if n.op != "placeholder"]
        self._held: dict[str, Any] = {}
        self._identities: dict[str, str] = {}
        self._kept: list[Any] = []
        self._versions: list[tuple[str, Tensor, int]] = []
        for node in nodes:
            if node.op == "placeholder" and node.name in bound:
                self._hold(*bound[node.name])
            elif node.op in ("get_attr", "call_module"):
                self._hold(str(node.target), attribute(source, str(node.target)))
        self.size = len(nodes)
        self.graph = _copied(source, nodes, bound, lowered or {})
        used = {str(n.target) for n in self.graph.nodes if n.op in ("get_attr", "call_module")}
        self._held = {name: value for name, value in self._held.items() if name in used}
        self.values: dict[fx.Node, str] = {}
        """For each node a digest of what it computes from the inputs: equal for equal expressions."""
        self.digest, self.effect, self.functional = self._digests()

    @functools.cached_property
    def module(self) -> fx.GraphModule:
        """The graph as a module that runs: placeholders are inputs, parameters are attributes."""
        root = nn.Module()
        for name, value in self._held.items():
            _put(root, name, value)
        return Interpreted(root, self.graph)

    @property
    def overwritten(self) -> bool:
        """Whether one of its tensors was written to since: the snapshot is then no longer what it was."""
        return any(tensor._version != version for name, tensor, version in self._versions if name in self._held)

    @property
    def placeholders(self) -> list[fx.Node]:
        return [n for n in self.graph.nodes if n.op == "placeholder"]

    def identity(self, name: str) -> str:
        """Which tensor or module an attribute is: equal only for the very same one."""
        return self._identities[name]

    def _hold(self, name: str, value: Any) -> None:
        if name in self._held:
            return
        self._identities[name] = _identity(value)
        self._kept.append(value)  # what is known by its id has to live on
        delegated = getattr(value, "original_module", None)
        if isinstance(delegated, ExportedProgram):
            # What ExecuTorch hands to a backend is read as the graph that it was made of.
            value = snapshot_of(delegated).module
        if isinstance(value, nn.Module):
            tensors = [*value.parameters(), *value.buffers()]
            value = sharing_copy(value)  # a pass may change its attributes
        else:
            tensors = [value] if isinstance(value, Tensor) else []
        if isinstance(value, Tensor) and value.layout is torch._mkldnn:  # type: ignore[attr-defined]
            value = value.to_dense()
        self._held[name] = value
        self._versions += [(name, t, t._version) for t in tensors if not t.is_inference()]

    def _digests(self) -> tuple[str, str, bool]:
        whole = hashlib.sha256()
        place: dict[fx.Node, str] = {}
        effects: list[str] = []
        functional = True
        inputs = 0
        for i, node in enumerate(self.graph.nodes):
            place[node] = str(i)
            what = f"{node.op} {target_name(node.target)}"
            if node.op in ("get_attr", "call_module"):
                what = f"{node.op} {self.identity(str(node.target))}"
            elif node.op == "placeholder":
                what, inputs = f"input {inputs}", inputs + 1
            whole.update(f"{what} {arguments(node, place)}\n".encode())
            self.values[node] = hashlib.sha256(f"{what} {arguments(node, self.values)}".encode()).hexdigest()
            functional &= is_functional(node)
            if node.op == "output" or not is_functional(node):
                effects.append(self.values[node])
        return whole.hexdigest(), "|".join(effects), functional


def _identity(value: Any) -> str:
    if not isinstance(value, nn.Module):
        return f"{id(value)}"
    tensors = [id(t) for t in (*value.parameters(), *value.buffers())]
    return f"{type(value).__name__}({value.extra_repr()}) {tensors} {value.training}"


def _copied(source: nn.Module, nodes: Sequence[fx.Node], bound: Bound, lowered: Mapping[int, Lowered]) -> fx.Graph:
    graph = fx.Graph()
    made: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        if node.op == "output":
            graph.output(mapped(node.args[0], made.__getitem__)).meta = dict(node.meta)
        elif node.op == "placeholder" and node.name in bound:
            made[node] = graph.create_node("get_attr", bound[node.name][0], name=node.name)
        elif target_name(node.target) == "executorch_call_delegate":
            delegate, *given = mapped(node.args, made.__getitem__)
            made[node] = graph.create_node("call_module", delegate.target, tuple(given), name=node.name)
        elif node.op == "call_module" and _observes(source, node):
            # It notes what passes through, and hands it on as it is.
            made[node] = graph.call_function(torch.ops.aten.clone.default, (made[node.all_input_nodes[0]],))
        elif id(node.target) in lowered:
            given = mapped((node.args, node.kwargs), made.__getitem__)
            made[node] = lowered[id(node.target)].put_into(graph, given)
        else:
            made[node] = new = _copied_node(graph, node, made)
            if node.op == "placeholder":
                new.args = ()  # no default values: every input is given
    for node in reversed(graph.nodes):
        # Parameters that nobody reads are no part of the function; nor are packed weights that the reading left out.
        if not node.users and (node.op == "get_attr" or target_name(node.target).startswith("mkl")):
            graph.erase_node(node)
    return graph


def _observes(source: nn.Module, node: fx.Node) -> bool:
    """Whether a module is an observer (and no fake quantization), of torch.ao or torchao."""
    return any(
        c.__name__ in ("ObserverBase", "AffineQuantizedObserverBase") and "quantization" in c.__module__
        for c in type(attribute(source, str(node.target))).__mro__
    )


def _copied_node(graph: fx.Graph, node: fx.Node, made: Mapping[fx.Node, fx.Node]) -> fx.Node:
    args, kwargs = mapped((node.args, node.kwargs), made.__getitem__)
    new = read_into(graph, node, args, kwargs) or graph.node_copy(node, made.__getitem__)
    return fused_activation(graph, node, new)


class Interpreted(fx.GraphModule):
    """A graph module that is only interpreted: some graphs hold what can't be printed as code."""

    def recompile(self) -> Any:
        try:
            return super().recompile()
        except Exception:
            return None


def attribute(module: nn.Module, target: str) -> Any:
    """What a get_attr or call_module node refers to."""
    found: Any = module
    for part in target.split("."):
        found = getattr(found, part)
    return found


def _put(root: nn.Module, name: str, value: Any) -> None:
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    if isinstance(value, nn.Module):
        root.add_module(last, value)
    elif isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
        root.register_buffer(last, value)
    else:
        setattr(root, last, value)


def sorted_nodes(graph: fx.Graph) -> list[fx.Node]:
    """The nodes, each after those that it reads, and otherwise as they stand."""
    order: list[fx.Node] = []
    done: set[fx.Node] = set()
    for root in graph.nodes:
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if node in done:
                continue
            if ready:
                done.add(node)
                order.append(node)
                continue
            stack.append((node, True))
            stack.extend((n, False) for n in reversed(node.all_input_nodes) if n not in done)
    return order


def is_functional(node: fx.Node) -> bool:
    """Whether the node surely writes to nothing and draws nothing at random."""
    if node.op in ("placeholder", "get_attr", "output") or target_name(node.target).endswith("memory.alloc"):
        return True
    if node.op == "call_method":
        return not str(node.target).endswith("_")
    if node.op == "call_module":
        return False
    aten = operator(node.target)
    if aten is not None:
        if aten._schema.is_mutable or torch.Tag.nondeterministic_seeded in aten.tags:
            return False
        return _quiet(aten.overloadpacket.__name__, node)
    name = getattr(node.target, "__name__", "")
    module = getattr(node.target, "__module__", "") or ""
    if module == "_operator":
        return name not in _WRITING_OPERATORS
    # Functions of torch and torch.nn.functional say in their names or arguments that they write.
    return module.startswith("torch") and not name.endswith("_") and not _in_place(node) and _quiet(name, node)


_WRITING_OPERATORS = (
    {"setitem", "delitem"}
    | {
        f"i{name}"
        for name in ("add", "and", "concat", "floordiv", "lshift", "matmul", "mod", "mul", "or", "pow", "rshift", "sub")
    }
    | {"itruediv", "ixor"}
)


def _quiet(name: str, node: fx.Node) -> bool:
    """Whether an operator that may update statistics or draw random numbers, which no schema tells, does not."""
    flag = {"batch_norm": 5, "native_batch_norm": 5, "instance_norm": 5, "_batch_norm_impl_index": 5}.get(name)
    if "dropout" in name:
        flag = 2
    elif name.startswith(("rand", "bernoulli", "multinomial", "normal")):
        return False
    return flag is None or (len(node.args) > flag and node.args[flag] is False)


def _in_place(node: fx.Node) -> bool:
    if node.kwargs.get("out") is not None:
        return True
    try:
        given = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # functions written in C++ have no signature, and another name where they write
        return bool(node.kwargs.get("inplace"))
    return bool(given.arguments.get("inplace"))


def target_name(target: Any) -> str:
    if isinstance(target, (str, OpOverload, OpOverloadPacket, HigherOrderOperator)):
        return str(target)
    if isinstance(target, functools.partial):
        return f"partial {getattr(target.func, '__qualname__', target.func)} {id(target)}"
    name = getattr(target, "__qualname__", None)
    return f"{getattr(target, '__module__', '')}.{name}" if name else repr(target)


class _Named:
    """Stands for a node in the printed form of another's arguments."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"%{self.name}"


def arguments(node: fx.Node, names: Mapping[fx.Node, str]) -> str:
    def named(n: fx.Node) -> Any:
        return _Named(names[n])

    return repr((mapped(node.args, named), mapped(node.kwargs, named)))


def sharing_copy(x: Any) -> Any:
    """A deep copy of a program that shares its tensors with the original."""
    if isinstance(x, ExportedProgram):
        tensors = [*x.state_dict.values(), *x.constants.values()]
        if x.example_inputs is not None:
            tensors += tree_leaves(x.example_inputs)
    else:
        tensors = [t for m in x.modules() for t in m.__dict__.values()]
        tensors += [t for m in x.modules() for t in (*m._parameters.values(), *m._buffers.values())]
    return copy.deepcopy(x, {id(t): t for t in tensors if isinstance(t, Tensor)})


_LIFTED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def bindings(program: ExportedProgram, module: fx.GraphModule | None = None) -> dict[str, tuple[str, Tensor]] | None:
    """Which placeholders of ``module`` (the program's own graph by default) are which tensors of ``program``.

    By name or, as a graph that is traced anew has other names, by place; None if they can't be the program's inputs.
    """
    graph = (module or program.graph_module).graph
    names = [n.name for n in graph.nodes if n.op == "placeholder"]
    by_name = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    if all(name in by_name for name in names):
        specs = [by_name[name] for name in names]
    elif len(names) == len(program.graph_signature.input_specs):
        specs = list(program.graph_signature.input_specs)
    else:
        return None
    out = {}
    for name, spec in zip(names, specs):
        if spec.kind in _LIFTED and spec.target is not None:
            tensor = program.state_dict.get(spec.target, program.constants.get(spec.target))
            if isinstance(tensor, Tensor):
                out[name] = (spec.target, tensor)
    return out


def snapshot_of(program: fx.GraphModule | ExportedProgram, owners: Sequence[ExportedProgram] = ()) -> Snapshot:
    """A snapshot of a whole program; ``owners`` are programs whose parameters a bare graph may be given as inputs."""
    if isinstance(program, ExportedProgram):
        return Snapshot(program.graph_module, bindings(program))
    found = (bindings(owner, program) for owner in owners)
    return Snapshot(program, next((b for b in found if b is not None), None))
