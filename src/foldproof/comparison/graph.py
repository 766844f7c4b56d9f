"""The reference as a graph: run as it is, in float64, and in float64 with every operator perturbed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from foldproof.errors import FoldproofError, brief
from foldproof.graph.interpreter import Again, Change, Interpreter
from foldproof.operators import bind_arguments, list_updated_statistics, list_written
from foldproof.program.state import copied, deepcopied
from foldproof.program.structure import arranged
from foldproof.rounding.float64 import Float64, widened
from foldproof.rounding.noise import Noise
from foldproof.torch_internals import (
    HigherOrderOperator,
    OpOverload,
    flat_arguments,
    tree_flatten,
    tree_leaves,
    tree_map,
)


class Graph:
    """A functional graph of ATen operators, with the owner's parameters.

    Raises:
        FoldproofError: ``program`` can't be exported, or does not run.
    """

    def __init__(
        self, program: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dynamic_shapes: Any = None
    ) -> None:
        exported = _exported(program, tuple(args), dict(kwargs), dynamic_shapes)
        self.program = exported
        signature = exported.graph_signature
        self._writes = bool(signature.buffers_to_mutate or signature.user_inputs_to_mutate)
        self.module: fx.GraphModule = exported.module(check_guards=False)
        self._wide: fx.GraphModule | None = None
        self.dtypes: dict[str, torch.dtype] = {}
        self.unknown: set[str] = set()

    @property
    def nodes(self) -> list[fx.Node]:
        """Nodes that compute something."""
        return [n for n in self.module.graph.nodes if n.op == "call_function"]

    @property
    def wide(self) -> fx.GraphModule:
        """The same graph over float64 parameters."""
        if self._wide is None:
            self._wide = deepcopied(self.module)
            self._wide.double()
        return self._wide

    def flat(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
        """The inputs as the graph takes them."""
        return flat_arguments(self.program, args, kwargs)

    @property
    def higher_order(self) -> fx.Node | None:
        """The first call of `torch.cond` or the like."""
        return next((n for n in self.module.graph.nodes if isinstance(n.target, HigherOrderOperator)), None)

    def put_together(self, out: Any) -> list[Tensor]:
        """What the graph's output node gives, as `flattened` outputs."""
        return flattened(self.module.graph.process_outputs(out))

    def run(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        after: Change | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> list[Tensor]:
        """The outputs in the program's own dtypes; learns which dtype each node has. ``known`` is as in `float64`."""

        def learn(node: fx.Node, value: Any, again: Again) -> Any:
            floats = [t.dtype for t in tree_leaves(value) if isinstance(t, Tensor) and t.is_floating_point()]
            if floats:
                self.dtypes[node.name] = floats[0]
            return value if after is None else after(node, value, again)

        return self._walk(self.module, args, kwargs, learn, None, known)

    def run_in_float64(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        after: Change | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> list[Tensor]:
        """The outputs in float64; ``known`` has the values of nodes, by name, that need not be computed."""
        exact = Float64()

        def before(node: fx.Node) -> None:
            exact.dtype = self.dtypes.get(node.name, torch.float32)

        wide = self.wide
        args, kwargs = widen((args, kwargs))
        with exact:
            return self._walk(wide, args, kwargs, after, before, known)

    def perturbed(
        self,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        seed: int,
        amplitude: float = 1.0,
        operands: float = 0.0,
        only: str | None = None,
        after: Change | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> list[Tensor]:
        """The outputs in float64 with every operator's result (or that of ``only`` one) moved within its rounding."""
        noise = Noise(torch.Generator().manual_seed(seed), amplitude, operands)

        def before(node: fx.Node) -> None:
            noise.dtype = self.dtypes.get(node.name, torch.float32)
            noise.active = only is None or node.name == only

        wide = self.wide
        args, kwargs = widen((args, kwargs))
        with noise:
            out = self._walk(wide, args, kwargs, after, before, known)
        self.unknown |= noise.unknown
        return out

    def _walk(
        self,
        module: fx.GraphModule,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        after: Change | None,
        before: Callable[[fx.Node], None] | None,
        known: Mapping[str, Any] | None = None,
    ) -> list[Tensor]:
        if self._writes:
            module = deepcopied(module)
        start = (
            {n: known[n.name] for n in module.graph.nodes if n.op == "call_function" and n.name in known}
            if known
            else None
        )
        args, kwargs = copied((tuple(args), dict(kwargs)))
        walk = Interpreter(module, before=before, change=after)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flat = self.flat(args, kwargs)
            out = walk.run(*flat, initial_env=start, enable_io_processing=False)
            return flattened(module.graph.process_outputs(out))


def widen(x: Any) -> Any:
    """Every tensor of lower floating-point precision as float64."""
    return tree_map(lambda t: widened(t) if isinstance(t, Tensor) else t, x)


def flattened(out: Any) -> list[Tensor]:
    """The tensors and numbers among a program's outputs, in an order that does not hang on that of a dict's keys."""
    leaves, _ = arranged(*tree_flatten(out))
    return [torch.as_tensor(x).detach() for x in leaves if isinstance(x, (Tensor, int, float, complex))]


def _exported(source: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any) -> ExportedProgram:
    program = source if isinstance(source, ExportedProgram) else None
    if program is None:
        if not isinstance(source, nn.Module):
            raise FoldproofError(
                f"the reference is a {type(source).__name__}, whose float64 result can't be computed; give an"
                " nn.Module, a GraphModule or an ExportedProgram"
            )
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.export(source, args, kwargs, dynamic_shapes=dynamic_shapes)
        except Exception as error:
            raise FoldproofError(
                f"{type(source).__name__} can't be exported, which is how its float64 result is computed"
                f" ({brief(error)}); give a torch.export program"
            ) from error
    if not any(_writes(node) for node in program.graph.nodes):
        return program
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        functional: ExportedProgram = program.run_decompositions({})  # nothing is written in place
        return functional


def _writes(node: fx.Node) -> bool:
    if not isinstance(node.target, OpOverload):
        return False
    given = bind_arguments(node.target, node.args, node.kwargs)
    return bool(list_written(node.target) or list_updated_statistics(node.target, given))
