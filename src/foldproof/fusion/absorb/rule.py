"""The interface of absorbers, and their shared functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor
from torch.fx import Node

from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.graph.nodes import arguments, set_argument, short_name
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import NewConstant
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.refusal import AxisMismatch, CannotFold, next_training
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import scaled, total

NewConstants = tuple[NewConstant, ...]


class Absorber(Protocol):
    """A rule by which an operator absorbs an affine of its output or input. The docstring states the algebra."""

    id: str
    fires: tuple[Fires, ...]
    declines: tuple[Declines, ...]

    def takes(self, node: Node, constants: Constants) -> bool:
        """Return True if this rule knows the operator."""

    def output(self, node: Node, affine: Affine, constants: Constants) -> NewConstants:
        """Return the constants with which ``node`` computes the affine of its old output.

        Raises:
            CannotFold: there are none.
        """

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        """Return the constants with which ``node`` computes the same from ``operand`` without the affine.

        Raises:
            CannotFold: there are none.
        """

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        """Set the new constants of ``node``, by role."""


def install_arguments(node: Node, new: Mapping[str, Node]) -> None:
    """Set each new constant as the argument that has the name of its role."""
    for role, constant in new.items():
        set_argument(node, role, constant)


def remake(
    argument: Node, role: str, expression: Operand, constants: Constants, views: tuple[Node, ...] = ()
) -> NewConstants:
    """Plan a new value of a constant operand; nothing if ``expression`` is None, which means no change."""
    if expression is None:
        return ()
    base = constants.base(argument)
    return (NewConstant(role, base, base, value_of(argument).dtype, expression, views),)


def remake_bias(
    node: Node, bias: object, weight: Node, role: str, expression: Operand, constants: Constants
) -> NewConstants:
    """Plan a new bias of ``node``, which may have had none."""
    if expression is None or isinstance(bias, Node):
        return () if expression is None else remake(bias, role, expression, constants)  # type: ignore[arg-type]
    like = constants.base(weight)
    base = f"{like.removesuffix('weight')}bias" if like.endswith("weight") else f"{like}_bias"
    return (NewConstant(role, base, like, value_of(node).dtype, expression),)


def move_bias(bias: Operand, scale: Operand, shift: Operand, factor: float = 1) -> Operand:
    """Return scale·factor·bias + shift; None if the affine changes no bias."""
    if shift is None and (scale is None or bias is None):
        return None
    if bias is not None and factor != 1:
        bias = Expression(multiply, (bias, factor))
    return total(scaled(bias, scale), shift)


def multiply(x: Tensor, factor: float) -> Tensor:
    return x * factor


def require_axes(node: Node, affine: Affine, allowed: set[int], where: str) -> None:
    """Check the axes of an affine.

    Raises:
        AxisMismatch: the affine changes along an axis that the weight of ``node`` does not have.
    """
    if not set(affine.axes) <= allowed:
        raise AxisMismatch(
            f"the {where} of {node.name} is {affine.channels.dim()}-D: {short_name(node)} has its channels on axis"
            f" {_join(sorted(allowed))} and the affine is along axis {_join(affine.axes)}, so no weight can absorb it;"
            " if the channels were meant, transpose before it",
            next_training("transpose before the normalisation, if the channels were meant"),
        )


def require_no_shift(node: Node, affine: Affine) -> None:
    """Check that the affine has no shift.

    Raises:
        CannotFold: it has one, and ``node`` has no bias.
    """
    if affine.shift is not None:
        raise CannotFold(f"{node.name} ({short_name(node)}) has no bias that could take the shift")


def require_input(node: Node, operand: Node, name: str) -> None:
    """Check that ``operand`` is the argument ``name`` of ``node`` and no other.

    Raises:
        CannotFold: it is not.
    """
    given = arguments(node)
    if given[name] is not operand or any(value is operand for key, value in given.items() if key != name):
        raise CannotFold(f"{node.name} ({short_name(node)}) does not read {operand.name} as its {name} only")


def _join(axes: list[int]) -> str:
    return " and ".join(map(str, axes))
