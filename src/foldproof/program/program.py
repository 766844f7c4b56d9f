"""A program: named leaves (parameters, buffers, constants) and a way to run it with other tensors in their place."""

from __future__ import annotations

import contextlib
import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._pytree import tree_leaves

from foldproof.errors import FoldproofError


@dataclass(frozen=True)
class Leaf:
    """A tensor that a program owns. ``constant`` leaves (lifted literals) are not quantified over."""

    tensor: Tensor
    constant: bool = False


@dataclass
class Outcome:
    """What a run gives: the outputs in order, and what it wrote into leaves and inputs, by name."""

    outputs: list[Any]
    effects: dict[str, Tensor] = field(default_factory=dict)


Watch = Callable[[fx.Node, Any], None]
"""Called with each node of a graph and its result, while a program runs."""


class Program(Protocol):
    """What the prover needs of a program."""

    form: str
    leaves: dict[str, Leaf]

    def run(
        self, leaves: Mapping[str, Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None = None
    ) -> Outcome:
        """Run with ``leaves`` (all of `leaves`' names) in place of the program's own tensors."""

    def nodes(self) -> list[fx.Node]:
        """The nodes of its graph; empty where it has none."""

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> Any:
        """A copy of the underlying object whose leaves are these tensors (for a pass to be run on)."""


def as_program(source: Any) -> Program:
    """The program behind an ExportedProgram, nn.Module (GraphModules too), or callable.

    Raises:
        FoldproofError: ``source`` is none of them.
    """
    if isinstance(source, ExportedProgram):
        return _Exported(source)
    if isinstance(source, nn.Module):
        return _Module(source)
    if callable(source):
        return _Function(source)
    raise FoldproofError(
        f"cannot read a {type(source).__name__} as a program; give an nn.Module, a GraphModule, an ExportedProgram or"
        " a callable"
    )


class _Interpreter(fx.Interpreter):
    """Runs a graph, reports each node, and says which node a failure comes from."""

    def __init__(self, module: fx.GraphModule, watch: Watch | None) -> None:
        super().__init__(module, garbage_collect_values=True)
        self.extra_traceback = False
        self._watch = watch

    def run_node(self, n: fx.Node) -> Any:
        try:
            out = super().run_node(n)
        except Exception as error:
            if not hasattr(error, "node"):
                error.node = n  # type: ignore[attr-defined]
            raise
        if self._watch is not None:
            self._watch(n, out)
        return out


class _Function:
    """A callable; its leaves are those of the modules that it closes over (or is a method of)."""

    form = "callable"

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._modules = _closed_over(function)
        self.leaves = {
            f"{variable}.{name}": Leaf(tensor)
            for variable, module in self._modules.items()
            for name, tensor in _owned(module)
        }

    def run(
        self, leaves: Mapping[str, Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None = None
    ) -> Outcome:
        versions = {name: tensor._version for name, tensor in leaves.items()}
        with contextlib.ExitStack() as stack:
            for variable, module in self._modules.items():
                own = {name: leaves[f"{variable}.{name}"] for name, _ in _owned(module)}
                stack.enter_context(_reparametrize_module(module, own))
            out = self._function(*args, **kwargs)
        return Outcome(tree_leaves(out), {n: t for n, t in leaves.items() if t._version != versions[n]})

    def nodes(self) -> list[fx.Node]:
        return []

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> Any:
        return self._function


def _closed_over(function: Callable[..., Any]) -> dict[str, nn.Module]:
    """The modules that a Python function reads from its enclosing scopes, by variable name."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        return {"self": owner}
    if not inspect.isfunction(function):
        return {}
    seen = inspect.getclosurevars(function)
    return {name: v for name, v in {**seen.globals, **seen.nonlocals}.items() if isinstance(v, nn.Module)}


class _Module:
    """An nn.Module; a GraphModule is run node by node."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self.form = "GraphModule" if isinstance(module, fx.GraphModule) else "nn.Module"
        self.leaves = {name: Leaf(tensor) for name, tensor in _owned(module)}

    def run(
        self, leaves: Mapping[str, Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None = None
    ) -> Outcome:
        own = {name: tensor for name, tensor in leaves.items() if name in self.leaves}
        versions = {name: tensor._version for name, tensor in own.items()}
        with _reparametrize_module(self._module, own):
            module = self._module
            if isinstance(module, fx.GraphModule):
                # Graphs from torch.export flatten their arguments; plain FX graphs take them as they are.
                if not isinstance(module.graph._codegen, fx.graph._PyTreeCodeGen):
                    out = _Interpreter(module, watch).run(*args, *kwargs.values())
                else:
                    flat = module.graph._codegen.process_inputs(*args, **kwargs)
                    out = _Interpreter(module, watch).run(*flat, enable_io_processing=False)
            else:
                out = module(*args, **kwargs)
        written = {name: tensor for name, tensor in own.items() if tensor._version != versions[name]}
        return Outcome(tree_leaves(out), written)

    def nodes(self) -> list[fx.Node]:
        return list(self._module.graph.nodes) if isinstance(self._module, fx.GraphModule) else []

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> nn.Module:
        module = _deepcopy(self._module)
        parameter = _Parameters()
        for name, tensor in leaves.items():
            path, _, attribute = name.rpartition(".")
            owner = module.get_submodule(path)
            if attribute in owner._parameters:
                owner._parameters[attribute] = parameter(tensor)
            else:
                owner._buffers[attribute] = tensor
        return module


def _owned(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


class _Exported:
    """An ExportedProgram (edge programs too), run on its flat graph with its signature."""

    form = "ExportedProgram"

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self.leaves = {}
        for spec in program.graph_signature.input_specs:
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                assert spec.target is not None
                self.leaves[spec.target] = Leaf(self._tensor(spec.target), spec.kind is InputKind.CONSTANT_TENSOR)

    def _tensor(self, target: str) -> Tensor:
        program = self._program
        found = program.state_dict.get(target, program.constants.get(target))
        if not isinstance(found, Tensor):
            raise FoldproofError(f"the ExportedProgram's signature names {target!r}, which it does not hold")
        return found

    def run(
        self, leaves: Mapping[str, Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None = None
    ) -> Outcome:
        program = self._program
        try:
            checked = program._get_flat_args_with_check(tuple(args), dict(kwargs))
            flat = iter(checked[0])
        except Exception as error:
            raise FoldproofError(f"the inputs do not fit the ExportedProgram: {_first_line(error)}") from error
        given = []
        for spec in program.graph_signature.input_specs:
            if spec.kind is InputKind.USER_INPUT:
                given.append(next(flat))
            elif spec.target in leaves:
                given.append(leaves[spec.target])
            else:
                raise FoldproofError(f"input {spec.arg.name!r} of kind {spec.kind.name} is not supported")
        results = _Interpreter(program.graph_module, watch).run(*given, enable_io_processing=False)
        outcome = Outcome([])
        inputs = [s.arg.name for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
        for spec, result in zip(program.graph_signature.output_specs, results):
            if spec.kind is OutputKind.USER_OUTPUT:
                outcome.outputs.append(result)
            elif spec.kind is OutputKind.BUFFER_MUTATION and spec.target is not None:
                outcome.effects[spec.target] = result
            elif spec.target is not None:
                outcome.effects[f"input {inputs.index(spec.target)}"] = result
        return outcome

    def nodes(self) -> list[fx.Node]:
        return list(self._program.graph.nodes)

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> ExportedProgram:
        program = _deepcopy(self._program)
        parameter = _Parameters()
        for name, tensor in leaves.items():
            home = program.state_dict if name in program.state_dict else program.constants
            home[name] = parameter(tensor) if isinstance(home[name], nn.Parameter) else tensor
        return program


T = TypeVar("T")


def _deepcopy(x: T) -> T:
    with warnings.catch_warnings():
        # torch 2.13 copies its own pytree specs in a way that it has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        return copy.deepcopy(x)


class _Parameters:
    """Makes parameters of tensors, one of each, so that tied parameters stay one object."""

    def __init__(self) -> None:
        self._made: dict[int, nn.Parameter] = {}

    def __call__(self, tensor: Tensor) -> nn.Parameter:
        if id(tensor) not in self._made:
            self._made[id(tensor)] = nn.Parameter(tensor, requires_grad=False)
        return self._made[id(tensor)]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
