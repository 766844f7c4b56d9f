"""Which nodes of an exported program are constants, and what tensors they stand for."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec
from torch.fx import Graph, Node
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from foldproof.fusion.nodes import base_of, written
from foldproof.fusion.refusal import CannotFold
from foldproof.program.nodes import operator_name

KINDS = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


class Constants:
    """The parameters, buffers and lifted constants of a program, by the names of its graph signature.

    A fold may read them only where nothing in the program writes to them, or its result would go stale.
    """

    def __init__(self, program: ExportedProgram, graph: Graph) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.specs: dict[Node, InputSpec] = {}
        placeholders = [node for node in graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
            self.specs[node] = spec
            if spec.kind in KINDS and spec.target is not None:
                held = program.state_dict if spec.target in program.state_dict else program.constants
                if isinstance(held.get(spec.target), Tensor):  # else it belongs to a subgraph
                    self.tensors[spec.target] = held[spec.target]
        writers = written(graph, program.graph_module)
        self._written = {node: f"written to by {writer.name}" for node, writer in writers.items()}
        signature = program.graph_signature
        mutated = {*signature.buffers_to_mutate.values(), *signature.parameters_to_mutate.values()}
        for node, spec in self.specs.items():
            if spec.target in mutated:
                self._written[node] = "updated by the program"
        # Two names may share memory; writing to one then changes the other.
        self._stale = {
            _memory(self.tensors[spec.target])
            for node, spec in self.specs.items()
            if node in self._written and spec.target in self.tensors
        }

    def add(self, node: Node, spec: InputSpec, tensor: Tensor) -> None:
        """Makes ``node`` a constant that holds ``tensor``."""
        assert spec.target is not None
        self.specs[node] = spec
        self.tensors[spec.target] = tensor

    def name(self, node: object, what: str) -> str:
        """The name of the constant that ``node`` stands for.

        Raises:
            CannotFold: it is an input, computed, written to, or a tensor without plain floating-point elements;
                ``what`` says in the message what the node is to its reader.
        """
        if not isinstance(node, Node):
            raise CannotFold(f"{what} is {node!r}, not a tensor")
        spec = self.specs.get(node)
        if spec is None:
            raise CannotFold(f"{what} is computed in the graph by {node.name} ({operator_name(node)}), not a parameter")
        if spec.target not in self.tensors:
            raise CannotFold(f"{what} is {node.name}, an input of the program, not a parameter")
        if node in self._written:
            raise CannotFold(f"{what}, {spec.target}, is {self._written[node]}, so it is not constant")
        tensor = self.tensors[spec.target]
        if self.changes(tensor):
            raise CannotFold(f"{what}, {spec.target}, shares memory with a tensor that the program writes to")
        if isinstance(tensor, FakeTensor) or tensor.device.type == "meta":
            raise CannotFold(f"{what}, {spec.target}, has no values: load the weights before fusing")
        if not _plain(tensor):
            kind = type(tensor).__name__ if tensor.layout is torch.strided else f"{tensor.layout} tensor"
            raise CannotFold(f"{what}, {spec.target}, is a {kind} of {tensor.dtype}, not a plain floating-point tensor")
        return spec.target

    def tensor_of(self, node: Node) -> Tensor | None:
        """The tensor of a parameter, buffer or constant, whether or not it may be folded; None for other nodes."""
        spec = self.specs.get(node)
        return None if spec is None or spec.target is None else self.tensors.get(spec.target)

    def holds(self, node: Node) -> bool:
        """Does ``node`` stand for a parameter, buffer or constant, or a view of one?"""
        return self.tensor_of(base_of(node)) is not None

    def changes(self, tensor: Tensor) -> bool:
        """Does running the program change the memory of ``tensor``, perhaps through another name?"""
        return bool(self._stale) and _memory(tensor) in self._stale

    def optional(self, node: object, what: str) -> str | None:
        """`name`, or None for an operand that is not given."""
        return None if node is None else self.name(node, what)


def _plain(tensor: Tensor) -> bool:
    return (
        tensor.is_floating_point()
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not is_traceable_wrapper_subclass(tensor)
    )


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else id(tensor)
