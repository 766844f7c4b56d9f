"""The interface of motions, and their shared functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from foldproof.errors import brief
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.graph.nodes import (
    arguments,
    is_getitem,
    kind_of,
    operator_node,
    operator_of,
    set_sizes,
    short_name,
)
from foldproof.log import log_caught
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.refusal import CannotFold, next_training
from foldproof.rewriting.sizes import value_of
from foldproof.rewriting.vectors import UNREAD

Affines = Mapping[Node, Affine]


class Motion(Protocol):
    """A rule by which an affine moves through operators that it commutes with. The docstring states the algebra."""

    id: str
    conditional: bool
    """True if the rule holds only for scales of one sign."""
    fires: tuple[Fires, ...]
    declines: tuple[Declines, ...]

    def takes(self, node: Node) -> bool:
        """Return True if this rule knows the operator."""

    def up(self, node: Node, affine: Affine, constants: Constants, side: int) -> dict[Node, Affine]:
        """Return the affines of the operands with which ``node`` computes ``affine`` of its old value.

        If only one of two operands has to take the affine, or a part of it, ``side`` selects the operand.

        Raises:
            CannotFold: there are none.
        """

    def down(self, node: Node, carried: Affines, constants: Constants) -> Affine:
        """Return the affine that the value of ``node`` lacks if its operands lack the ``carried`` affines.

        Raises:
            CannotFold: there is none.
        """


def find_sizes(node: Node) -> torch.Size:
    """Return the shape of a node's value, at the sizes that the program was exported with."""
    return torch.Size(set_sizes(value_of(node).shape))


def run_on(node: Node, numbered: Callable[[Node], Tensor]) -> Tensor:
    """Run the operator of ``node`` on other tensors, at the sizes that the program was exported with.

    Raises:
        CannotFold: the operator refuses them.
    """
    target = operator_node(node)
    operator = operator_of(target)
    assert operator is not None

    def given(x: Node) -> Any:
        return numbered(x) if isinstance(x.meta.get("val"), torch.Tensor) else set_sizes(x.meta.get("val"))

    args, kwargs = map_arg(target.args, given), map_arg(dict(target.kwargs), given)
    kwargs = {name: value for name, value in kwargs.items() if name not in ("dtype", "device", "layout")}
    args, kwargs = set_sizes(args), set_sizes(kwargs)
    if kind_of(target) in ("_to_copy", "to"):
        out: Any = args[0]
    else:
        try:
            out = operator(*args, **kwargs)
        except Exception as error:
            log_caught(error, f"running {node.name} on numbers of channels")
            refused = f"{node.name} ({short_name(node)}) does not run on channel numbers: {brief(error)}"
            raise CannotFold(refused) from error
    result = out[node.args[1]] if is_getitem(node) else out
    assert isinstance(result, Tensor)
    return result


def find_combined_axes(node: Node, x: Node) -> list[int]:
    """List the axes of x whose elements the operator combines."""
    rank = value_of(x).dim()
    given = arguments(node)
    if "dim" in given:
        dims = given["dim"] if isinstance(given["dim"], (list, tuple)) else [given["dim"]]
        return sorted({int(d) % rank for d in dims}) if dims and dims[0] is not None else list(range(rank))
    spatial = next(
        int(c) for c in reversed(kind_of(node).removesuffix("_with_indices").removesuffix("_aa")) if c.isdigit()
    )
    return list(range(rank - spatial, rank))


def require_constant_along(node: Node, affine: Affine, axes: list[int]) -> None:
    if any(axis in axes for axis in affine.axes):
        raise CannotFold(f"{node.name} ({short_name(node)}) combines elements of several channels")


def require_no_negative(node: Node, affine: Affine, constants: Constants) -> None:
    if affine.scale is None:
        return
    used = affine.channels[affine.channels != UNREAD].unique()
    scale = constants.value(affine.scale).reshape(-1)[used]
    if not bool((scale >= 0).all()):
        count = int((scale < 0).sum())
        raise CannotFold(
            f"{count} of {len(scale)} scales are negative, and would reverse the order in {node.name}",
            next_training(f"normalise before {node.name}, or keep the weights of the normalisation positive"),
        )
