"""Changing an ExportedProgram: a working copy of its graph, new constants, and a new program at the end."""

from __future__ import annotations

import copy
import math
import operator
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, ModuleCallEntry
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, TensorArgument
from torch.fx import Graph, GraphModule, Node

from foldproof.fusion.constants import KINDS, Constants
from foldproof.fusion.expression import Expression, evaluate, rounded
from foldproof.fusion.refusal import CannotFold

# What torch.export puts before the name of a placeholder.
_PREFIX = {InputKind.PARAMETER: "p_", InputKind.BUFFER: "b_", InputKind.CONSTANT_TENSOR: "c_"}


@dataclass(frozen=True)
class Draft:
    """A new constant that the program doesn't hold yet.

    ``expression`` is over the parameters of the original program, ``tensor`` its value, evaluated in float64 and
    rounded once; ``like`` is the constant whose kind it takes.
    """

    name: str
    like: str
    expression: Expression
    tensor: Tensor


class Surgery:
    """Working copy of ``program``, which itself is never changed; constants that stay are shared with it."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.graph = _copied(program.graph)
        self.constants = Constants(program, self.graph)
        self._originals = dict(self.constants.tensors)
        self._placeholders = {spec.target: node for node, spec in self.constants.specs.items() if spec.target}
        self._expressions: dict[str, Expression] = {}
        self._drafts: dict[tuple[Expression, torch.dtype], Draft] = {}
        self._erased: dict[str, str] = {}
        self._taken = {node.name for node in self.graph.nodes}
        self._numbers = Counter[str]()

    def draft(self, base: str, like: str, expression: Expression) -> Draft:
        """A new constant, evaluated; one that an equal expression made before where there is one.

        Raises:
            CannotFold: it isn't finite in the dtype of ``like``.
        """
        model = self.constants.tensors[like]
        expression = expression.substitute(self._expressions)
        known = self._drafts.get((expression, model.dtype))
        if known is not None:
            return known
        with torch.no_grad():
            tensor = rounded(expression, self._originals, model.dtype).to(model.device)
            if not _is_finite(tensor):
                dtype = str(model.dtype).removeprefix("torch.")
                raise CannotFold(
                    f"the folded {base} would not be finite in {dtype}: a variance + eps is 0, or a scale is too large"
                )
        if isinstance(model, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=model.requires_grad)
        return Draft(self._free_name(base), like, expression, tensor)

    def add(self, draft: Draft) -> Node:
        """The placeholder of a drafted constant, which is added to the program if it isn't there yet."""
        if draft.name in self._placeholders:
            return self._placeholders[draft.name]
        neighbour = self._placeholders[draft.like]
        spec = self.constants.specs[neighbour]
        with self.graph.inserting_before(neighbour):
            node = self.graph.placeholder(_PREFIX[spec.kind] + draft.name.replace(".", "_"))
        tensor = draft.tensor
        with neighbour.meta["val"].fake_mode:
            node.meta["val"] = torch.empty_strided(
                tensor.shape,
                tensor.stride(),
                dtype=tensor.dtype,
                device=tensor.device,
                requires_grad=tensor.requires_grad,
            )
        self._placeholders[draft.name] = node
        self._drafts[draft.expression, draft.tensor.dtype] = draft
        self._expressions[draft.name] = draft.expression
        self.constants.add(node, replace(spec, arg=TensorArgument(node.name), target=draft.name), tensor)
        return node

    def replace(self, old: Node, new: Node) -> None:
        """Makes all readers of ``old`` read ``new``, and erases ``old`` and what only it needed."""
        old.replace_all_uses_with(new)
        self._erased[old.name] = new.name
        self.erase_unread(old)

    def erase_unread(self, node: Node) -> None:
        """Erases a call that nothing reads, and then the calls that only it read."""
        pending = dict.fromkeys([node])
        while pending:
            node, _ = pending.popitem()
            if node.op == "call_function" and not node.users and not node.is_impure():
                pending |= dict.fromkeys(node.all_input_nodes)
                self.graph.erase_node(node)

    def derive(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The constants that the new program has and the original has not, computed from the original's."""
        return evaluate(self._expressions, parameters.__getitem__)

    def finish(self) -> ExportedProgram:
        """The program of the working copy, verified. Constants that nothing reads are left out."""
        self._drop_unread()
        signature = self._signature()
        live = {spec.target for spec in signature.input_specs}
        self._expressions = {name: e for name, e in self._expressions.items() if name in live}
        state, constants = self._held(signature.input_specs)
        program = ExportedProgram(
            root=self._root(),
            graph=self.graph,
            graph_signature=signature,
            state_dict=state,
            range_constraints=dict(self.program.range_constraints),
            module_call_graph=self._module_call_graph(),
            example_inputs=self.program.example_inputs,
            constants=constants,
            verifiers=self.program.verifiers,
        )
        program.graph_module.meta.update(self.program.graph_module.meta)
        return program

    def _drop_unread(self) -> None:
        kept = {argument.name for argument in _called_arguments(self.program.module_call_graph)}
        kept |= {spec.target for spec in self.program.graph_signature.output_specs if spec.target}
        for node, spec in list(self.constants.specs.items()):
            if spec.kind in KINDS and not node.users and node.name not in kept and spec.target not in kept:
                del self.constants.specs[node]
                self.graph.erase_node(node)

    def _signature(self) -> ExportGraphSignature:
        placeholders = [node for node in self.graph.nodes if node.op == "placeholder"]
        results = self.graph.output_node().args[0]
        assert isinstance(results, (tuple, list))
        output_specs = zip(self.program.graph_signature.output_specs, results, strict=True)
        return ExportGraphSignature(
            # Inputs too are named anew: copy.deepcopy of a program leaves a signature that says "input" for "input_1".
            input_specs=[_naming(self.constants.specs[node], node) for node in placeholders],
            output_specs=[_naming(spec, node) if isinstance(node, Node) else spec for spec, node in output_specs],
        )

    def _held(self, specs: list[InputSpec]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The state dictionary and the constants: what the signature names, each held where it was or its like is.

        They are shared with the original, but for those that running the program changes.
        """
        copies: dict[int, Any] = {}  # one for all, so that two names of one memory stay together
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
        """What get_attr nodes refer to: subgraphs, copied so that no later change reaches the original's."""
        targets = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        if not targets:
            return nn.Module()
        held = self.program.graph_module
        return GraphModule({t: copy.deepcopy(operator.attrgetter(t)(held)) for t in targets}, self.graph)

    def _module_call_graph(self) -> list[ModuleCallEntry]:
        """The program's, with the names of nodes that are gone replaced by those that took their place."""
        entries = [_copied_entry(entry) for entry in self.program.module_call_graph]
        if any(entry.signature is not None and entry.fqn for entry in entries):
            # A module that was folded away whole is called no more: torch.export.unflatten would look for it.
            gone = _modules(self.program.graph) - _modules(self.graph)
            for entry in entries:
                if entry.fqn in gone:
                    entry.signature = None
        for argument in _called_arguments(entries):
            while argument.name in self._erased:
                argument.name = self._erased[argument.name]
        return entries

    def _free_name(self, base: str) -> str:
        """``<base>_folded``, numbered where that is taken, by a constant or by the name of a node."""
        base = re.sub(r"_folded(_\d+)?$", "", base)  # of a constant that was folded before
        while True:
            number = self._numbers[base]
            self._numbers[base] += 1
            name = f"{base}_folded_{number}" if number else f"{base}_folded"
            placeholders = {prefix + name.replace(".", "_") for prefix in _PREFIX.values()}
            if name not in self._placeholders and not placeholders & self._taken:
                return name


def _copied(graph: Graph) -> Graph:
    """A copy whose nodes keep their names (FX renames those that hide a builtin, such as ``input``)."""
    new = Graph()
    copies: dict[Node, Node] = {}
    for node in graph.nodes:
        copies[node] = new.node_copy(node, copies.__getitem__)
        copies[node].name = node.name
    return new


def _naming(spec: Any, node: Node) -> Any:
    return spec if spec.arg.name == node.name else replace(spec, arg=replace(spec.arg, name=node.name))


def _is_finite(tensor: Tensor) -> bool:
    # Ten times as fast as isfinite().all(), which makes copies; nan goes through.
    return tensor.numel() == 0 or all(math.isfinite(bound.item()) for bound in (tensor.amin(), tensor.amax()))


def _modules(graph: Graph) -> set[str]:
    """Paths of the modules whose calls the nodes were traced from."""
    return {path for node in graph.nodes for path, _ in (node.meta.get("nn_module_stack") or {}).values()}


def _copied_entry(entry: ModuleCallEntry) -> ModuleCallEntry:
    signature = entry.signature
    if signature is not None:
        inputs, outputs = ([replace(argument) for argument in row] for row in (signature.inputs, signature.outputs))
        signature = replace(signature, inputs=inputs, outputs=outputs)
    return ModuleCallEntry(entry.fqn, signature)


def _called_arguments(entries: Iterable[ModuleCallEntry]) -> list[Any]:
    """The named arguments and results of the module calls whose signature the program preserves."""
    signatures = [entry.signature for entry in entries if entry.signature is not None]
    return [argument for signature in signatures for argument in (*signature.inputs, *signature.outputs)]
