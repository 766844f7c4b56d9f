"""The two rewrites, as passes of the kind that ``torch.fx`` and ExecuTorch run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from foldproof.fusion.nodes import set_argument
from foldproof.program.nodes import operator_name, source_of
from foldproof.qat.bias import Bias, give_bias, is_right, weight_scales
from foldproof.qat.chain import AffineOf, CannotFold, Chain, ChannelAffine, chain_of, is_one
from foldproof.qat.host import host_of
from foldproof.qat.image import Image, Leaves
from foldproof.qat.observers import Moved, moved_behind, quantized_anyway, step_of
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import Dequantized, Quantization, decomposed
from foldproof.qat.rewriting import Recipe, Rewriting
from foldproof.verdict import ApproximationStep

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Folded:
    """What was done to one linear operator.

    ``chain`` names the operators that are gone; ``exact`` says that their scale is 1 whatever the parameters are, so
    that the weight is as it was. ``steps`` are the quantizations in between that were left out or moved.
    """

    node: str
    source: str | None
    chain: tuple[str, ...]
    exact: bool
    bias: Bias
    steps: tuple[ApproximationStep, ...] = ()


@dataclass(frozen=True)
class Declined:
    """A chain that was left standing, and why."""

    node: str
    operator: str
    source: str | None
    reason: str


@dataclass
class Account:
    """What a pass did."""

    folded: list[Folded] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)
    bypassed: list[str] = field(default_factory=list)
    """Quantizations of the program before, by node, that were left out or moved,"""
    added: list[str] = field(default_factory=list)
    """and of the program after, where they were moved to."""


class _Pass(PassBase):
    """Rewrites a graph in place. Its constants are the module's attributes, or those of the program that it is of.

    Args:
        exported_program: the program whose graph is given, if it is one's; None for a graph module with get_attr nodes.
        quantize_bias: False leaves biases in floating point, for backends that quantize them by themselves (XNNPACK).
        shapes: of values by node name, where nodes have no ``meta["val"]``.
    """

    def __init__(
        self,
        exported_program: ExportedProgram | None = None,
        *,
        quantize_bias: bool = True,
        shapes: Shapes | None = None,
    ) -> None:
        super().__init__()
        self.exported_program, self.quantize_bias, self.shapes = exported_program, quantize_bias, shapes or {}
        self.account = Account()
        self.rewriting: Rewriting | None = None

    def call(self, graph_module: GraphModule) -> PassResult:
        host = host_of(self.exported_program or graph_module)
        self.account = Account()
        self.rewriting = rewriting = Rewriting(host, Image(host))
        for node in list(host.graph.nodes):
            operator = Operator.of(rewriting.image.twins[node], rewriting.image)
            if operator is not None:
                self.rewrite(rewriting, operator, node)
        host.finish()
        return PassResult(graph_module, bool(rewriting.recipes))

    def rewrite(self, rewriting: Rewriting, operator: Operator, at: Node) -> None:
        """Rewrite what begins at the host's node ``at``, of which ``operator`` is the image."""
        raise NotImplementedError

    def shape(self, node: Node) -> torch.Size:
        value = node.meta.get("val")
        if node.name in self.shapes:
            return self.shapes[node.name]
        if not isinstance(value, Tensor) or not all(isinstance(n, int) for n in value.shape):
            raise CannotFold(f"the shape of {node.name} is not known: use foldproof.fold_qat with example inputs")
        return value.shape


class QuantizeFusedConvBnBias(_Pass):
    """Gives every linear operator of quantized operands an int32 bias: zeros where it has none.

    A bias that is quantized with another scale or zero point than the accumulator's is expressed anew.
    """

    def rewrite(self, rewriting: Rewriting, operator: Operator, at: Node) -> None:
        image = rewriting.image
        if not self.quantize_bias or operator.input is None or operator.quantized_weight is None:
            return
        if is_right(operator.bias, operator, image):
            return
        channels = _channels(operator, image)

        def real(leaves: Leaves) -> Tensor:
            if operator.bias is None:
                return torch.zeros(channels, dtype=torch.float64)
            found: Tensor = image.evaluate(operator.bias, leaves)
            return found

        bias = give_bias(rewriting, operator, at, real, None, True)
        self.account.folded.append(Folded(at.name, source_of(at), (), True, bias))


class FoldQATConvBN(_Pass):
    """Folds what follows a linear operator, and is an affine of each of its channels, into its bias and weight scale.

    In torchao's simulation of a folded BatchNorm, y = BatchNorm(conv(x, s·w)/s + b) with s = γ/√(σ²+ε), the scales cancel
    and C = (b − μ)·s + β is left, which goes into the bias. A scale that does not cancel goes, where it is positive, into
    the scale that the weight is dequantized with; a weight that is not quantized is multiplied by it.
    """

    def rewrite(self, rewriting: Rewriting, operator: Operator, at: Node) -> None:
        chain = chain_of(operator.node, rewriting.image)
        if chain is None:
            return
        try:
            self._fold(rewriting, operator, at, chain)
        except CannotFold as refusal:
            end = chain.end
            self.account.declined.append(Declined(end.name, operator_name(end), source_of(end), str(refusal)))

    def _fold(self, rewriting: Rewriting, operator: Operator, at: Node, chain: Chain) -> None:
        image = rewriting.image
        shape = self.shape(operator.node)
        weight_rank = image.evaluate(operator.weight, image.tensors).dim()
        affine = AffineOf(chain, image, tuple(shape), operator.axis(len(shape), weight_rank))
        with torch.no_grad():
            at_hand = affine(image.tensors)
        exact = is_one(affine, image.tensors)
        scale: Recipe | None = None if exact else lambda leaves: affine(leaves).scale
        quantized = operator.quantized_weight
        if quantized is None and Dequantized.of(operator.weight) is not None:
            raise CannotFold(f"the weight of {at.name} is quantized along another axis than its output channels")
        if scale is not None and quantized is not None:
            _require_scalable(operator, at_hand, at)
        if not bool(torch.isfinite(at_hand.scale).all() and torch.isfinite(at_hand.shift).all()):
            raise CannotFold(f"what follows {at.name} is not finite: a variance + eps is 0, or a scale is 0")
        moves = [(p, None if quantized_anyway(chain.end) else moved_behind(p, at_hand)) for p in chain.pairs[-1:]]
        moves = [(p, None) for p in chain.pairs[:-1]] + moves
        steps = tuple(step_of(p, moved, at_hand, operator, image) for p, moved in moves)

        def real(leaves: Leaves) -> Tensor:
            """The bias after: the old one is scaled, too."""
            found = affine(leaves)
            if operator.bias is None:
                return found.shift
            old: Tensor = image.evaluate(operator.bias, leaves)
            return (old if exact else old * found.scale) + found.shift

        if quantized is None:
            self._scale_weight(rewriting, operator, at, scale)
        bias = give_bias(rewriting, operator, at, real, scale, self.quantize_bias)
        if quantized is not None and scale is not None:
            _scale_steps(rewriting, operator, at, quantized, scale, len(bias.value))
        self._leave_out(rewriting, chain, at, moves)
        names = tuple(node.name for node, _ in chain.computing)
        self.account.folded.append(Folded(at.name, source_of(chain.end), names, exact, bias, steps))

    def _scale_weight(self, rewriting: Rewriting, operator: Operator, at: Node, scale: Recipe | None) -> None:
        """A weight that is not quantized: what it is computed as, times the scale, is one constant."""
        image = rewriting.image
        if scale is None and operator.weight in image.names:
            return

        def weight(leaves: Leaves) -> Tensor:
            found: Tensor = image.evaluate(operator.weight, leaves)
            return found if scale is None else _along_outputs(found, scale(leaves), operator)

        dtype = image.evaluate(operator.weight, image.tensors).dtype
        held = [image.tensors[name].dtype for node, name in image.names.items() if node is operator.weight]
        node = rewriting.constant(f"{at.name}_weight_folded", weight, held[0] if held else _narrow(dtype))
        set_argument(at, "weight", node)

    def _leave_out(
        self, rewriting: Rewriting, chain: Chain, at: Node, moves: list[tuple[Quantization, Moved | None]]
    ) -> None:
        """Every node that computes something is replaced by what it reads; views stay."""
        hosts = {twin: node for node, twin in rewriting.image.twins.items()}
        self.account.bypassed += [pair.quantize.name for pair, _ in moves]
        end = hosts[chain.end]
        readers = list(end.users)
        for node, operand in chain.computing:
            hosts[node].replace_all_uses_with(_now(hosts[operand]))
        value = _now(hosts[chain.end])
        for _, moved in moves:
            if moved is not None:
                numbers = (moved.scale, moved.zero_point, moved.quant_min, moved.quant_max, moves[-1][0].dtype)
                before = next(n for n in rewriting.host.graph.nodes if n in readers)
                q = rewriting.call(before, decomposed.quantize_per_tensor.default, value, *numbers)
                back = rewriting.call(before, decomposed.dequantize_per_tensor.default, q, *numbers)
                for reader in readers:
                    reader.replace_input_with(value, back)
                self.account.added.append(q.name)
