"""Modules, graph modules and callables as programs."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten

from foldproof.graph.interpreter import Interpreter, Watch
from foldproof.program.program import Leaf, Outcome
from foldproof.program.state import (
    Parameters,
    copied,
    deepcopied,
    loose,
    owned,
    quantization_parameters,
    replaced,
    storage_key,
)
from foldproof.program.structure import arranged


def _outcome(out: Any, modules: Iterable[nn.Module]) -> Outcome:
    """What was put out, in memory that does not change when what forward wrote to is put back."""
    leaves, structure = tree_flatten(out)
    read = {storage_key(t) for module in modules for t in loose(module)}
    kept = [x.clone() if isinstance(x, Tensor) and storage_key(x) in read else x for x in leaves]
    return Outcome(*arranged(kept, structure))


class FunctionProgram:
    """A callable; its leaves are those of the modules that it closes over (or is a method of)."""

    form = "callable"

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._modules = _closed_over(function)
        self.leaves = {
            f"{variable}.{name}": leaf
            for variable, module in self._modules.items()
            for name, leaf in _leaves(module, fixed=set()).items()
        }

    def run(
        self, leaves: Mapping[str, Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None = None
    ) -> Outcome:
        with contextlib.ExitStack() as stack:
            written = {}
            for variable, module in self._modules.items():
                own = {name: leaves[f"{variable}.{name}"] for name, _ in owned(module)}
                written[variable] = stack.enter_context(replaced(module, own))
            outcome = _outcome(self._function(*args, **kwargs), self._modules.values())
        outcome.effects = {f"{v}.{name}": t for v, own in written.items() for name, t in own.items()}
        return outcome

    def run_as_it_is(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        return self.run(own_copies(self.leaves), copied(args), copied(kwargs))

    def nodes(self) -> list[fx.Node]:
        return []

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> Any:
        return self._function


def _leaves(module: nn.Module, fixed: set[str]) -> dict[str, Leaf]:
    """What a module owns, by name; what ``fixed`` names is constant."""
    read = {storage_key(t) for t in loose(module)}
    return {name: Leaf(tensor, name in fixed, storage_key(tensor) in read) for name, tensor in owned(module)}


def _closed_over(function: Callable[..., Any]) -> dict[str, nn.Module]:
    """The modules that a Python function reads from its enclosing scopes, by variable name."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        return {"self": owner}
    if not inspect.isfunction(function):
        return {}
    seen = inspect.getclosurevars(function)
    return {name: v for name, v in {**seen.globals, **seen.nonlocals}.items() if isinstance(v, nn.Module)}


class ModuleProgram:
    """An nn.Module."""

    form = "nn.Module"

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        # Scale and zero point of a fake quantization follow from each other's observations: they can't vary freely.
        self.leaves = _leaves(module, quantization_parameters(module))

    def run(
        self, leaves: Mapping[str, Tensor], args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None = None
    ) -> Outcome:
        with replaced(self._module, {name: leaves[name] for name in self.leaves}) as written:
            outcome = _outcome(self._call(args, kwargs, watch), [self._module])
        outcome.effects = written
        return outcome

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None) -> Any:
        return self._module(*args, **kwargs)

    def run_as_it_is(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        with replaced(self._module, own_copies(self.leaves)) as written:
            outcome = _outcome(self._module(*copied(args), **copied(kwargs)), [self._module])
        outcome.effects = written
        return outcome

    def nodes(self) -> list[fx.Node]:
        return []

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> nn.Module:
        module = deepcopied(self._module)
        parameter = Parameters()
        for name, tensor in leaves.items():
            path, _, attribute = name.rpartition(".")
            owner = module.get_submodule(path)
            if attribute in owner._parameters:
                owner._parameters[attribute] = parameter(tensor)
            else:
                owner._buffers[attribute] = tensor
        return module


class GraphProgram(ModuleProgram):
    """A GraphModule, run node by node."""

    form = "GraphModule"

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self._graph_module = module

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None) -> Any:
        module, codegen = self._graph_module, self._graph_module.graph._codegen
        if not isinstance(codegen, fx.graph._PyTreeCodeGen):
            # A plain FX graph takes its arguments as its forward does.
            bound = inspect.signature(module.forward).bind(*args, **kwargs)
            bound.apply_defaults()
            return Interpreter(module, watch).run(*bound.args, *bound.kwargs.values())
        out = Interpreter(module, watch).run(*codegen.process_inputs(*args, **kwargs), enable_io_processing=False)
        return codegen.process_outputs(out)

    def nodes(self) -> list[fx.Node]:
        return list(self._graph_module.graph.nodes)


def own_copies(leaves: Mapping[str, Leaf]) -> dict[str, Tensor]:
    """Copies of a program's own tensors that are like them in all: parameters, tied, with the same attributes."""
    made: dict[int, Tensor] = {}
    for leaf in leaves.values():
        if id(leaf.tensor) not in made:
            copy = leaf.tensor.detach().clone()
            if isinstance(leaf.tensor, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=False)
            copy.__dict__.update(leaf.tensor.__dict__)
            made[id(leaf.tensor)] = copy
    return {name: made[id(leaf.tensor)] for name, leaf in leaves.items()}
