"""The two rewrites of one linear operator: its chain into its bias and weight, and its bias into whole numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import Node

from foldproof.graph.nodes import arguments
from foldproof.graph.text import source_of
from foldproof.qat.bias import Bias, float_bias, is_right, require_unit, whole_bias
from foldproof.qat.chain import AffineOf, Chain, chain_of, is_one
from foldproof.qat.image import Leaves
from foldproof.qat.observers import Moved, left_out
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import Dequantized, decomposed
from foldproof.qat.rewriting import Claim, Recipe, Rewriting
from foldproof.qat.weight import scale_steps, scale_weight
from foldproof.rewriting.refusal import CannotFold
from foldproof.verdict import ApproximationStep


@dataclass(frozen=True)
class Folded:
    """What was done to one linear operator, ``node``.

    ``chain`` names the operators that are gone; ``exact`` says that their scale is 1 whatever the parameters are, so
    that the weight is as it was. ``steps`` are the quantizations in between that were left out or moved.
    """

    node: str
    source: str | None
    chain: tuple[str, ...]
    exact: bool
    bias: Bias
    claim: Claim = field(repr=False, compare=False)
    steps: tuple[ApproximationStep, ...] = ()


def fold_chain(rewriting: Rewriting, operator: Operator, quantize_bias: bool) -> Folded | None:
    """Folds the affine of each channel that follows the operator into its bias and weight; None if nothing follows.

    In torchao's simulation of a folded BatchNorm, y = BatchNorm(conv(x, s·w)/s + b) with s = γ/√(σ²+ε), the scales
    cancel and C = (b − μ)·s + β is left, which goes into the bias. A scale that does not cancel goes into the scale
    that the weight is dequantized with; a weight that is not quantized is multiplied by it.

    Raises:
        CannotFold: it can't be, and why. Nothing that the program reads has changed.
    """
    image, at = rewriting.image, rewriting.now(operator.node)
    chain = chain_of(operator.node, image)
    if chain is None:
        return None
    affine = AffineOf(chain, image, operator.axis(len(image.shape(operator.node))))
    now = affine(image.tensors)
    if not bool(torch.isfinite(now.scale).all() and torch.isfinite(now.shift).all()):
        raise CannotFold(f"what follows {at.name} is not finite: a variance + eps is 0, or a scale is 0")
    exact = is_one(affine, image.tensors)
    quantized = Dequantized.of(operator.weight) is not None
    if quantized and operator.quantized_weight is None and not exact:
        raise CannotFold(f"the weight of {at.name} is quantized along another axis than its output channels")
    moved, steps = left_out(chain, affine, operator, image)

    def real(leaves: Leaves) -> Tensor:
        """The bias after; the old one is scaled, too."""
        found = affine(leaves)
        if operator.bias is None:
            return found.shift
        old: Tensor = image.evaluate(operator.bias, leaves)
        return (old if exact else old * found.scale) + found.shift

    scale: Recipe | None = None if exact else lambda leaves: affine(leaves).scale
    whole = quantize_bias and _is_quantized(operator)
    if whole:
        require_unit(rewriting, operator, scale)
    if not quantized:
        scale_weight(rewriting, operator, at, scale)
    elif scale is not None:
        scale = scale_steps(rewriting, operator, at, scale)
    bias = whole_bias(rewriting, operator, at, real, scale) if whole else float_bias(rewriting, operator, at, real)
    end = _leave_out(rewriting, chain, moved)
    pairs = {pair.quantize: pair.operand for pair in chain.pairs} | {p.dequantize: p.quantize for p in chain.pairs}
    claim = rewriting.claim(chain.end, end, operator.data, operator.dtype, pairs)
    names = tuple(node.name for node, _ in chain.going)
    return Folded(at.name, source_of(chain.end), names, exact, bias, claim, steps)


def quantize_bias(rewriting: Rewriting, operator: Operator) -> Folded | None:
    """Gives an operator of quantized input and weight an int32 bias; zeros where it has none.

    None if it has one in the accumulator's unit already. One in another unit is expressed anew.

    Raises:
        CannotFold: a shape is not known, or the accumulator's unit is no number of float32.
    """
    image, at = rewriting.image, rewriting.now(operator.node)
    if not _is_quantized(operator) or is_right(operator, image):
        return None
    require_unit(rewriting, operator, None)

    def real(leaves: Leaves) -> Tensor:
        if operator.bias is None:
            return torch.zeros(operator.channels, dtype=torch.float64)
        found: Tensor = image.evaluate(operator.bias, leaves)
        return found

    bias = whole_bias(rewriting, operator, at, real, None)
    if operator.bias is None or image.origins(operator.bias):
        claim = rewriting.claim(operator.node, at, operator.data, operator.dtype, {})
        return Folded(at.name, source_of(at), (), True, bias, claim)
    # Nothing that it is computed from may vary: then the rest is proved, and how far the two are apart is known.
    instead = {operator.bias: arguments(at)["bias"]}
    claim = rewriting.claim(operator.node, at, operator.data, operator.dtype, instead)
    step = ApproximationStep(f"{bias.name} is {operator.bias.name}, rounded to steps of {bias.step:.3g}", bias.bound)
    return Folded(at.name, source_of(at), (), True, bias, claim, (step,))


def _is_quantized(operator: Operator) -> bool:
    return operator.input is not None and operator.quantized_weight is not None


def _leave_out(rewriting: Rewriting, chain: Chain, moved: Moved | None) -> Node:
    """Every node of the chain that is no view is replaced by what it reads.

    Returns the host's node that holds what the chain's end held, before it is quantized by what was ``moved`` there.
    """
    for node, operand in chain.going[:-1]:
        rewriting.succeed(rewriting.now(node), rewriting.now(operand))
    end, value = rewriting.now(chain.end), rewriting.now(chain.going[-1][1])
    after = value
    if moved is not None:
        numbers = (moved.scale, moved.zero_point, moved.quant_min, moved.quant_max, moved.dtype)
        q = rewriting.call(end, decomposed.quantize_per_tensor.default, value, *numbers)
        after = rewriting.call(end, decomposed.dequantize_per_tensor.default, q, *numbers)
    rewriting.succeed(end, after)
    return value
