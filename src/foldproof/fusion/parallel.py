"""Convolutions of one value that are added up become one convolution (RepVGG: 3×3 + 1×1 + identity)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.absorb.convolution import Convolution
from foldproof.fusion.absorb.rule import install_arguments, remake, remake_bias
from foldproof.fusion.affines import SOURCES, AffineStep, read_affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.plan import Plan
from foldproof.graph.nodes import arguments, kind_of, value_readers
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import Edit, NewConstant
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import total


@dataclass(frozen=True)
class _Branch:
    """A term of the sum as a convolution of ``x``: its weight (C_out, C_in/groups, *kernel), bias and geometry.

    An affine of x, or x itself, is a diagonal 1×1 convolution.
    """

    node: Node | None
    x: Node
    weight: Operand
    bias: Operand
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    diagonal: bool = False
    step: AffineStep | None = None


class ParallelConvolutions:
    """conv(x; W₁, b₁) + conv(x; W₂, b₂) = conv(x; W₁ ⊕ W₂, b₁ + b₂), where the kernels have equal strides, dilations
    and groups, and W₁ ⊕ W₂ adds the smaller kernel to the larger one where their taps meet: at (P₁ − P₂)/dilation.

    One of the terms may be scale·x + shift, or x itself, which is a convolution with a diagonal kernel of size 1
    (Ding et al. 2021, RepVGG, section 3.3).
    """

    id = "parallel_convolutions"
    fires: tuple[Fires, ...] = examples.parallel_fires
    declines: tuple[Declines, ...] = examples.parallel_declines

    def takes(self, node: Node) -> bool:
        return kind_of(node) == "add" and arguments(node).get("alpha", 1) == 1

    def plan(self, node: Node, constants: Constants) -> Plan:
        """Plan to replace the terms of a sum by one convolution.

        Raises:
            CannotFold: the terms are not convolutions of one value, or their taps do not meet.
        """
        given = arguments(node)
        terms = [given["self"], given["other"]]
        if not all(isinstance(term, Node) for term in terms) or terms[0] is terms[1]:
            raise CannotFold(f"{node.name} does not add two values")
        x = _find_common_input(terms, constants)
        constants.require_lasting(x)
        branches = [_make_branch(term, x, node, constants) for term in terms]
        convolutions = [b for b in branches if not b.diagonal]
        if not convolutions:
            raise CannotFold(f"neither term of {node.name} is a convolution")
        base = max(convolutions, key=lambda b: b.kernel)
        [other] = [b for b in branches if b is not base]
        if other.diagonal:
            other = replace(other, stride=(1,) * len(base.kernel), kernel=(1,) * len(base.kernel), groups=base.groups)
            other = replace(other, padding=(0,) * len(base.kernel), dilation=base.dilation)
        offset = _find_offset(base, other, node)
        assert base.node is not None
        old = arguments(base.node)
        if other.diagonal:
            width = int(value_of(old["weight"]).shape[1])
            weight = Expression(add_diagonal, (base.weight, other.weight, width, offset))
        else:
            weight = Expression(add_inside, (base.weight, other.weight, offset))
        wanted: tuple[NewConstant, ...] = remake(old["weight"], "weight", weight, constants)
        bias = total(base.bias, other.bias)
        if bias is not None and bias is not base.bias:
            wanted += remake_bias(base.node, old["bias"], old["weight"], "bias", bias, constants)
        folded = [node] if other.node is None else [other.node, node]
        return Plan(
            source=self.id,
            folded=folded,
            moved=[] if other.step is None else [r for r in other.step.results if r is not other.step.node],
            results=(node,),
            input=base.node,
            edits=[Edit("convolution", base.node, wanted, install_arguments)],
        )


PARALLEL = ParallelConvolutions()


def _find_common_input(terms: list[Node], constants: Constants) -> Node:
    reads = [_find_input(term, constants) for term in terms]
    for a, b in (reads, reads[::-1]):
        if a is not None and (a is b):
            return a
    for term, read_by_other in zip(terms, reads[::-1], strict=True):
        if read_by_other is term:
            return term  # the other term is a convolution of this one
    raise CannotFold("the terms are not computed from one value")


def _find_input(term: Node, constants: Constants) -> Node | None:
    if Convolution().takes(term, constants):
        found = arguments(term)["input"]
        return found if isinstance(found, Node) else None
    step = _read_step(term, constants)
    return step.input if step is not None else None


def _read_step(term: Node, constants: Constants) -> AffineStep | None:
    node = term.args[0] if kind_of(term) == "" and term.args and isinstance(term.args[0], Node) else term
    if not any(source.takes(node, constants) for source in SOURCES):
        return None
    try:
        found = read_affine(node, constants)
    except CannotFold:
        return None
    return found if found.results == (term,) else None


def _make_branch(term: Node, x: Node, reader: Node, constants: Constants) -> _Branch:
    if tuple(value_of(term).shape) != tuple(value_of(reader).shape) or value_of(term).dtype != value_of(reader).dtype:
        raise CannotFold(f"{term.name} is broadcast by {reader.name}")
    if term is x:
        return _make_diagonal(None, x, None, None)
    others = [user for user in value_readers(term) if user is not reader]
    if others:
        raise CannotFold(f"{term.name} is read by others, too")
    if not Convolution().takes(term, constants):
        step = _read_step(term, constants)
        assert step is not None
        affine = step.affine
        if any(axis != 1 for axis in affine.axes):
            raise CannotFold(f"{term.name} scales along another axis than the channels")
        scale, shift = affine.vectors(1, int(value_of(x).shape[1]))
        return replace(_make_diagonal(step.node, x, scale, shift), step=step)
    given: dict[str, Any] = arguments(term)
    weight = value_of(given["weight"])
    spatial = weight.dim() - 2
    if value_of(x).dim() != weight.dim():
        raise CannotFold(f"{term.name} has no batch axis")
    kernel = tuple(int(size) for size in weight.shape[2:])
    dilation = _repeat(given["dilation"], spatial)
    return _Branch(
        term,
        x,
        constants.expression(given["weight"], f"the weight of {term.name}"),
        constants.optional(given["bias"], f"the bias of {term.name}"),
        kernel,
        _repeat(given["stride"], spatial),
        _find_padding(given["padding"], kernel, dilation),
        dilation,
        int(given["groups"]),
    )


def _make_diagonal(node: Node | None, x: Node, scale: Operand, shift: Operand) -> _Branch:
    return _Branch(node, x, scale, shift, (), (), (), (), 1, diagonal=True)


def _repeat(x: Any, count: int) -> tuple[int, ...]:
    given = tuple(x) if isinstance(x, (list, tuple)) else (x,)
    return given * count if len(given) == 1 else given


def _find_padding(given: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    if given == "valid":
        return (0,) * len(kernel)
    if given == "same":
        both = [(size - 1) * step for size, step in zip(kernel, dilation, strict=True)]
        if any(n % 2 for n in both):
            raise CannotFold("its padding is wider on one side")
        return tuple(n // 2 for n in both)
    return _repeat(given, len(kernel))


def _find_offset(base: _Branch, other: _Branch, node: Node) -> tuple[int, ...]:
    """Return the index in the kernel of ``base`` at which the first tap of ``other`` lies."""
    if base.stride != other.stride or base.groups != other.groups:
        raise CannotFold(f"the strides or groups of the two convolutions that {node.name} adds differ")
    found = []
    for size, small, p, q, d, e in zip(
        base.kernel, other.kernel, base.padding, other.padding, base.dilation, other.dilation, strict=True
    ):
        at, rest = divmod(p - q, d)
        if rest or at < 0 or at + small > size or (d != e and small > 1):
            raise CannotFold(f"the taps of the two convolutions that {node.name} adds do not meet")
        found.append(at)
    return tuple(found)


def add_inside(large: Tensor, small: Tensor, offset: tuple[int, ...]) -> Tensor:
    """Add ``small`` to ``large`` at ``offset`` of its kernel."""
    sides: list[int] = []
    for size, inner, at in zip(large.shape[:1:-1], small.shape[:1:-1], offset[::-1], strict=True):
        sides += [at, size - inner - at]
    return large + torch.nn.functional.pad(small, sides)


def add_diagonal(large: Tensor, scale: Tensor | None, width: int, offset: tuple[int, ...]) -> Tensor:
    """Add the kernel of scale·x to ``large`` at ``offset``; ``width`` is the number of channels of a group."""
    outputs = large.shape[0]
    rows = torch.arange(outputs).unsqueeze(1) % width
    ones = (rows == torch.arange(width)).to(large.dtype)  # (C_out, C_in/groups)
    entries = ones if scale is None else ones * scale.reshape(-1, 1)
    return add_inside(large, entries.reshape(outputs, width, *[1] * len(offset)), offset)
