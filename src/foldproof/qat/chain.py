"""What follows a linear operator and is an affine of each channel, recognised by what it does and not by its shape.

Operators that are affine in one operand stay so in sequence: y = a·x + c. Running the sequence at x = 0 gives c, and at
x = 1 gives a + c, whatever it is made of. Which channel an element belongs to is told by running the views in between
on the numbers of the elements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.graph.nodes import arguments, is_getitem, kind_of, listed, operator_of, value_readers
from foldproof.qat.image import Image, Leaves, precisely
from foldproof.qat.quantization import DEQUANTIZE, QUANTIZE, Quantization
from foldproof.rewriting.refusal import AxisMismatch, CannotFold
from foldproof.shadow import Draw, Shadow, Undecided, draw_variable, embed_constant

Interval = tuple[Tensor, Tensor]
"""The least and the greatest number of each channel."""

_SUMS = {"add", "sub", "rsub"}
_PRODUCTS = {"mul"}
_QUOTIENTS = {"div"}
_NORMS = {"batch_norm", "_native_batch_norm_legit_no_training"}
_IDENTITIES = {"clone", "contiguous", "dropout", "alias"}


@dataclass(frozen=True)
class Chain:
    """The sequence of nodes from the reader of ``start`` to ``end``, all of them nodes of the image.

    ``path`` gives each node with the operand through which it continues; ``pairs`` are the quantizations in between.
    ``going`` are the nodes that are no views, with their operands: they go when the chain is folded.
    """

    start: Node
    path: tuple[tuple[Node, Node], ...]
    going: tuple[tuple[Node, Node], ...]
    pairs: tuple[Quantization, ...]

    @property
    def end(self) -> Node:
        return self.path[-1][0]


def chain_of(start: Node, image: Image) -> Chain | None:
    """The longest chain after ``start`` that ends in an operator which computes something; None if there is none.

    Raises:
        CannotFold: there is none because what a BatchNorm reads is read by others, too.
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
            (reader,) = value_readers(reader)  # it returns saved statistics, too, which nobody reads
        affine = _is_affine(reader) and _affine_in(reader, node, image)
        if not affine and not _passes(reader, image):
            break
        path.append((reader, node))
        node = reader
        if affine:
            going = tuple((n, operand) for n, operand in path if not _passes(n, image))
            found = Chain(start, tuple(path), going, tuple(pairs))
    if found is None and len(readers) > 1 and any(kind_of(reader) in _NORMS for reader in readers):
        raise CannotFold(f"{listed(readers)} read the output of {start.name}; what one of them does can't go into it")
    return found


def _computes(node: Node) -> Node:
    """The node itself; where it takes the first of several results, the node that computes them."""
    return node.all_input_nodes[0] if is_getitem(node) else node


def _is_affine(node: Node) -> bool:
    return kind_of(_computes(node)) in _SUMS | _PRODUCTS | _QUOTIENTS | _NORMS | {"neg"}


def _is_quantization(node: Node) -> bool:
    return operator_of(node) in QUANTIZE or operator_of(node) in DEQUANTIZE


def _passes(node: Node, image: Image) -> bool:
    if kind_of(node) == "dropout":
        return not arguments(node)["train"]
    return kind_of(node) in _IDENTITIES or image.is_view(node)


def _affine_in(node: Node, operand: Node, image: Image) -> bool:
    """Is it affine in this one operand, all others being constant?"""
    node = _computes(node)
    if any(other is not operand and not image.constant(other) for other in node.all_input_nodes):
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
    """y = scale·x + shift, two vectors along ``axis`` of the linear operator's output."""

    axis: int
    scale: Tensor
    shift: Tensor

    def of(self, interval: Interval) -> Interval:
        """What becomes of numbers between two, channel by channel."""
        ends = [self.scale * end + self.shift for end in interval]
        return torch.minimum(*ends), torch.maximum(*ends)


class AffineOf:
    """The affine that a chain is, computed from leaves: real ones, or shadows. Quantizations in it do nothing here."""

    def __init__(self, chain: Chain, image: Image, axis: int) -> None:
        self._chain, self._image, self._axis = chain, image, axis
        self._shape = image.shape(chain.start)
        if not self._shape.numel():
            raise CannotFold(f"{chain.start.name} is empty at these inputs, so that nothing shows what follows it")
        for node, operand in chain.path:
            if _is_affine(node) and image.shape(node) != image.shape(operand):
                raise CannotFold(f"{node.name} makes {tuple(image.shape(node))} of {tuple(image.shape(operand))}")

    def __call__(self, leaves: Leaves) -> ChannelAffine:
        return self.between(self._chain.start, self._chain.end, leaves)

    def between(self, first: Node, last: Node, leaves: Leaves) -> ChannelAffine:
        """What is made of ``first`` to get ``last``, two nodes of the chain; of the channels that the start has."""
        with precisely(leaves.values()):
            shift, both = (self._at(number, first, last, leaves) for number in (0.0, 1.0))
            return ChannelAffine(self._axis, self._vector(both - shift), self._vector(shift))

    def _at(self, number: float, first: Node, last: Node, leaves: Leaves) -> Tensor:
        """The value of ``last`` where all elements of ``first`` are this number, in their order at the start."""
        values: dict[Node, Any] = {self._chain.start: torch.full(self._shape, number, dtype=torch.float64)}
        for node, operand in self._before(last):
            values[node] = values[operand] if _is_quantization(node) else self._image.value(node, leaves, values)
            if node is first:
                values[node] = torch.full(values[node].shape, number, dtype=torch.float64)
        made: Tensor = values[last]
        return made.reshape(-1)[self._places(last)].reshape(self._shape)

    def _before(self, last: Node) -> list[tuple[Node, Node]]:
        """The path as far as ``last``."""
        nodes = [self._chain.start, *(node for node, _ in self._chain.path)]
        return list(self._chain.path[: nodes.index(last)])

    def _places(self, last: Node) -> Tensor:
        """Where in ``last`` each element of the start is."""
        numbers = torch.arange(self._shape.numel()).reshape(self._shape)
        values: dict[Node, Any] = {self._chain.start: numbers}
        for node, operand in self._before(last):
            values[node] = self._image.value(node, {}, values) if _passes(node, self._image) else values[operand]
        found: Tensor = values[last].reshape(-1)
        if not torch.equal(found.sort().values, numbers.reshape(-1)):
            raise CannotFold(f"{last.name} does not show every element of {self._chain.start.name} once")
        return found.argsort()

    def _vector(self, x: Tensor) -> Tensor:
        """The one number of each channel."""
        first = tuple(slice(None) if d == self._axis else 0 for d in range(x.dim()))
        vector = x[first]
        everywhere = vector.reshape([-1 if d == self._axis else 1 for d in range(x.dim())]).expand(x.shape)
        if not _equal(x, everywhere):
            raise AxisMismatch(
                f"what follows {self._chain.start.name} is an affine along another axis than its channels, axis"
                f" {self._axis}, so its constants can't take it in"
            )
        return vector


def _equal(x: Tensor, y: Tensor) -> bool:
    if isinstance(x, Shadow) and isinstance(y, Shadow):
        return all(torch.equal(p, q) for p, q in zip(x.residue.parts, y.residue.parts))
    return bool(torch.allclose(x, y, rtol=1e-12, atol=0.0, equal_nan=True))


def is_one(affine: AffineOf, tensors: Mapping[str, Tensor], k: int = 4) -> bool:
    """Is the scale 1 whatever the parameters are? Random residues show it (a proof of the fold follows)."""
    draw = Draw(seed=0, k=k)

    def shadow(t: Tensor) -> Tensor:
        return Shadow(t.detach().clone(), draw_variable(draw, t, data=False)) if t.is_floating_point() else t

    try:
        with torch.no_grad():
            scale = affine({name: shadow(t) for name, t in tensors.items()}).scale
    except Undecided:
        return False
    residue = scale.residue if isinstance(scale, Shadow) else embed_constant(draw, scale)
    return all(bool((field.canonical(part) == 1).all()) for field, part in zip(draw.fields, residue.parts))
