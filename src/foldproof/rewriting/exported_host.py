"""An ExportedProgram under edit: a working copy of its graph, new constants, and a new program at the end."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram, ModuleCallEntry
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument
from torch.fx import Graph, GraphModule, Node

from foldproof.rewriting.constants import Constants
from foldproof.rewriting.functional import make_functional, make_in_place
from foldproof.rewriting.plain import drop_idle, inline_regions

KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
# Prefixes of the names that torch.export gives to placeholders.
_PREFIX = {InputKind.PARAMETER: "p_", InputKind.BUFFER: "b_", InputKind.CONSTANT_TENSOR: "c_"}


class ExportedHost:
    """A working copy of ``program``, which itself never changes; constants that stay are shared with it."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.graph = copy_graph(program.graph)
        self.subgraphs: nn.Module = program.graph_module
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        self._specs = dict(zip(placeholders, program.graph_signature.input_specs, strict=True))
        tensors: dict[str, Tensor] = {}
        names: dict[Node, str] = {}
        for node, spec in self._specs.items():
            if spec.kind in KINDS and spec.target is not None:
                held = program.state_dict if spec.target in program.state_dict else program.constants
                if isinstance(held.get(spec.target), Tensor):  # otherwise it belongs to a subgraph
                    tensors[spec.target], names[node] = held[spec.target], spec.target
        inlined = inline_regions(self.graph, self.subgraphs, {node: tensors[name] for node, name in names.items()})
        self._in_place = make_functional(self.graph)
        self.constants = Constants(self.graph, program.graph_module, tensors, names)
        signature = program.graph_signature
        self.constants.updated({*signature.buffers_to_mutate.values(), *signature.parameters_to_mutate.values()})
        named = {argument.name for argument in _called_arguments(program.module_call_graph)}
        self.simplified = drop_idle(self.graph, self.constants, named) or inlined
        self._taken = {node.name for node in self.graph.nodes}

    def is_free(self, name: str) -> bool:
        """True if a new constant may have this name."""
        placeholders = {prefix + name.replace(".", "_") for prefix in _PREFIX.values()}
        return name not in self.constants.tensors and not placeholders & self._taken

    def insert(self, name: str, tensor: Tensor, like: Node) -> Node:
        """Insert a placeholder for a new constant of the same kind as ``like``'s."""
        spec = self._specs[like]
        with self.graph.inserting_before(like):
            node = self.graph.placeholder(_PREFIX[spec.kind] + name.replace(".", "_"))
        self._specs[node] = replace(spec, arg=TensorArgument(node.name), target=name)
        return node

    def finish(self, erased: Mapping[str, str]) -> ExportedProgram:
        """Return the verified program of the working copy, without constants that nothing reads.

        ``erased`` maps the names of erased nodes to those of their replacements.
        """
        make_in_place(self.graph, self._in_place)
        self._drop_unread()
        signature = self._signature()
        state, constants = self._held(signature.input_specs)
        program = ExportedProgram(
            root=self._root(),
            graph=self.graph,
            graph_signature=signature,
            state_dict=state,
            range_constraints=dict(self.program.range_constraints),
            module_call_graph=self._module_call_graph(erased),
            example_inputs=self.program.example_inputs,
            constants=constants,
            verifiers=self.program.verifiers,
        )
        program.graph_module.meta.update(self.program.graph_module.meta)
        return program

    def _drop_unread(self) -> None:
        kept = {argument.name for argument in _called_arguments(self.program.module_call_graph)}
        kept |= {spec.target for spec in self.program.graph_signature.output_specs if spec.target}
        for node, spec in list(self._specs.items()):
            if spec.kind in KINDS and not node.users and node.name not in kept and spec.target not in kept:
                del self._specs[node]
                self.graph.erase_node(node)

    def _signature(self) -> ExportGraphSignature:
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        results = self.graph.output_node().args[0]
        assert isinstance(results, (tuple, list))
        output_specs = zip(self.program.graph_signature.output_specs, results, strict=True)
        return ExportGraphSignature(
            # Rename inputs, too: copy.deepcopy of a program leaves a signature with "input" for "input_1".
            input_specs=[_naming(self._specs[node], node) for node in placeholders],
            output_specs=[_naming(spec, node) if isinstance(node, Node) else spec for spec, node in output_specs],
        )

    def _held(self, specs: list[InputSpec]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the state dictionary and the constants of the signature, each tensor where it or its like was before.

        They are shared with the original, except for those that running the program changes.
        """
        copies: dict[int, Any] = {}  # one memo for all keeps names of one memory together
        state: dict[str, Any] = {}
        constants = {name: value for name, value in self.program.constants.items() if not isinstance(value, Tensor)}
        for spec in specs:
            if spec.target in self.constants.tensors:
                lifted = spec.kind == InputKind.CONSTANT_TENSOR or spec.persistent is False
                tensor = self.constants.tensors[spec.target]
                if self.constants.changes(tensor):
                    tensor = copy.deepcopy(tensor, copies)
                (constants if lifted else state)[spec.target] = tensor
        return state, constants

    def _root(self) -> nn.Module:
        """Return a root with the subgraphs of get_attr nodes, copied so that later changes leave the original alone."""
        targets = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        if not targets:
            return nn.Module()
        held = self.program.graph_module
        return GraphModule({t: copy.deepcopy(operator.attrgetter(t)(held)) for t in targets}, self.graph)

    def _module_call_graph(self, erased: Mapping[str, str]) -> list[ModuleCallEntry]:
        """Return the program's module calls, with erased nodes replaced by the nodes in their place."""
        entries = [_copied_entry(entry) for entry in self.program.module_call_graph]
        if any(entry.signature is not None and entry.fqn for entry in entries):
            # A module that was folded away whole must go: torch.export.unflatten would look for its call.
            gone = _modules(self.program.graph) - _modules(self.graph)
            for entry in entries:
                if entry.fqn in gone:
                    entry.signature = None
        for argument in _called_arguments(entries):
            while argument.name in erased:
                argument.name = erased[argument.name]
        return entries


def copy_graph(graph: Graph) -> Graph:
    """Return a copy with the same names of nodes (FX renames those that hide a builtin, such as ``input``)."""
    new = Graph()
    copies: dict[Node, Node] = {}
    for node in graph.nodes:
        copies[node] = new.node_copy(node, copies.__getitem__)
        copies[node].name = node.name
    return new


def _naming(spec: Any, node: Node) -> Any:
    return spec if spec.arg.name == node.name else replace(spec, arg=replace(spec.arg, name=node.name))


def _modules(graph: Graph) -> set[str]:
    """Return the paths of the modules whose calls the nodes were traced from."""
    return {path for node in graph.nodes for path, _ in (node.meta.get("nn_module_stack") or {}).values()}


def _copied_entry(entry: ModuleCallEntry) -> ModuleCallEntry:
    signature = entry.signature
    if signature is not None:
        inputs, outputs = ([replace(argument) for argument in row] for row in (signature.inputs, signature.outputs))
        signature = replace(signature, inputs=inputs, outputs=outputs)
    return ModuleCallEntry(entry.fqn, signature)


def _called_arguments(entries: Iterable[ModuleCallEntry]) -> list[Any]:
    """Return the named arguments and results of the module calls whose signature the program preserves."""
    signatures = [entry.signature for entry in entries if entry.signature is not None]
    return [argument for signature in signatures for argument in (*signature.inputs, *signature.outputs)]
