"""Limits of values: a number times a clamp is a clamp with other limits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch.fx import Node

from foldproof.fusion import examples
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Declines, Fires
from foldproof.graph.nodes import arguments, aten, kind_of, set_operator
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.edit import Edit
from foldproof.rewriting.expression import as_expression
from foldproof.rewriting.refusal import CannotFold


class Limits:
    """k·clamp(x, low, high) + m = clamp(k·x + m, k·low + m, k·high + m) for plain numbers k > 0 and m.

    A number k < 0 exchanges the limits. The same holds for relu, relu6 and hardtanh, which become a clamp. It is tried
    where nothing else takes the affine, since readers that do leave the limits as they are. Scales of channels would
    need limits of channels, and a parameter is no number.
    """

    id = "limits"
    fires: tuple[Fires, ...] = examples.limits_fires
    declines: tuple[Declines, ...] = examples.limits_declines

    def takes(self, node: Node) -> bool:
        """Return True for a clamp whose limits are numbers."""
        return _read(node) is not None

    def up(self, node: Node, affine: Affine, constants: Constants) -> tuple[dict[Node, Affine], Edit]:
        """Return the affine of the operand with which ``node`` computes ``affine`` of its old value, and other limits.

        Raises:
            CannotFold: the affine is no number, or is 0.
        """
        numbers = [None if x is None else as_expression(x) for x in (affine.scale, affine.shift)]
        if affine.count != 1 or any(tuple(x.reads()) for x in numbers if x is not None):
            raise CannotFold(f"{node.name} has limits that are numbers, so only a number passes it")
        scale, shift = (
            none if x is None else float(constants.value(x)) for x, none in zip(numbers, (1.0, 0.0), strict=True)
        )
        if not scale or not math.isfinite(scale) or not math.isfinite(shift):
            raise CannotFold(f"{node.name} would lose its operand")
        limits = [None if limit is None else limit * scale + shift for limit in _read(node) or ()]
        low, high = limits if scale > 0 else limits[::-1]
        [x] = node.all_input_nodes
        return {x: affine}, Edit("", node, (), partial(_install, low, high))


def _read(node: Node) -> tuple[float | None, float | None] | None:
    """Return the limits of a clamp; None for any other node."""
    if node.op != "call_function" or len(node.all_input_nodes) != 1:
        return None
    kind = kind_of(node)
    fixed: dict[str, tuple[float, float | None]] = {"relu": (0.0, None), "relu6": (0.0, 6.0)}
    names = {"hardtanh": ("min_val", "max_val"), "clamp": ("min", "max")}
    names |= {"clamp_min": ("min", ""), "clamp_max": ("", "max")}
    if kind in fixed:
        return fixed[kind]
    if kind not in names:
        return None
    given: dict[str, Any] = arguments(node)
    low, high = (given.get(name) for name in names[kind])
    return low, high


def _install(low: float | None, high: float | None, node: Node, new: Mapping[str, Node]) -> None:
    [x] = node.all_input_nodes
    set_operator(node, aten.clamp.default)
    node.args, node.kwargs = (x, low) if high is None else (x, low, high), {}
