"""What an absorber is, and what absorbers share."""

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
from foldproof.rewriting.refusal import AxisMismatch, CannotFold
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import scaled, total

NewConstants = tuple[NewConstant, ...]


class Absorber(Protocol):
    """A rule: which operator absorbs, on its output or on its input, and how. Its docstring states the algebra."""

    id: str
    fires: tuple[Fires, ...]
    declines: tuple[Declines, ...]

    def takes(self, node: Node, constants: Constants) -> bool:
        """Is it an operator that this rule knows?"""

    def output(self, node: Node, affine: Affine, constants: Constants) -> NewConstants:
        """The constants with which ``node`` computes what the affine makes of its output.

        Raises:
            CannotFold: there are none.
        """

    def input(self, node: Node, operand: Node, affine: Affine, constants: Constants) -> NewConstants:
        """The constants with which ``node`` still computes the same, when ``operand`` is given without the affine."""

    def install(self, node: Node, new: Mapping[str, Node]) -> None:
        """Gives ``node`` its new constants, by role."""


def install_arguments(node: Node, new: Mapping[str, Node]) -> None:
    """Each new constant becomes the argument of the name of its role."""
    for role, constant in new.items():
        set_argument(node, role, constant)


def remade(
    argument: Node, role: str, expression: Operand, constants: Constants, views: tuple[Node, ...] = ()
) -> NewConstants:
    """A constant operand, made anew; none where ``expression`` is None, which is that nothing changes."""
    if expression is None:
        return ()
    base = constants.base(argument)
    return (NewConstant(role, base, base, value_of(argument).dtype, expression, views),)


def remade_bias(
    node: Node, bias: object, weight: Node, role: str, expression: Operand, constants: Constants
) -> NewConstants:
    """The bias of ``node``, made anew, or for the first time."""
    if expression is None or isinstance(bias, Node):
        return () if expression is None else remade(bias, role, expression, constants)  # type: ignore[arg-type]
    like = constants.base(weight)
    base = f"{like.removesuffix('weight')}bias" if like.endswith("weight") else f"{like}_bias"
    return (NewConstant(role, base, like, value_of(node).dtype, expression),)


def moved_bias(bias: Operand, scale: Operand, shift: Operand, factor: float = 1) -> Operand:
    """scale·factor·bias + shift; None where the affine does nothing to a bias."""
    if shift is None and (scale is None or bias is None):
        return None
    if bias is not None and factor != 1:
        bias = Expression(times, (bias, factor))
    return total(scaled(bias, scale), shift)


def times(x: Tensor, factor: float) -> Tensor:
    return x * factor


def require_axes(node: Node, affine: Affine, allowed: set[int], where: str) -> None:
    """
    Raises:
        AxisMismatch: the affine changes along another axis than those that the weight of ``node`` reaches.
    """
    if not set(affine.axes) <= allowed:
        raise AxisMismatch(
            f"the {where} of {node.name} is {affine.channels.dim()}-D: {short_name(node)} has its channels on axis"
            f" {_and(sorted(allowed))} and the affine is along axis {_and(affine.axes)}, so no weight can absorb it;"
            " if the channels were meant, transpose before it",
            "transpose before the normalisation, if the channels were meant",
        )


def require_no_shift(node: Node, affine: Affine) -> None:
    """
    Raises:
        CannotFold: the affine shifts, and ``node`` has no place for that.
    """
    if affine.shift is not None:
        raise CannotFold(f"{node.name} ({short_name(node)}) has no bias that could take the shift")


def require_input(node: Node, operand: Node, name: str) -> None:
    """
    Raises:
        CannotFold: ``operand`` is not, or not only, the argument ``name`` of ``node``.
    """
    given = arguments(node)
    if given[name] is not operand or any(value is operand for key, value in given.items() if key != name):
        raise CannotFold(f"{node.name} ({short_name(node)}) reads {operand.name} otherwise than as its {name}")


def _and(axes: list[int]) -> str:
    return " and ".join(map(str, axes))
