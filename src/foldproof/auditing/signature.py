"""The signature of an exported program's graph: inputs that are parameters, and outputs that are written back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from foldproof.torch_internals import tree_leaves

_LIFTED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
_WRITTEN = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION, OutputKind.USER_INPUT_MUTATION)


@dataclass(frozen=True)
class Signature:
    """Roles of a graph's inputs and outputs.

    ``parameters`` maps each placeholder that is a parameter to (the parameter's name, its tensor). ``written`` has for
    each output the placeholder whose tensor it is finally written to, or None for an output of the user's.
    """

    parameters: Mapping[str, tuple[str, Tensor]] = field(default_factory=dict)
    written: Sequence[str | None] = ()


def find_signature(program: ExportedProgram, module: fx.GraphModule | None = None) -> Signature | None:
    """Return the signature of ``module`` (the program's own graph by default); None if the program does not fit it.

    Inputs are found by name or, as names change when a graph is traced again, by position; outputs by position.
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
    parameters = {}
    for name, spec in zip(names, specs):
        if spec.kind in _LIFTED and spec.target is not None:
            tensor = program.state_dict.get(spec.target, program.constants.get(spec.target))
            if isinstance(tensor, Tensor):
                parameters[name] = (spec.target, tensor)
    places = {spec.arg.name: name for name, spec in zip(names, specs)} | {p: n for n, (p, _) in parameters.items()}
    outputs = program.graph_signature.output_specs
    written = [places.get(spec.target or "") if spec.kind in _WRITTEN else None for spec in outputs]
    end = next(n for n in graph.nodes if n.op == "output")
    fits = any(written) and len(tree_leaves(end.args[0])) == len(written)
    return Signature(parameters, written if fits else ())
