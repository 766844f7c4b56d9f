"""The program that is rewritten, in either form: where its constants are, and how new ones come in.

A `GraphModule` holds them as attributes that get_attr nodes read; an `ExportedProgram` in dictionaries, and its
signature says which placeholder is which.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Graph, GraphModule, Node

from foldproof.fusion.nodes import written

_KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


class Host(Protocol):
    """A program that can be changed in place."""

    graph: Graph

    def constants(self) -> dict[Node, str]:
        """The nodes that stand for tensors which running the program does not change, with their names."""

    def tensors(self) -> Mapping[str, Tensor]:
        """All tensors that the program owns, by name."""

    def add(self, base: str, tensor: Tensor) -> tuple[str, Node]:
        """A new buffer, named after ``base``, and the node that reads it."""

    def finish(self) -> None:
        """Drop what nothing reads any more, and make the program runnable."""


def host_of(program: GraphModule | ExportedProgram) -> Host:
    return ProgramHost(program) if isinstance(program, ExportedProgram) else ModuleHost(program)


class ModuleHost:
    """A GraphModule."""

    def __init__(self, module: GraphModule) -> None:
        self.module, self.graph = module, module.graph

    def constants(self) -> dict[Node, str]:
        changed = {str(node.target) for node in written(self.graph, self.module) if node.op == "get_attr"}
        held = self.tensors()
        nodes = [node for node in self.graph.nodes if node.op == "get_attr" and node.target in held]
        return {node: str(node.target) for node in nodes if node.target not in changed}

    def tensors(self) -> Mapping[str, Tensor]:
        loose = {}
        for node in self.graph.nodes:
            if node.op == "get_attr":
                owner, _, name = str(node.target).rpartition(".")
                value = getattr(self.module.get_submodule(owner), name, None)
                loose |= {str(node.target): value} if isinstance(value, Tensor) else {}
        return loose

    def add(self, base: str, tensor: Tensor) -> tuple[str, Node]:
        name = _free(base, {*dict(self.module.named_modules()), *self.module.__dict__, *self.module._buffers})
        self.module.register_buffer(name, tensor)
        first = next(node for node in self.graph.nodes if node.op != "placeholder")
        with self.graph.inserting_before(first):
            return name, self.graph.get_attr(name)

    def finish(self) -> None:
        before = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        _erase_unread(self.graph)
        gone = before - {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        for name in gone:
            owner, _, attribute = name.rpartition(".")
            if isinstance(getattr(self.module.get_submodule(owner), attribute, None), Tensor):
                delattr(self.module.get_submodule(owner), attribute)
        self.module.recompile()


class ProgramHost:
    """An ExportedProgram."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program, self.graph = program, program.graph_module.graph

    def _specs(self) -> dict[Node, InputSpec]:
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        return dict(zip(placeholders, self.program.graph_signature.input_specs, strict=True))

    def constants(self) -> dict[Node, str]:
        signature = self.program.graph_signature
        changed = set(signature.buffers_to_mutate.values()) | set(signature.parameters_to_mutate.values())
        in_place = written(self.graph, self.program.graph_module)
        held = self.tensors()
        return {
            node: spec.target
            for node, spec in self._specs().items()
            if spec.kind in _KINDS and spec.target in held and spec.target not in changed and node not in in_place
        }

    def tensors(self) -> Mapping[str, Tensor]:
        held = {**self.program.constants, **self.program.state_dict}
        return {name: tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}

    def add(self, base: str, tensor: Tensor) -> tuple[str, Node]:
        taken = {node.name.removeprefix("b_") for node in self.graph.nodes}
        name = _free(base, {*self.program.state_dict, *self.program.constants, *taken})
        specs = self.program.graph_signature.input_specs
        place = next((i for i, spec in enumerate(specs) if spec.kind not in _KINDS), len(specs))
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        modes = [node.meta["val"].fake_mode for node in self.graph.nodes if hasattr(node.meta.get("val"), "fake_mode")]
        neighbour = placeholders[place] if place < len(placeholders) else _first_call(self.graph)
        with self.graph.inserting_before(neighbour):
            node = self.graph.placeholder(f"b_{name}")
        node.meta["val"] = modes[0].from_tensor(tensor, static_shapes=True)
        spec = InputSpec(InputKind.BUFFER, TensorArgument(node.name), name, persistent=True)
        specs.insert(place, spec)
        self.program.state_dict[name] = tensor
        return name, node

    def finish(self) -> None:
        _erase_unread(self.graph)
        signature = self.program.graph_signature
        kept = {spec.target for spec in signature.output_specs}
        for node, spec in self._specs().items():
            if spec.kind in _KINDS and not node.users and spec.target not in kept and spec.target is not None:
                self.graph.erase_node(node)
                signature.input_specs.remove(spec)
                self.program.state_dict.pop(spec.target, None)
                self.program.constants.pop(spec.target, None)
        self.program.graph_module.recompile()
        self.program.validate()


def copied(program: GraphModule | ExportedProgram) -> GraphModule | ExportedProgram:
    """A copy to be rewritten, whose nodes are in the same order; it shares its tensors with the original."""
    if isinstance(program, GraphModule):
        shared = {id(t): t for t in (*program.parameters(), *program.buffers())}
        twin: GraphModule = copy.deepcopy(program, shared)
        return twin
    signature = copy.deepcopy(program.graph_signature)
    return ExportedProgram(
        root=program.graph_module,
        graph=copied_graph(program.graph)[0],
        graph_signature=signature,
        state_dict=dict(program.state_dict),
        range_constraints=dict(program.range_constraints),
        module_call_graph=copy.deepcopy(program.module_call_graph),
        example_inputs=program.example_inputs,
        constants=dict(program.constants),
        verifiers=program.verifiers,
    )


def copied_graph(graph: Graph) -> tuple[Graph, dict[Node, Node]]:
    """A copy whose nodes keep their names, and which node became which."""
    new, twins = Graph(), {}
    for node in graph.nodes:
        twins[node] = new.node_copy(node, twins.__getitem__)
        twins[node].name = node.name
    return new, twins


def _erase_unread(graph: Graph) -> None:
    for node in reversed(list(graph.nodes)):
        unread = not node.users and not node.is_impure()
        if node.op == "get_attr" or (node.op == "call_function" and unread):
            if not node.users:
                graph.erase_node(node)


def _first_call(graph: Graph) -> Node:
    return next(node for node in graph.nodes if node.op != "placeholder")


def _free(base: str, taken: Any) -> str:
    number, name = 0, base
    while name in taken:
        number, name = number + 1, f"{base}_{number + 1}"
    return name


