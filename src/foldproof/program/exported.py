"""ExportedPrograms (edge programs too) as programs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from foldproof.errors import FoldproofError, brief
from foldproof.graph.interpreter import Interpreter, Watch
from foldproof.graph.nodes import arguments, is_getitem, operator_of, written
from foldproof.operators import is_custom, is_functional, is_repeatable, list_written
from foldproof.program.program import NO_ATTRIBUTES, Leaf, Outcome
from foldproof.program.state import Attribute, Parameters, copied, deepcopied
from foldproof.program.structure import arranged
from foldproof.program.weightless import on_cpu
from foldproof.torch_internals import HigherOrderOperator, flat_arguments, tree_leaves, version_of


def _writes_as_declared(node: fx.Node) -> bool:
    """True if the schema of the node's operator surely names all memory that it writes to."""
    if node.op != "call_function":
        return True
    operator = operator_of(node)
    if operator is not None:
        return not is_custom(operator) and (bool(list_written(operator)) or is_functional(operator, arguments(node)))
    runs_graphs = any(x.op == "get_attr" for x in node.all_input_nodes)
    return is_getitem(node) or (isinstance(node.target, HigherOrderOperator) and runs_graphs)


def _is_repeatable(node: fx.Node) -> bool:
    operator = operator_of(node)
    return operator is None or is_repeatable(operator, arguments(node))


_LEAVES = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


class ExportedProgramForm:
    """An ExportedProgram, run on its flat graph with its signature."""

    form = "ExportedProgram"

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._graph_module = on_cpu(program.graph_module)
        self.leaves = {}
        for spec in program.graph_signature.input_specs:
            if spec.kind in _LEAVES:
                assert spec.target is not None
                self.leaves[spec.target] = Leaf(self._tensor(spec.target), spec.kind is InputKind.CONSTANT_TENSOR)

    def _tensor(self, target: str) -> Tensor:
        program = self._program
        found = program.state_dict.get(target, program.constants.get(target))
        if not isinstance(found, Tensor):
            raise FoldproofError(f"the ExportedProgram's signature names {target!r}, which is missing from it")
        return found

    def run(
        self,
        leaves: Mapping[str, Tensor],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        watch: Watch | None = None,
        attributes: Mapping[str, Attribute] = NO_ATTRIBUTES,
    ) -> Outcome:
        program = self._program
        try:
            flat = iter(flat_arguments(program, args, kwargs))
        except Exception as error:
            raise FoldproofError(f"the inputs do not fit the ExportedProgram: {brief(error)}") from error
        given: list[Any] = []
        # Positions among the tensors as given by the caller; the program may reorder keyword arguments.
        places = {id(t): i for i, t in enumerate(t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))}
        for spec in program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                given.append(next(flat))
            elif spec.kind in _LEAVES:
                given.append(leaves.get(spec.target))
            else:
                raise FoldproofError(f"input {spec.arg.name!r} of kind {spec.kind.name} is not supported")
        versions = {name: version_of(t) for name, t in leaves.items()}
        results = Interpreter(self._graph_module, watch).run(*given, enable_io_processing=False)
        outputs: list[Any] = []
        effects: dict[str, Tensor] = {}
        inputs = {spec.arg.name: x for spec, x in zip(program.graph_signature.input_specs, given)}
        for spec, result in zip(program.graph_signature.output_specs, results):
            if spec.kind is OutputKind.USER_OUTPUT:
                outputs.append(result)
            elif spec.kind is OutputKind.BUFFER_MUTATION and spec.target is not None:
                effects[spec.target] = result
            elif spec.target is not None:
                effects[f"input {places[id(inputs[spec.target])]}"] = result
        for name, tensor in leaves.items():  # graphs that are not functional write in place
            if version_of(tensor) != versions[name]:
                effects.setdefault(name, tensor)
        return Outcome(*arranged(outputs, program.call_spec.out_spec), effects)

    def run_as_it_is(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        # A graph has no state of its own: running it means interpreting it.
        lent = self._leaves_only_read()
        own = {name: leaf.tensor.detach() if name in lent else leaf.copied() for name, leaf in self.leaves.items()}
        given = copied((tuple(args), dict(kwargs)))
        return self.run(own, *given)

    def _leaves_only_read(self) -> set[str]:
        """Return the leaves that the graph surely does not write to. Running it takes less time than copying them."""
        module = self._graph_module
        graphs = [part.graph for part in module.modules() if isinstance(part, fx.GraphModule)]
        if not all(_writes_as_declared(node) for graph in graphs for node in graph.nodes):
            return set()
        changed = {node.name for node in written(module.graph, module)}
        specs = self._program.graph_signature.input_specs
        return {spec.target for spec in specs if spec.target in self.leaves and spec.arg.name not in changed}

    @property
    def graph_module(self) -> fx.GraphModule:
        """The graph that `run` runs."""
        return self._graph_module

    @property
    def is_repeatable(self) -> bool:
        """True if a run surely writes to nothing, draws nothing, and returns the same once more."""
        kinds = {spec.kind for spec in self._program.graph_signature.output_specs}
        if kinds != {OutputKind.USER_OUTPUT} or not self._leaves_only_read() >= self.leaves.keys():
            return False
        return all(map(_is_repeatable, self.nodes()))

    def named_sources(self) -> list[tuple[fx.Node, str | None]]:
        """Return the placeholders with the names of their leaves, None for inputs."""
        specs = self._program.graph_signature.input_specs
        placeholders = [node for node in self.nodes() if node.op == "placeholder"]
        return [(node, spec.target if spec.target in self.leaves else None) for node, spec in zip(placeholders, specs)]

    def with_graph(self, module: fx.GraphModule) -> ExportedProgramForm:
        """Return the program with another graph of the same signature, and the leaves that this one reads."""
        made = copy.copy(self)
        made._graph_module = module
        read = {name for node, name in made.named_sources() if node.users}
        made.leaves = {name: leaf for name, leaf in self.leaves.items() if name in read}
        return made

    def nodes(self) -> list[fx.Node]:
        return list(self._graph_module.graph.nodes)

    def modules(self) -> dict[str, nn.Module]:
        return {}

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> ExportedProgram:
        own = (*self._program.state_dict.values(), *self._program.constants.values())
        program = deepcopied(self._program, {id(t): t for t in own if isinstance(t, Tensor)})  # they are replaced
        parameter = Parameters()
        for name, tensor in leaves.items():
            home = program.state_dict if name in program.state_dict else program.constants
            home[name] = parameter(tensor) if isinstance(home[name], nn.Parameter) else tensor
        return program
