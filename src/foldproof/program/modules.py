"""Modules, graph modules and callables as programs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.graph.interpreter import Interpreter, Watch
from foldproof.graph.repeats import is_repeatable_node
from foldproof.program.holders import holders_of, own_tensors
from foldproof.program.mirror import captured, keep_hooks, mirror, rebound
from foldproof.program.program import NO_ATTRIBUTES, Leaf, Outcome
from foldproof.program.state import (
    Attribute,
    Parameters,
    copied,
    deepcopied,
    loose,
    mark,
    owned,
    quantization_parameters,
    replaced,
    storage_key,
)
from foldproof.program.structure import arranged
from foldproof.torch_internals import (
    arguments_of,
    has_hooks,
    keystr,
    set_tensor,
    structures_of,
    tree_flatten,
    tree_flatten_with_path,
    tree_unflatten,
)


def _outcome(out: Any, modules: Mapping[str, nn.Module], functions: Iterable[Any] = ()) -> Outcome:
    """Return the outputs; those in memory that will be restored after the run are cloned, to keep their values.

    Forward may return a tensor from an attribute that is neither parameter nor buffer, and that is put back afterwards.
    """
    leaves, structure = tree_flatten(out)
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    read = {storage_key(t) for t in own_tensors(holders_of(modules, functions), modules.values())} if tensors else set()
    kept = [x.clone() if isinstance(x, Tensor) and storage_key(x) in read else x for x in leaves]
    return Outcome(*arranged(kept, structure))


class FunctionProgram:
    """A callable. Its leaves are the tensors that it reads from outside, and those of its modules."""

    form = "callable"

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        found, self._structure = tree_flatten_with_path(captured(function))
        variables: list[tuple[Any, ...]] = [path for path, _ in found]
        self._names = [variable.key + keystr(tuple(place)) for variable, *place in variables]
        self._values = [mirror(x) if isinstance(x, nn.Module) else x for _, x in found]
        self.leaves: dict[str, Leaf] = {}
        for name, x in zip(self._names, self._values):
            if isinstance(x, Tensor):
                self.leaves[name] = Leaf(x)
            elif isinstance(x, nn.Module):
                self.leaves |= {f"{name}.{leaf}": found for leaf, found in _leaves(x, fixed=set()).items()}

    def run(
        self,
        leaves: Mapping[str, Tensor],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        watch: Watch | None = None,
        attributes: Mapping[str, Attribute] = NO_ATTRIBUTES,
    ) -> Outcome:
        modules = {f"{name}.": x for name, x in zip(self._names, self._values) if isinstance(x, nn.Module)}
        tensors = {name: leaves[name] for name, x in zip(self._names, self._values) if isinstance(x, Tensor)}
        marks = {name: mark(x) for name, x in tensors.items()}
        values = [tensors.get(name, x) for name, x in zip(self._names, self._values)]
        function = rebound(self._function, tree_unflatten(values, self._structure))
        own = {name: x for name, x in leaves.items() if name not in tensors}
        with replaced(modules, own, [function], tensors.values()) as written:
            written.resume(attributes.values())
            outcome = _outcome(function(*args, **kwargs), modules, [function])
        outcome.effects = written.tensors | {name: x for name, x in tensors.items() if mark(x) != marks[name]}
        outcome.attributes = written.attributes
        return outcome

    def run_as_it_is(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        return self.run(own_copies(self.leaves), copied(args), copied(kwargs))

    def modules(self) -> dict[str, nn.Module]:
        found = [(name, x) for name, x in zip(self._names, self._values) if isinstance(x, nn.Module)]
        return {f"{name}.{path}".rstrip("."): m for name, x in found for path, m in _own(x).items()}

    def nodes(self) -> list[fx.Node]:
        return []

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> Any:
        made = list[Any]()
        for name, x in zip(self._names, self._values):
            own = {leaf.removeprefix(f"{name}."): t for leaf, t in leaves.items() if leaf.startswith(f"{name}.")}
            made.append(with_tensors(x, own) if isinstance(x, nn.Module) else leaves.get(name, x))
        return rebound(self._function, tree_unflatten(made, self._structure))


def _own(module: nn.Module) -> dict[str, nn.Module]:
    """Return a mirror's modules by path; scripted ones have no mirror."""
    return {path: m for path, m in module.named_modules() if not isinstance(m, torch.jit.ScriptModule)}


def _leaves(module: nn.Module, fixed: set[str]) -> dict[str, Leaf]:
    """Return the tensors that a module owns, by name; those in ``fixed`` are constant."""
    read = {storage_key(t) for t in loose(module)}
    return {name: Leaf(tensor, name in fixed, storage_key(tensor) in read) for name, tensor in owned(module)}


class ModuleProgram:
    """An nn.Module."""

    form = "nn.Module"

    def __init__(self, module: nn.Module) -> None:
        self._original, self._module = module, mirror(module)
        # Scale and zero point of a fake quantization depend on the same observations: they cannot vary independently.
        self.leaves = _leaves(module, quantization_parameters(module))

    def run(
        self,
        leaves: Mapping[str, Tensor],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        watch: Watch | None = None,
        attributes: Mapping[str, Attribute] = NO_ATTRIBUTES,
    ) -> Outcome:
        with replaced({"": self._module}, {name: leaves[name] for name in self.leaves}) as written:
            written.resume(attributes.values())
            for name in leaves.keys() - self.leaves.keys():  # None in the module, and filled by an earlier call
                path, _, attribute = name.rpartition(".")
                set_tensor(self._module.get_submodule(path), attribute, leaves[name])
            outcome = _outcome(self._call(args, kwargs, watch), {"": self._module})
        outcome.effects, outcome.attributes = written.tensors, written.attributes
        return outcome

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None) -> Any:
        return self._module(*args, **kwargs)

    def run_as_it_is(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Outcome:
        with replaced({"": self._module}, own_copies(self.leaves)) as written:
            outcome = _outcome(self._module(*copied(args), **copied(kwargs)), {"": self._module})
        outcome.effects, outcome.attributes = written.tensors, written.attributes
        return outcome

    def modules(self) -> dict[str, nn.Module]:
        return _own(self._module)

    def nodes(self) -> list[fx.Node]:
        return []

    def with_leaves(self, leaves: Mapping[str, Tensor]) -> nn.Module:
        return with_tensors(self._original, leaves)


def with_tensors(original: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a deep copy of a module that holds ``tensors``, by name, in place of its own, of which none is copied."""
    parameter = Parameters()
    made = {n: parameter(tensors[n]) if isinstance(t, nn.Parameter) else tensors[n] for n, t in owned(original)}
    module = deepcopied(original, {id(t): made[name] for name, t in owned(original)})
    keep_hooks(original, module)
    for name, tensor in made.items():
        path, _, attribute = name.rpartition(".")
        set_tensor(module.get_submodule(path), attribute, tensor)
    return module


class GraphProgram(ModuleProgram):
    """A GraphModule, called as its owner calls it: with its hooks, and node by node if the call runs its graph.

    The call does not if the instance has its own ``forward``, or if the graph was edited without recompiling.
    """

    form = "GraphModule"

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self._graph_module = module
        assert isinstance(self._module, fx.GraphModule)
        self._mirror = self._module
        self._runs_graph = "forward" not in module.__dict__ and runs_its_graph(module)

    def _call(self, args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None) -> Any:
        if not self._runs_graph:
            return self._module(*args, **kwargs)

        def forward(*args: Any, **kwargs: Any) -> Any:
            return self._run_graph(args, kwargs, watch)

        self._module.__dict__["forward"] = forward
        try:
            return nn.Module.__call__(self._module, *args, **kwargs)
        finally:
            self._module.__dict__.pop("forward", None)

    def _run_graph(self, args: Sequence[Any], kwargs: Mapping[str, Any], watch: Watch | None) -> Any:
        module, graph = self._mirror, self._graph_module.graph
        if structures_of(graph) is None:
            # A plain FX graph has the arguments of its forward.
            bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs)
            bound.apply_defaults()
            return Interpreter(module, watch).run(*bound.args[1:], *bound.kwargs.values())
        out = Interpreter(module, watch).run(*arguments_of(graph, *args, **kwargs), enable_io_processing=False)
        return graph.process_outputs(out)

    def modules(self) -> dict[str, nn.Module]:
        return {} if self._runs_graph else super().modules()

    def nodes(self) -> list[fx.Node]:
        return list(self._graph_module.graph.nodes) if self._runs_graph else []

    @property
    def graph_module(self) -> fx.GraphModule:
        """The graph that a call runs."""
        return self._graph_module

    @property
    def is_repeatable(self) -> bool:
        """True if a call surely writes to nothing, draws nothing, and returns the same once more."""
        computing = [node for node in self.nodes() if node.op not in ("placeholder", "get_attr", "output")]
        return bool(computing) and not has_hooks(self._original) and all(map(is_repeatable_node, computing))

    def named_sources(self) -> list[tuple[fx.Node, str | None]]:
        """Return placeholders and attributes with the names of their leaves, None for others."""
        sources = [node for node in self.nodes() if node.op in ("placeholder", "get_attr")]
        leaf = {node: str(node.target) for node in sources if node.op == "get_attr" and node.target in self.leaves}
        return [(node, leaf.get(node)) for node in sources]

    def with_graph(self, module: fx.GraphModule) -> GraphProgram:
        """Return the program of another graph with the same arguments."""
        return GraphProgram(module)


def runs_its_graph(module: fx.GraphModule) -> bool:
    """True if a call runs the code of the current graph."""
    return str(module.graph.python_code("self").src) == str(module.code)


def own_copies(leaves: Mapping[str, Leaf]) -> dict[str, Tensor]:
    """Return copies of a program's own tensors that keep their kind: parameters, tied tensors, attributes."""
    made: dict[int, Tensor] = {}
    for leaf in leaves.values():
        if id(leaf.tensor) not in made:
            copy = leaf.copied()
            if isinstance(leaf.tensor, nn.Parameter):
                copy = nn.Parameter(copy, requires_grad=leaf.tensor.requires_grad)
            copy.__dict__.update(leaf.tensor.__dict__)
            made[id(leaf.tensor)] = copy
    return {name: made[id(leaf.tensor)] for name, leaf in leaves.items()}
