"""Chains: operators after a linear operator that together are an affine of each channel.

A chain is recognised by its function, not by its pattern. A sequence of operators that are affine in one operand is
affine: y = a·x + c. Running it at x = 0 gives c, and at x = 1 gives a + c. Running the views in between on element
numbers gives the channel of each element.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.graph.nodes import arguments, is_getitem, kind_of, listed, operator_of, value_readers
from foldproof.graph.region import collect_dependencies, cut_region
from foldproof.graph.text import map_nodes
from foldproof.qat.context import Context
from foldproof.qat.quantization import DEQUANTIZE, QUANTIZE, Quantization
from foldproof.rewriting.expression import Expression
from foldproof.rewriting.refusal import AxisMismatch, CannotFold
from foldproof.rounding import Float64
from foldproof.shadow import SamplePoint, Shadow, Undecided, draw_variable, embed_constant

Interval = tuple[Tensor, Tensor]
"""Lower and upper limits of each channel."""

_SUMS = {"add", "sub", "rsub"}
_PRODUCTS = {"mul"}
_QUOTIENTS = {"div"}
_NORMS = {"batch_norm", "_native_batch_norm_legit_no_training"}
_IDENTITIES = {"clone", "contiguous", "dropout", "alias"}


@dataclass(frozen=True)
class Chain:
    """The sequence of nodes from the reader of ``start`` to ``end``.

    ``path`` maps each node to the operand on the path; ``pairs`` are the quantizations in between. ``going`` are the
    nodes that are removed when the chain is folded: all but views, with their operands.
    """

    start: Node
    path: tuple[tuple[Node, Node], ...]
    going: tuple[tuple[Node, Node], ...]
    pairs: tuple[Quantization, ...]

    @property
    def end(self) -> Node:
        return self.path[-1][0]


def find_chain(start: Node, context: Context) -> Chain | None:
    """Find the longest chain after ``start`` that ends in an operator other than a view; None if there is none.

    Raises:
        CannotFold: there is none because other nodes read the input of a BatchNorm, too.
    """
    path: list[tuple[Node, Node]] = []
    pairs: list[Quantization] = []
    node, found = start, None
    while len(readers := value_readers(node)) == 1:
        (reader,) = readers
        if (pair := Quantization.of(reader)) is not None:
            pairs.append(pair)
            path += [(reader, node), (pair.dequantize, reader)]
            node = pair.dequantize
            continue
        if kind_of(reader) in _NORMS and [is_getitem(u) and u.args[1] == 0 for u in value_readers(reader)] == [True]:
            (reader,) = value_readers(reader)  # it returns unused statistics, too
        affine = _is_affine(reader) and _is_affine_in(reader, node, context)
        if not affine and not _is_passed(reader, context):
            break
        path.append((reader, node))
        node = reader
        if affine:
            going = tuple((n, operand) for n, operand in path if not _is_passed(n, context))
            found = Chain(start, tuple(path), going, tuple(pairs))
    if found is None and len(readers) > 1 and any(kind_of(reader) in _NORMS for reader in readers):
        raise CannotFold(f"{listed(readers)} read the output of {start.name}, so none of them can be folded into it")
    return found


def _find_computing(node: Node) -> Node:
    """Return the node itself, or for a getitem of the first result, the node that computes the results."""
    return node.all_input_nodes[0] if is_getitem(node) else node


def _is_affine(node: Node) -> bool:
    return kind_of(_find_computing(node)) in _SUMS | _PRODUCTS | _QUOTIENTS | _NORMS | {"neg"}


def _is_quantization(node: Node) -> bool:
    return operator_of(node) in QUANTIZE or operator_of(node) in DEQUANTIZE


def _is_passed(node: Node, context: Context) -> bool:
    if kind_of(node) == "dropout":
        return not arguments(node)["train"]
    return kind_of(node) in _IDENTITIES or context.is_view(node)


def _is_affine_in(node: Node, operand: Node, context: Context) -> bool:
    """Return True if the node is affine in this operand and all others are constant."""
    node = _find_computing(node)
    if any(other is not operand and not context.is_fixed(other) for other in node.all_input_nodes):
        return False
    given = arguments(node)
    if kind_of(node) in _NORMS:
        fixed = not given.get("training") and given["running_mean"] is not None and given["running_var"] is not None
        return fixed and given["input"] is operand
    once = sum(value is operand for value in given.values()) == 1
    if kind_of(node) in _QUOTIENTS:
        return once and given["self"] is operand and given.get("rounding_mode") is None
    return once


@dataclass(frozen=True)
class ChannelAffine:
    """y = scale·x + shift, with two vectors along ``axis`` of the linear operator's output."""

    axis: int
    scale: Tensor
    shift: Tensor

    def of(self, interval: Interval) -> Interval:
        """Map an interval of each channel."""
        ends = [self.scale * end + self.shift for end in interval]
        return torch.minimum(*ends), torch.maximum(*ends)


class ChainAffine:
    """The affine of a chain, as a function of the constants that the chain reads; quantizations are ignored.

    The chain is copied out of the program, so that it can still be run after it was folded.
    """

    may_narrow: ClassVar[bool] = True
    """True because the chain may convert to a dtype."""

    def __init__(self, chain: Chain, context: Context, axis: int) -> None:
        self._start, self._axis = chain.start, axis
        self._shape = context.sizes.shape(chain.start)
        if not self._shape.numel():
            raise CannotFold(f"{chain.start.name} is empty at these inputs, so the chain after it can't be read")
        for node, operand in chain.path:
            if _is_affine(node) and context.sizes.shape(node) != context.sizes.shape(operand):
                shapes = (tuple(context.sizes.shape(x)) for x in (node, operand))
                raise CannotFold("{} has shape {} for an operand of shape {}".format(node.name, *shapes))
        names = context.editor.constants.names

        def is_outside(node: Node) -> bool:
            return node is chain.start or node in names or context.is_number(node)

        nodes = collect_dependencies([chain.end], is_outside)
        numbers = {x: context.sizes.number(x) for node in nodes for x in node.all_input_nodes if context.is_number(x)}
        region = cut_region(nodes, [chain.end], inputs=[chain.start], known=numbers)
        self._copies = region.copies
        self._constants = [region.copies[node] for node in region.inputs[1:]]
        self._path = [(region.copies[node], region.copies[operand]) for node, operand in chain.path]
        self._passing = {region.copies[node] for node, _ in chain.path if _is_passed(node, context)}
        self.reads = tuple(names[node] for node in region.inputs[1:])
        """Names of the constants that the chain reads."""
        self._held = [context.editor.constants.tensors[name] for name in self.reads]

    def __call__(self, *constants: Tensor) -> Tensor:
        """Compute the scale and the shift, as the rows of a matrix."""
        affine = self.affine(constants)
        return torch.stack([affine.scale, affine.shift])

    @property
    def scale(self) -> Expression:
        """Return the scale of each channel of the linear operator."""
        return Expression(_take_row, (Expression(self, self.reads), 0))

    @property
    def shift(self) -> Expression:
        """Return the shift of each channel."""
        return Expression(_take_row, (Expression(self, self.reads), 1))

    def affine(self, constants: Sequence[Tensor]) -> ChannelAffine:
        """Compute the affine at these values of the constants in ``reads``: real ones in `Float64`, or shadows."""
        return self._between(self._path[0][1], self._path[-1][0], constants)

    def between(self, first: Node, last: Node) -> ChannelAffine:
        """Compute the affine from ``first`` to ``last``, two nodes of the chain, along the channels of its start."""
        with torch.no_grad(), Float64():
            return self._between(self._copies[first], self._copies[last], self._held)

    def _between(self, first: Node, last: Node, constants: Sequence[Tensor]) -> ChannelAffine:
        shift, both = (self._at(number, first, last, constants) for number in (0.0, 1.0))
        return ChannelAffine(self._axis, self._vector(both - shift), self._vector(shift))

    def _at(self, number: float, first: Node, last: Node, constants: Sequence[Tensor]) -> Tensor:
        """Compute ``last`` with all elements of ``first`` set to ``number``, in the order of elements at the start."""
        wide = [t.detach().to(torch.float64) if t.is_floating_point() else t for t in constants]
        values: dict[Node, Any] = dict(zip(self._constants, wide, strict=True))

        def run(node: Node, operand: Node) -> Tensor:
            made: Tensor = values[operand] if _is_quantization(node) else _compute_value(node, values)
            return torch.full(made.shape, number, dtype=torch.float64) if node is first else made

        made = self._follow(torch.full(self._shape, number, dtype=torch.float64), last, values, run)
        return made.reshape(-1)[self._places(last)].reshape(self._shape)

    def _places(self, last: Node) -> Tensor:
        """Return the position in ``last`` of each element of the start."""
        numbers = torch.arange(self._shape.numel()).reshape(self._shape)
        values: dict[Node, Any] = {}

        def run(node: Node, operand: Node) -> Tensor:
            made: Tensor = _compute_value(node, values) if node in self._passing else values[operand]
            return made

        found = self._follow(numbers, last, values, run).reshape(-1)
        if not torch.equal(found.sort().values, numbers.reshape(-1)):
            raise CannotFold(f"{last.name} does not show every element of {self._start.name} once")
        return found.argsort()

    def _follow(self, x: Tensor, last: Node, values: dict[Node, Any], run: Callable[[Node, Node], Tensor]) -> Tensor:
        """Run the path from ``x`` to ``last`` step by step, and store the value of each node in ``values``."""
        values[self._path[0][1]] = x
        for node, operand in self._path:
            if last in values:
                break
            values[node] = run(node, operand)
        found: Tensor = values[last]
        return found

    def _vector(self, x: Tensor) -> Tensor:
        """Return the number of each channel; all elements of a channel have to agree."""
        first = tuple(slice(None) if d == self._axis else 0 for d in range(x.dim()))
        vector = x[first]
        everywhere = vector.reshape([-1 if d == self._axis else 1 for d in range(x.dim())]).expand(x.shape)
        if not _are_equal(x, everywhere):
            raise AxisMismatch(
                f"the affine after {self._start.name} is along another axis than its channels, axis {self._axis}, so"
                " its constants can't absorb it"
            )
        return vector

    def is_exact(self, k: int = 4) -> bool:
        """Return True if the scale is 1 for all constants, by random residues; the proof of the fold checks it."""
        draw = SamplePoint(seed=0, k=k)

        def shadow(t: Tensor) -> Tensor:
            return Shadow(t.detach().clone(), draw_variable(draw, t, data=False)) if t.is_floating_point() else t

        try:
            with torch.no_grad():
                made = {name: shadow(t) for name, t in zip(self.reads, self._held)}
                scale = self.affine([made[name] for name in self.reads]).scale
        except Undecided:
            return False
        residue = scale.residue if isinstance(scale, Shadow) else embed_constant(draw, scale)
        return all(bool((field.canonical(part) == 1).all()) for field, part in zip(draw.fields, residue.parts))


def _compute_value(node: Node, values: dict[Node, Any]) -> Any:
    """Compute a node, and the nodes that it depends on, unless ``values`` has them."""
    if node not in values:
        args, kwargs = map_nodes((node.args, dict(node.kwargs)), lambda x: _compute_value(x, values))
        function = operator_of(node) or node.target
        values[node] = function(*args, **kwargs)  # type: ignore[operator]
    return values[node]


def _take_row(matrix: Tensor, index: int) -> Tensor:
    return matrix[index]


def _are_equal(x: Tensor, y: Tensor) -> bool:
    if isinstance(x, Shadow) and isinstance(y, Shadow):
        return all(torch.equal(p, q) for p, q in zip(x.residue.parts, y.residue.parts))
    return bool(torch.allclose(x, y, rtol=1e-12, atol=0.0, equal_nan=True))
