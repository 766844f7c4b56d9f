"""The two rewrites, as passes of the kind that ``torch.fx`` and ExecuTorch run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from foldproof.fusion.exported import ExportedHost
from foldproof.fusion.module import ModuleHost, copied_module
from foldproof.fusion.nodes import operator_of, set_argument
from foldproof.fusion.refusal import CannotFold
from foldproof.fusion.result import Declined
from foldproof.program.nodes import operator_name, source_of
from foldproof.qat.bias import Bias, give_bias, is_right, weight_scales
from foldproof.qat.chain import AffineOf, Chain, ChannelAffine, chain_of, is_one
from foldproof.qat.image import Leaves
from foldproof.qat.observers import Moved, moved_behind, quantized_anyway, step_of
from foldproof.qat.operators import Operator
from foldproof.qat.quantization import DEQUANTIZE, QUANTIZE, Dequantized, Quantization, decomposed
from foldproof.qat.region import region
from foldproof.qat.rewriting import Recipe, Rewriting
from foldproof.verdict import ApproximationStep

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True)
class Claim:
    """What is to be proved of one rewrite: two programs of one input, and how the new constants are computed.

    ``before`` is without the quantizations that were left out, ``after`` without those that were moved.
    """

    before: GraphModule
    after: GraphModule
    shape: tuple[int, ...]
    derive: Callable[[Leaves], dict[str, Tensor]]


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
    steps: tuple[ApproximationStep, ...] = ()
    claim: Claim | None = field(default=None, repr=False, compare=False)


@dataclass
class Account:
    """What a pass did."""

    folded: list[Folded] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)


class _Pass(PassBase):
    """Rewrites a GraphModule in place when it is called; `transform` makes a new program of one of either form.

    Args:
        quantize_bias: False leaves biases in floating point, for backends that quantize them by themselves (XNNPACK).
        shapes: of values by node name, where nodes have no ``meta["val"]``.
        skipped: linear operators, by node name, that are left as they are.
    """

    def __init__(
        self, *, quantize_bias: bool = True, shapes: Shapes | None = None, skipped: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.quantize_bias, self.shapes, self.skipped = quantize_bias, shapes or {}, skipped
        self.account = Account()

    def call(self, graph_module: GraphModule) -> PassResult:
        self._run(Rewriting(ModuleHost(graph_module)))
        return PassResult(graph_module, bool(self.account.folded))

    def transform(self, program: GraphModule | ExportedProgram) -> GraphModule | ExportedProgram:
        """The rewritten program; the given one is not changed, and shares with it what stays."""
        host = ModuleHost(copied_module(program)) if isinstance(program, GraphModule) else ExportedHost(program)
        made: GraphModule | ExportedProgram = self._run(Rewriting(host))
        return made

    def _run(self, rewriting: Rewriting) -> GraphModule | ExportedProgram:
        self.account = Account()
        with torch.no_grad():
            for node in list(rewriting.host.graph.nodes):
                operator = Operator.of(rewriting.image.twins[node], rewriting.image)
                if operator is not None and node.name not in self.skipped:
                    self.rewrite(rewriting, operator, node)
        made: GraphModule | ExportedProgram = rewriting.finish()
        return made

    def rewrite(self, rewriting: Rewriting, operator: Operator, at: Node) -> None:
        """Rewrite what begins at the host's node ``at``, of which ``operator`` is the image."""
        raise NotImplementedError

    def _shape(self, node: Node) -> tuple[int, ...]:
        value = node.meta.get("val")
        shape = self.shapes.get(node.name, value.shape if isinstance(value, Tensor) else None)
        if shape is None or not all(isinstance(n, int) for n in shape):
            raise CannotFold(f"the shape of {node.name} is not known: give foldproof.fold_qat example inputs")
        return tuple(shape)


class QuantizeFusedConvBnBias(_Pass):
    """Gives every linear operator of quantized operands an int32 bias: zeros where it has none.

    A bias that is quantized with another scale or zero point than the accumulator's is expressed anew.
    """

    def rewrite(self, rewriting: Rewriting, operator: Operator, at: Node) -> None:
        image = rewriting.image
        if not self.quantize_bias or operator.input is None or operator.quantized_weight is None:
            return
        if is_right(operator, image):
            return
        weight = image.evaluate(operator.weight, image.tensors)
        channels = weight.shape[operator.weight_axis] * (operator.groups if operator.transposed else 1)

        def real(leaves: Leaves) -> Tensor:
            if operator.bias is None:
                return torch.zeros(channels, dtype=torch.float64)
            found: Tensor = image.evaluate(operator.bias, leaves)
            return found

        shape = self._shape(operator.data)
        known = set(rewriting.recipes)
        bias = give_bias(rewriting, operator, at, real, None, True)
        claim = _claim(rewriting, operator, shape, operator.node, at, {}, known)
        self.account.folded.append(Folded(at.name, source_of(at), (), True, bias, claim=claim))


class FoldQATConvBN(_Pass):
    """Folds what follows a linear operator, and is an affine of each of its channels, into its bias and weight scale.

    In torchao's simulation of a folded BatchNorm, y = BatchNorm(conv(x, s·w)/s + b) with s = γ/√(σ²+ε), the scales
    cancel and C = (b − μ)·s + β is left, which goes into the bias. A scale that does not cancel goes, where it is
    positive, into the scale that the weight is dequantized with; a weight that is not quantized is multiplied by it.
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
        shape = self._shape(operator.node)
        weight_rank = image.evaluate(operator.weight, image.tensors).dim()
        affine = AffineOf(chain, image, shape, operator.axis(len(shape), weight_rank))
        now = affine(image.tensors)
        if not bool(torch.isfinite(now.scale).all() and torch.isfinite(now.shift).all()):
            raise CannotFold(f"what follows {at.name} is not finite: a variance + eps is 0, or a scale is 0")
        exact = is_one(affine, image.tensors)
        scale: Recipe | None = None if exact else lambda leaves: affine(leaves).scale
        quantized = operator.quantized_weight
        otherwise = quantized is None and Dequantized.of(operator.weight) is not None
        if otherwise and scale is not None:
            raise CannotFold(f"the weight of {at.name} is quantized along another axis than its output channels")
        if scale is not None and quantized is not None:
            _require_scalable(operator, now, at)
        moves: list[tuple[Quantization, Moved | None]] = [(pair, None) for pair in chain.pairs]
        if moves and not quantized_anyway(chain.end):
            moves[-1] = (chain.pairs[-1], moved_behind(chain.pairs[-1], now))
        steps = tuple(step_of(pair, moved, now, operator, image) for pair, moved in moves)

        def real(leaves: Leaves) -> Tensor:
            """The bias after; the old one is scaled, too."""
            found = affine(leaves)
            if operator.bias is None:
                return found.shift
            old: Tensor = image.evaluate(operator.bias, leaves)
            return (old if exact else old * found.scale) + found.shift

        known = set(rewriting.recipes)
        if quantized is None and not otherwise:
            _scale_weight(rewriting, operator, at, scale)
        bias = give_bias(rewriting, operator, at, real, scale, self.quantize_bias)
        if quantized is not None and scale is not None:
            _scale_steps(rewriting, operator, at, quantized, scale, len(bias.value))
        end = self._leave_out(rewriting, chain, moves)
        names = tuple(node.name for node, _ in chain.computing)
        pairs = {node: operand for node, operand in chain.path if operator_of(node) in QUANTIZE | DEQUANTIZE}
        claim = _claim(rewriting, operator, self._shape(operator.data), chain.end, end, pairs, known)
        self.account.folded.append(Folded(at.name, source_of(chain.end), names, exact, bias, steps, claim))

    def _leave_out(self, rewriting: Rewriting, chain: Chain, moves: list[tuple[Quantization, Moved | None]]) -> Node:
        """Every node that computes something is replaced by what it reads; views stay.

        Returns the host's node that holds the value which the chain's end held.
        """
        hosts = {twin: node for node, twin in rewriting.image.twins.items()}
        end = hosts[chain.end]
        readers = list(end.users)
        for node, operand in chain.computing:
            rewriting.bypass(hosts[node], _standing(hosts, chain, operand))
        value = _standing(hosts, chain, chain.end)
        for pair, moved in moves:
            if moved is not None:
                numbers = (moved.scale, moved.zero_point, pair.quant_min, pair.quant_max, pair.dtype)
                first = next(node for node in rewriting.host.graph.nodes if node in readers)
                q = rewriting.call(first, decomposed.quantize_per_tensor.default, value, *numbers)
                back = rewriting.call(first, decomposed.dequantize_per_tensor.default, q, *numbers)
                for reader in readers:
                    reader.replace_input_with(value, back)
        return value


def _claim(
    rewriting: Rewriting,
    operator: Operator,
    shape: tuple[int, ...],
    before: Node,
    after: Node,
    left_out: Mapping[Node, Node],
    known: set[str],
) -> Claim:
    """That the image's node ``before`` and the host's node ``after`` are the same function of the operator's input.

    The new constants are those whose recipes are not ``known``.
    """
    image, host = rewriting.image, rewriting.host
    recipes = {name: recipe for name, recipe in rewriting.recipes.items() if name not in known}
    hosts = {twin: node for node, twin in image.twins.items()}
    first = region(before, operator.data, image.names, image.tensors, left_out)
    second = region(after, hosts[operator.data], host.constants.names, host.constants.tensors, {})
    return Claim(first, second, shape, lambda leaves: {name: recipe(leaves) for name, recipe in recipes.items()})


def _standing(hosts: Mapping[Node, Node], chain: Chain, node: Node) -> Node:
    """The host's node that holds the value of ``node``, when what computes in the chain before it is left out."""
    going = dict(chain.computing)
    while node in going:
        node = going[node]
    return hosts[node]


def _require_scalable(operator: Operator, affine: ChannelAffine, at: Node) -> None:
    """
    Raises:
        CannotFold: no scale of the quantized weight takes the affine's scale in.
    """
    if not bool((affine.scale > 0).all()):
        wrong = (affine.scale <= 0).nonzero().flatten().tolist()
        raise CannotFold(
            f"what follows {at.name} scales channel{'s'[: len(wrong) > 1]} {', '.join(map(str, wrong))} by no positive"
            " number, and the scale of a quantized weight is one: fold before the weight is quantized"
        )
    if operator.transposed and operator.groups > 1:
        raise CannotFold(
            f"{at.name} is transposed and has {operator.groups} groups, whose channels share the scales of its weight"
        )


def _scale_weight(rewriting: Rewriting, operator: Operator, at: Node, scale: Recipe | None) -> None:
    """A weight that is not quantized: what it is computed as, times the scale, becomes one constant."""
    image = rewriting.image
    name = image.names.get(operator.weight)
    if scale is None and name is not None:
        return

    def weight(leaves: Leaves) -> Tensor:
        found: Tensor = image.evaluate(operator.weight, leaves)
        if scale is None:
            return found
        factor = scale(leaves)
        if not operator.transposed:
            return found * factor.reshape(-1, *[1] * (found.dim() - 1))
        inputs, outputs, *kernel = found.shape
        grouped = found.reshape(operator.groups, inputs // operator.groups, outputs, *kernel)
        return (grouped * factor.reshape(operator.groups, 1, outputs, *[1] * len(kernel))).reshape(found.shape)

    hosts = {twin: node for node, twin in image.twins.items()}
    held = [hosts[node] for node in image.names if image.tensors[image.names[node]].is_floating_point()]
    own = [node for node in held if image.twins[node] in _origins(operator.weight)]
    like = (own or held)[0]
    node = rewriting.constant(
        f"{at.name}_weight_folded", weight, image.tensors[image.names[image.twins[like]]].dtype, like
    )
    set_argument(at, "weight", node)


def _origins(node: Node) -> set[Node]:
    found, pending = set[Node](), [node]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += node.all_input_nodes
    return found


def _scale_steps(
    rewriting: Rewriting, operator: Operator, at: Node, weight: Dequantized, scale: Recipe, channels: int
) -> None:
    """The weight is dequantized with scales that are multiplied by the affine's; one for each channel from now on."""
    hosts = {twin: node for node, twin in rewriting.image.twins.items()}
    base = f"{at.name}_weight_folded"
    scales = rewriting.constant(
        f"{base}_scale", lambda leaves: weight_scales(rewriting, weight, channels, scale, leaves), torch.float32
    )
    if isinstance(weight.zero_point, Node):
        zeros = hosts[weight.zero_point]
    else:
        zero = int(weight.zero_point)
        zeros = rewriting.constant(
            f"{base}_zero_point", lambda _: torch.full((channels,), zero, dtype=torch.int64), torch.int64
        )
    limits = (weight.quant_min, weight.quant_max, weight.dtype)
    target = decomposed.dequantize_per_channel.default
    back = rewriting.call(at, target, hosts[weight.values], scales, zeros, operator.weight_axis, *limits)
    set_argument(at, "weight", back)
