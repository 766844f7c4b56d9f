"""The two rewrites of a linear operator: fold its chain into its bias and weight, and quantize its bias.

This module plans them as edits; `fold_pass` proves them and carries them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.fx import Node

from foldproof.graph.nodes import insert_call
from foldproof.graph.region import collect_dependencies
from foldproof.graph.text import source_of
from foldproof.qat.bias import Bias, is_integer_bias, plan_float_bias, plan_integer_bias, read_bias, require_unit
from foldproof.qat.chain import Chain, ChainAffine, find_chain
from foldproof.qat.context import Context
from foldproof.qat.observers import Moved, leave_out
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import Dequantized, decomposed
from foldproof.qat.weight import fill, scale_steps, scale_weight
from foldproof.rewriting.edit import Edit, PlannedEdits
from foldproof.rewriting.expression import Expression, Operand
from foldproof.rewriting.refusal import CannotFold
from foldproof.rewriting.rewrite import RewrittenRegion, cut_rewrite
from foldproof.rewriting.vectors import product, total
from foldproof.verdict import ApproximationStep


@dataclass(frozen=True)
class Folded:
    """An account of the fold into one linear operator, ``node``.

    ``chain`` names the removed operators. ``exact`` is True if their scale is 1 for all parameters, so that the weight
    is unchanged. ``steps`` are the quantizations in between that were left out or moved.
    """

    node: str
    source: str | None
    chain: tuple[str, ...]
    exact: bool
    bias: Bias
    steps: tuple[ApproximationStep, ...] = ()


@dataclass(frozen=True)
class Fold:
    """A plan: edits with their constants, and the chain to remove. ``moved`` is the quantization that follows it then.

    ``without`` are the quantizations that the proof leaves out, as a map from nodes to those that their readers read
    instead. ``rounded`` is True if nothing that the bias depends on varies: both sides of the proof then have the
    rounded bias, and the proof is about the rest alone.
    """

    operator: Operator
    planned: PlannedEdits
    account: Folded
    chain: Chain | None = None
    moved: Moved | None = None
    without: Mapping[Node, Node] = field(default_factory=dict)
    rounded: bool = False

    def region(self, context: Context) -> RewrittenRegion:
        """Cut out the operator and its chain, before and after, without quantizations that were left out or moved."""
        nodes = [self.operator.node]
        if self.chain is not None:
            nodes += collect_dependencies([self.chain.end], lambda n: n is nodes[0] or context.is_given(n))
        numbers = {x: context.sizes.number(x) for node in nodes for x in node.all_input_nodes if context.is_number(x)}
        before = self.planned if self.rounded else ()
        return cut_rewrite(
            context.editor, nodes, self.planned, self._gone(), known=numbers, before=before, without=self.without
        )

    def carry_out(self, context: Context) -> None:
        """Apply the plan to the program."""
        gone = self._gone()
        if self.moved is not None and self.chain is not None:
            end, m = self.chain.end, self.moved
            numbers = (m.scale, m.zero_point, m.quant_min, m.quant_max, m.dtype)
            origin = self.operator.node
            q = insert_call(end, origin, decomposed.quantize_per_tensor.default, gone[end], *numbers)
            gone[end] = insert_call(end, origin, decomposed.dequantize_per_tensor.default, q, *numbers)
        context.editor.carry_out(self.planned, gone)
        self.account.bias.warn(self.account.node)

    def _gone(self) -> dict[Node, Node]:
        """Map every node of the chain except views to the node that its readers read instead."""
        gone: dict[Node, Node] = {}
        for node, operand in self.chain.going if self.chain is not None else ():
            gone[node] = gone.get(operand, operand)
        return gone


def fold_chain(context: Context, operator: Operator, quantize_bias: bool) -> Fold | None:
    """Plan to fold the chain after the operator into its bias and weight; None if there is no chain.

    In torchao's simulation of a folded BatchNorm, y = BatchNorm(conv(x, s·w)/s + b) with s = γ/√(σ²+ε), the scales
    cancel, and the rest C = (b − μ)·s + β goes into the bias. A scale that does not cancel is multiplied into the scale
    of a quantized weight, or else into the weight itself.

    Raises:
        CannotFold: the chain can't be folded; the message has the reason.
    """
    at = operator.node
    chain = find_chain(at, context)
    if chain is None:
        return None
    affine = ChainAffine(chain, context, operator.axis(len(context.sizes.shape(at))))
    now = affine.between(chain.start, chain.end)
    if not bool(torch.isfinite(now.scale).all() and torch.isfinite(now.shift).all()):
        raise CannotFold(f"the affine after {at.name} is not finite: a variance + eps is 0, or a scale is 0")
    exact = affine.is_exact()
    quantized = Dequantized.of(operator.weight) is not None
    if quantized and operator.quantized_weight is None and not exact:
        raise CannotFold(f"the weight of {at.name} is quantized along another axis than its output channels")
    moved, steps = leave_out(chain, affine, operator, context)
    scale: Operand = None if exact else affine.scale
    old = None if operator.bias is None else product(context.expression(operator.bias), scale)
    real = total(old, affine.shift)
    whole = quantize_bias and _is_quantized(operator)
    if whole:
        require_unit(context, operator, scale)
    edits: list[Edit] = []
    if not quantized:
        edits += scale_weight(context, operator, scale)
    elif scale is not None:
        edit, scale = scale_steps(context, operator, scale)
        edits.append(edit)
    if whole:
        edits.append(plan_integer_bias(context, operator, real, scale))
    else:
        edits.append(plan_float_bias(context, operator, real))
    planned = context.editor.draft_all(edits)
    bias = read_bias(context, operator, real, scale, planned[-1][1])
    names = tuple(node.name for node, _ in chain.going)
    account = Folded(at.name, source_of(chain.end), names, exact, bias, steps)
    return Fold(operator, planned, account, chain, moved, {p.dequantize: p.operand for p in chain.pairs})


def quantize_bias(context: Context, operator: Operator) -> Fold | None:
    """Plan an int32 bias for an operator with quantized input and weight; zeros if it has no bias.

    None if it has one in the accumulator's unit already. One in another unit is converted.

    Raises:
        CannotFold: a shape is unknown, or the accumulator's unit is not a normal number of float32.
    """
    at = operator.node
    if not _is_quantized(operator) or is_integer_bias(context, operator):
        return None
    require_unit(context, operator, None)
    none = Expression(fill, (0.0, operator.channels))
    real: Operand = none if operator.bias is None else context.expression(operator.bias)
    planned = context.editor.draft_all([plan_integer_bias(context, operator, real, None)])
    bias = read_bias(context, operator, real, None, planned[0][1])
    if operator.bias is None or context.origins(operator.bias):
        return Fold(operator, planned, Folded(at.name, source_of(at), (), True, bias))
    step = ApproximationStep(f"{bias.name} is {operator.bias.name}, rounded to steps of {bias.step:.3g}", bias.bound)
    return Fold(operator, planned, Folded(at.name, source_of(at), (), True, bias, (step,)), rounded=True)


def _is_quantized(operator: Operator) -> bool:
    return operator.input is not None and operator.quantized_weight is not None
