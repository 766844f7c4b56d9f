"""Programs beside ONNX files, whose inputs and outputs are flat lists of tensors: both get that form."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof.errors import FoldproofError, brief
from foldproof.formatting import format_count
from foldproof.graph.interpreter import Interpreter
from foldproof.onnx_graph import NotTranslated, read_graph
from foldproof.torch_internals import flat_arguments, tree_flatten, tree_leaves, tree_unflatten


def is_onnx_file(program: Any) -> bool:
    """Return True for the path of an ONNX file."""
    return isinstance(program, (str, Path)) and Path(program).suffix == ".onnx"


def as_one_form(
    before: Any, after: Any, inputs: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> tuple[Any, Any, Sequence[Any], Mapping[str, Any] | None]:
    """Return two programs and their inputs; if one is an ONNX file, as modules on the tensors of the inputs.

    The file's inputs are found by name, or, if it has other names, by order. Outputs correspond by order.

    Raises:
        NotTranslated: an operator of the file has no definition.
        FoldproofError: the file is no ONNX model, or does not run on these inputs.
    """
    if not is_onnx_file(before) and not is_onnx_file(after):
        return before, after, inputs, kwargs
    given = tuple(inputs), dict(kwargs or {})
    tensors = tuple(x for x in tree_leaves(given) if isinstance(x, Tensor))
    graphs = [read_graph(Path(x), str(x)) if is_onnx_file(x) else None for x in (before, after)]
    names = _names(before, graphs[0], given) if graphs[0] is None or graphs[1] else _names(after, None, given)
    first, second = (
        _Flat(x, given) if graph is None else _OnnxFile(Path(x), graph, tensors, names)
        for x, graph in zip((before, after), graphs)
    )
    return first, second, tensors, None


class _Flat(nn.Module):
    """A program as a function of the tensors of its inputs, that gives the tensors of its output."""

    def __init__(self, program: Any, given: Any) -> None:
        super().__init__()
        self.model = program.module() if isinstance(program, ExportedProgram) else program
        self._given, self._structure = tree_flatten(given)
        self._order: list[int] | None = None
        """Places of the inputs of an exported program among those given; it may have keyword arguments in another."""
        if isinstance(program, ExportedProgram):
            places = {id(x): i for i, x in enumerate(self._given)}
            self._order = [places[id(x)] for x in flat_arguments(program, *given)]

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        left = iter(tensors)
        leaves = [next(left) if isinstance(x, Tensor) else x for x in self._given]
        made = [x for x in tree_leaves(self._call(leaves)) if x is not None]
        others = [x for x in made if not isinstance(x, Tensor)]
        if others:
            raise FoldproofError(f"an output is {others[0]!r}, which is no tensor, so that an ONNX file can't have it")
        return tuple(made)

    def _call(self, leaves: Sequence[Any]) -> Any:
        if self._order is not None:  # node by node, since parts that control flow runs take no shadows otherwise
            return Interpreter(self.model).run(*(leaves[i] for i in self._order), enable_io_processing=False)
        args, kwargs = tree_unflatten(leaves, self._structure)
        return self.model(*args, **kwargs)


class _OnnxFile(nn.Module):
    """The model of an ONNX file as a function of tensors, which may be in another order."""

    def __init__(self, path: Path, graph: fx.GraphModule, tensors: Sequence[Tensor], names: Sequence[str]) -> None:
        super().__init__()
        self.model = graph
        declared = [node.meta["declared"] for node in graph.graph.nodes if node.op == "placeholder"]
        wanted = [name for name, _, _ in declared]
        if len(wanted) != len(tensors):
            given = f"{format_count(len(tensors), 'tensor')} {'is' if len(tensors) == 1 else 'are'} given"
            raise FoldproofError(f"{path} takes {len(wanted)} inputs ({', '.join(wanted)}), but {given}")
        known = {*names} & {*wanted}
        if known and {*names} != {*wanted}:
            raise FoldproofError(
                f"{path} has the inputs {', '.join(wanted)}, the other program {', '.join(names)}: some names are the"
                " same, so that neither names nor order tell which is which; rename them"
            )
        self._order = [names.index(name) for name in wanted] if known else [*range(len(wanted))]
        for (name, dtype, sizes), x in zip(declared, (tensors[i] for i in self._order)):
            fits = len(sizes) == x.dim() and all(not isinstance(n, int) or n == m for n, m in zip(sizes, x.shape))
            if x.dtype is not dtype or not fits:
                raise FoldproofError(
                    f"{path} takes {name} of {dtype} and shape ({', '.join(map(str, sizes))}), but"
                    f" {x.dtype} of shape {tuple(x.shape)} is given"
                )
        try:
            with torch.no_grad():
                self(*tensors)
        except NotTranslated:
            raise
        except Exception as error:
            raise FoldproofError(f"{path} does not run on the inputs ({brief(error)})") from error

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        out = self.model(*(tensors[i] for i in self._order))
        return out if isinstance(out, tuple) else (out,)


def _names(program: Any, graph: fx.GraphModule | None, given: tuple[tuple[Any, ...], dict[str, Any]]) -> list[str]:
    """Return the names of a program's tensors; an empty list if they are not known, as those in containers."""
    if graph is not None:
        return [node.meta["declared"][0] for node in graph.graph.nodes if node.op == "placeholder"]
    args, kwargs = given
    if any(not isinstance(x, Tensor) and tree_leaves(x) != [x] for x in (*args, *kwargs.values())):
        return []
    module = program.module() if isinstance(program, ExportedProgram) else program
    if isinstance(module, fx.GraphModule):
        names = [str(node.target) for node in module.graph.nodes if node.op == "placeholder"]
    else:
        try:
            function = module.forward if isinstance(module, nn.Module) else module
            names = list(inspect.signature(function).parameters)
        except (TypeError, ValueError):  # a function without a signature
            return []
    named = [*zip(names, args), *kwargs.items()]
    return [name for name, x in named if isinstance(x, Tensor)]
