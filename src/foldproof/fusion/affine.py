"""Operators that are a scale and a shift of each channel, read from the graph as what they are."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.fusion.constants import Constants
from foldproof.fusion.examples import Declines, Fires, batch_norm_declines, batch_norm_fires
from foldproof.fusion.expression import Expression
from foldproof.fusion.nodes import arguments, aten, listed, value_of
from foldproof.fusion.refusal import CannotFold


@dataclass(frozen=True)
class ChannelAffine:
    """``y = scale·x + shift``, where scale and shift are vectors along one axis of x and constant along the others."""

    axis: int
    scale: Expression
    shift: Expression


@dataclass(frozen=True)
class Site:
    """A `ChannelAffine` where it stands: ``node`` computes it of ``input``; its value is read from ``results``."""

    node: Node
    input: Node
    results: tuple[Node, ...]
    affine: ChannelAffine


class BatchNorm:
    """Batch normalisation with fixed statistics is an affine of each channel, axis 1.

    γ·(x − μ)/√(σ² + ε) + β = scale·x + shift, with scale = γ·(σ² + ε)^(-1/2) and shift = β − μ·scale
    (Ioffe and Szegedy 2015, section 3.1). Without γ and β they are 1 and 0.
    """

    id = "batch_norm"
    operators = frozenset(
        {
            aten.batch_norm.default,
            aten.native_batch_norm.default,
            aten._native_batch_norm_legit.default,
            aten._native_batch_norm_legit_no_training.default,
            aten._batch_norm_no_update.default,
        }
    )
    # Never with fixed statistics; known, so that they are reported.
    training_operators = frozenset(
        {
            aten._native_batch_norm_legit.no_stats,
            aten._native_batch_norm_legit_functional.default,
            aten._batch_norm_with_update.default,
            aten._batch_norm_with_update_functional.default,
        }
    )
    fires: tuple[Fires, ...] = batch_norm_fires
    declines: tuple[Declines, ...] = batch_norm_declines

    def takes(self, node: Node) -> bool:
        """Is it a batch normalisation, of any kind?"""
        return node.target in self.operators or node.target in self.training_operators

    def read(self, node: Node, constants: Constants) -> Site:
        """The affine that ``node`` computes.

        Raises:
            CannotFold: it computes its statistics from the batch, or its operands are not constants, or more is read
                of it than the normalised value.
        """
        given = arguments(node)
        if constants.holds(given["input"]):
            raise CannotFold("it standardises a weight, not what the network computes (as in BiT and NFNet)")
        if given.get("running_mean") is None or given.get("running_var") is None:
            raise CannotFold(
                "it keeps no running statistics and computes them from each batch (track_running_stats=False)"
            )
        if given.get("training") or node.target in self.training_operators:
            raise CannotFold("it is in training mode and computes its statistics from each batch: call model.eval()")
        weight = constants.optional(given["weight"], "its weight")
        bias = constants.optional(given["bias"], "its bias")
        mean = constants.name(given["running_mean"], "its running mean")
        variance = constants.name(given["running_var"], "its running variance")
        scale = Expression(batch_norm_scale, (weight, variance, given["eps"]))
        shift = Expression(batch_norm_shift, (bias, mean, scale))
        return Site(node, given["input"], _results(node), ChannelAffine(1, scale, shift))


def batch_norm_scale(weight: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    scale = torch.rsqrt(variance + eps)
    return scale if weight is None else weight * scale


def batch_norm_shift(bias: Tensor | None, mean: Tensor, scale: Tensor) -> Tensor:
    shift = -mean * scale
    return shift if bias is None else bias + shift


def _results(node: Node) -> tuple[Node, ...]:
    """The nodes that hold the normalised value: of operators that return saved statistics too, getitem 0."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        return (node,)
    results = tuple(user for user in node.users if user.target is operator.getitem and user.args[1] == 0)
    others = [user for user in node.users if user not in results]
    if others:
        raise CannotFold(f"the statistics that it saves beside its result are read by {listed(others)}")
    if not results:
        raise CannotFold("nothing reads its result")
    for result in results:
        value_of(result)
    return results


SOURCES = (BatchNorm(),)
"""Every operator that is read as an affine."""
