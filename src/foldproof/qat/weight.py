"""A weight that takes a scale of each output channel in: into its steps where it is quantized, else into itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.graph.nodes import set_argument
from foldproof.qat.image import Leaves
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import Dequantized, decomposed
from foldproof.qat.rewriting import Recipe, Rewriting
from foldproof.rewriting.refusal import CannotFold


def steps_of_channels(rewriting: Rewriting, operator: Operator, scale: Recipe | None) -> Recipe:
    """The scales of the quantized weight's channels, times ``scale``."""
    weight = operator.quantized_weight
    assert weight is not None

    def steps(leaves: Leaves) -> Tensor:
        if weight.axis is None:
            found: Tensor = torch.full((operator.channels,), weight.scale, dtype=torch.float64)
        else:  # of a transposed convolution in groups there are those of one group only
            found = rewriting.image.evaluate(weight.scale, leaves)
            found = found.repeat(operator.channels // len(found))
        return found if scale is None else found * scale(leaves)

    return steps


def scale_steps(rewriting: Rewriting, operator: Operator, at: Node, scale: Recipe) -> Recipe:
    """Multiplies the scales that the weight is dequantized with: from now on there is one for each channel.

    Where the scale is negative the whole numbers are turned around instead, so that steps stay positive.

    Returns:
        The size of ``scale``: what the steps were really multiplied by.

    Raises:
        CannotFold: the scale is 0 in a channel, or has no place in the weight, or numbers can't be turned around.
    """
    weight, image = operator.quantized_weight, rewriting.image
    assert weight is not None
    if operator.transposed and operator.groups > 1:
        raise CannotFold(
            f"{at.name} is transposed and has {operator.groups} groups, whose channels share the scales of its weight"
        )
    signs = scale(image.tensors).sign()
    _require(bool(signs.all()), at, signs == 0, "by 0, and the scale of a quantized weight is positive")
    turned = operator.along_channels(signs)
    size: Recipe = lambda leaves: scale(leaves) * signs  # noqa: E731

    def turned_around(leaves: Leaves) -> Tensor:
        q, zero = image.evaluate(weight.values, leaves), _zeros(rewriting, operator, weight, leaves)
        made: Tensor = (q.to(torch.float64) - zero) * turned + zero
        return made

    base = f"{at.name}_weight_folded"
    values = rewriting.now(weight.values)
    if bool((signs < 0).any()):
        after = operator.by_channel(turned_around(image.tensors)).flatten(1)
        beyond = (after < weight.quant_min).any(1) | (after > weight.quant_max).any(1)
        why = f"by a negative number, and its weight holds a {weight.quant_min}, which has no opposite"
        _require(not bool(beyond.any()), at, beyond, f"{why} in {weight.quant_min} to {weight.quant_max}")
        values = rewriting.constant(base, lambda leaves: turned_around(leaves).to(weight.dtype), weight.dtype)
    scales = rewriting.constant(f"{base}_scale", steps_of_channels(rewriting, operator, size), torch.float32)
    if isinstance(weight.zero_point, Node):
        zeros = rewriting.now(weight.zero_point)
    else:
        zero = int(weight.zero_point)
        zeros = rewriting.constant(
            f"{base}_zero_point", lambda _: torch.full((operator.channels,), zero, dtype=torch.int64), torch.int64
        )
    limits = (weight.quant_min, weight.quant_max, weight.dtype)
    target = decomposed.dequantize_per_channel.default
    set_argument(at, "weight", rewriting.call(at, target, values, scales, zeros, operator.weight_axis, *limits))
    return size


def scale_weight(rewriting: Rewriting, operator: Operator, at: Node, scale: Recipe | None) -> None:
    """A weight that is not quantized: what it is computed as, times the scale, becomes one constant."""
    image = rewriting.image
    if scale is None and operator.weight in image.names:
        return

    def weight(leaves: Leaves) -> Tensor:
        found: Tensor = image.evaluate(operator.weight, leaves)
        return found if scale is None else found * operator.along_channels(scale(leaves))

    own = rewriting.image.origins(operator.weight)
    like = rewriting.now(own[0]) if own else None
    node = rewriting.constant(f"{at.name}_weight_folded", weight, operator.dtype, like)
    set_argument(at, "weight", node)


def _require(holds: bool, at: Node, wrong: Tensor, why: str) -> None:
    if not holds:
        numbers = wrong.nonzero().flatten().tolist()
        channels = f"channel{'s'[: len(numbers) > 1]} {', '.join(map(str, numbers))}"
        raise CannotFold(f"what follows {at.name} scales {channels} {why}: fold before the weight is quantized")


def _zeros(rewriting: Rewriting, operator: Operator, weight: Dequantized, leaves: Leaves) -> Any:
    zero = rewriting.image.evaluate(weight.zero_point, leaves)
    return operator.along_channels(zero) if isinstance(zero, Tensor) else zero
