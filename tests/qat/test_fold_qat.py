"""Every layer in every way in which its chain survives torchao's conversion: folded, proved, and within its bound."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, export

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.qat import FoldQATConvBN, QuantizeFusedConvBnBias
from tests.qat.qat_programs import LAYERS, QUANTIZERS, converted, made, trained

decomposed = torch.ops.quantized_decomposed

CHAIN = {"sqrt", "div", "mul", "zeros_like", "reshape", "add", "batch_norm"}

BROKEN = {
    ("E", "conv called twice"),
    ("E per channel", "conv called twice"),
    ("E per channel", "conv_transpose1d"),
    ("E per channel", "conv_transpose2d"),
    ("E per channel", "conv_transpose3d"),
}
"""torchao itself fails to prepare these."""
DECLINED = {("B per channel", "conv_transpose3d")}
"""See test_a_weight_quantized_along_another_axis."""
CASES = [(q, layer) for q in QUANTIZERS for layer in LAYERS if (q, layer) not in BROKEN | DECLINED]
QUICK = [(q, layer) for q, layer in CASES if q in ("A", "B per channel", "E") or layer == "conv2d, relu"]


def operators(program: Any) -> set[str]:
    return {
        n.target.overloadpacket.__name__ for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)
    }


def outputs(program: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return (program if isinstance(program, nn.Module) else program.module())(x)


def bound_of(result: foldproof.FoldQATResult) -> float:
    return sum(step.bound for step in result.verdict.steps)


@pytest.mark.parametrize(("quantizer", "layer"), QUICK, ids=lambda x: x)
def test_every_chain_is_folded(quantizer: str, layer: str) -> None:
    before, x = made(quantizer, layer)
    state = copy.deepcopy(before.state_dict())
    chain = operators(before) & CHAIN
    assert chain, "there is nothing to fold"
    result = foldproof.fold_qat(before, (x,))
    assert all(torch.equal(state[name], tensor) for name, tensor in before.state_dict().items()), "it was changed"
    assert result.verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), str(result.verdict)
    assert not result.declined
    assert not operators(result.program) & CHAIN
    bound = bound_of(result)
    expected, got = outputs(before, x), outputs(result.program, x)
    if layer not in ("conv called twice", "shared BatchNorm", "conv2d, hardswish"):  # there it bounds what comes first
        assert float((expected - got).abs().max()) <= bound + 2e-6 * float(expected.abs().max())
    # Observers have seen these inputs, so they hardly clip: a step or two is the whole difference.
    assert float((expected - got).abs().mean()) < 0.02 * float(expected.abs().max())
    if quantizer == "A":
        assert result.verdict.kind is Kind.PROVED


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_both_forms(quantizer: str) -> None:
    """A GraphModule becomes one, an ExportedProgram another, and they compute the same."""
    module, x = made(quantizer, "conv2d, relu")
    program = export(module, (x,))
    results = [foldproof.fold_qat(form, (x,)) for form in (module, program)]
    assert [isinstance(r.program, torch.fx.GraphModule) for r in results] == [True, False]
    assert results[0].verdict.kind is results[1].verdict.kind
    for result in results:
        assert [(r.result, r.source) for r in result.rewrites] == [(f.node, f.source) for f in result.folded]
        assert [s for r in result.rewrites for s in r.verdict.steps] == list(result.verdict.steps)
        assert result.verdict.kind in {r.verdict.kind for r in result.rewrites} <= {Kind.PROVED, Kind.PROVED_WITHIN}
    a, b = (outputs(r.program, x) for r in results)
    assert torch.equal(a, b)
    assert "batch_norm" in operators(program), "the given program was changed"
    assert torch.equal(outputs(export(results[0].program, (x,)), x), a), "what was made can be exported again"


def of_kind(program: Any, kind: str) -> fx.Node:
    (node,) = (n for n in program.graph.nodes if n.op == "call_function" and f"aten.{kind}." in str(n.target))
    return node


@pytest.mark.parametrize("name", ["B", "B per channel", "B uint8", "E"])
def test_bias_in_the_accumulators_unit(name: str) -> None:
    before, x = made(name, "conv2d, relu")
    result = foldproof.fold_qat(before, (x,))
    data, weight, bias = of_kind(result.program, "conv2d").args[:3]
    assert bias.args[-1] is torch.int32
    input_step, steps, bias_steps = (
        getattr(result.program, str(s.target)) if isinstance(s, fx.Node) else torch.as_tensor(s)
        for s in (data.args[1], weight.args[1], bias.args[1])
    )
    torch.testing.assert_close(bias_steps.double(), steps.double() * input_step.double())
    (step,) = (s for s in result.verdict.steps if "bias_folded" in s.name)
    assert step.bound <= 0.51 * float(bias_steps.max())
    assert "of the output's range" in step.name
    assert result.share(result.folded[0]) < 1e-3


def test_float_biases_for_backends_that_want_them() -> None:
    before, x = made("B per channel", "depthwise, relu6")
    result = foldproof.fold_qat(before, (x,), quantize_bias=False)
    assert of_kind(result.program, "conv2d").args[2].op == "get_attr"
    assert not any("bias" in step.name for step in result.verdict.steps)
    assert result.verdict.kind is Kind.PROVED_WITHIN  # the observer in between
    assert result.verdict.claim is not None and result.verdict.claim.local_bounds


def test_the_passes_one_after_the_other() -> None:
    """In ExecuTorch's order: zero biases first, then the fold; in place, on a GraphModule."""
    before, x = made("B per channel", "conv2d, hardswish")  # it has no bias
    expected = foldproof.fold_qat(before, (x,))
    module = copy.deepcopy(before)
    data = of_kind(module, "conv2d").args[0]
    sizes = {data.name: x.shape} | {n.name: torch.Size([2, 6, 5, 5]) for n in between(of_kind(module, "conv2d"))}
    first, second = QuantizeFusedConvBnBias(sizes=sizes), FoldQATConvBN(sizes=sizes)
    outcome = first(module)
    assert outcome.modified and outcome.graph_module is module
    assert float(first.result.folded[0].bias.value.abs().max()) == 0
    assert second(module).modified
    assert torch.equal(outputs(module, x), outputs(expected.program, x))
    assert not second(module).modified, "once is enough"


def between(conv: fx.Node) -> list[fx.Node]:
    found, node = [conv], conv
    while "batch_norm" not in str(node.target):
        (node,) = node.users
        found.append(node)
    return found


def test_a_pass_without_shapes_declines() -> None:
    before, x = made("B per channel", "conv2d, hardswish")
    module = copy.deepcopy(before)
    for node in module.graph.nodes:
        node.meta.pop("val", None)
    fold = FoldQATConvBN()
    assert not fold(module).modified
    assert "the shape of conv2d_1 is not known" in fold.result.declined[0].reason
    assert torch.equal(outputs(module, x), outputs(before, x))


def test_a_negative_scale_turns_the_weight_around() -> None:
    before, x = made("B", "linear", negative=True)
    result = foldproof.fold_qat(before, (x,))
    assert not result.declined and result.verdict.kind is Kind.PROVED_WITHIN and not result.folded[0].exact
    weight = of_kind(result.program, "linear").args[1]
    assert bool((getattr(result.program, str(weight.args[1].target)) > 0).all())
    turned = getattr(result.program, str(weight.args[0].target))
    old = getattr(before, str(of_kind(before, "linear").args[1].args[0].target))
    assert bool((turned == -old).all(1).any()) and bool((turned == old).all(1).any())
    assert float((outputs(before, x) - outputs(result.program, x)).abs().max()) <= bound_of(result)


def test_a_negative_scale_that_cancels_is_folded() -> None:
    before, x = made("B", "conv2d, relu", negative=True)
    result = foldproof.fold_qat(before, (x,))
    assert not result.declined and result.folded[0].exact


def test_a_weight_quantized_along_another_axis() -> None:
    """torchao 0.18 quantizes weights of conv_transpose3d along their input channels, whatever the quantizer says."""
    before, x = made("B per channel", "conv_transpose3d")
    result = foldproof.fold_qat(before, (x,))
    (declined,) = result.declined
    assert "quantized along another axis than its output channels" in declined.reason
    assert "batch_norm" in operators(result.program)


def test_a_value_that_is_read_twice() -> None:
    q, limits = decomposed, (-128, 127, torch.int8)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randint(-127, 128, (4, 3), dtype=torch.int8))
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            x = q.dequantize_per_tensor(q.quantize_per_tensor(x, 0.02, 3, *limits), 0.02, 3, *limits)
            y = nn.functional.linear(x, q.dequantize_per_tensor(self.weight, 0.01, 0, *limits))
            return self.norm(y) + y

    x = torch.randn(5, 3)
    result = foldproof.fold_qat(export(Residual().eval(), (x,)), (x,))
    (declined,) = result.declined
    assert "batch_norm, add read the output of linear" in declined.reason
    assert "batch_norm" in operators(result.program)


def test_groups_of_a_transposed_convolution() -> None:
    """torchao fails to prepare them: as they are, in floating point."""
    norm = nn.BatchNorm2d(6, eps=0.1, momentum=0.3)  # which torchao would reset
    model = trained(nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False), norm)).eval()
    x = torch.randn(2, 4, 5, 5)
    result = foldproof.fold_qat(export(model, (x,)), (x,))
    assert result.verdict.kind is Kind.PROVED and "batch_norm" not in operators(result.program)
    assert torch.allclose(outputs(result.program, x), outputs(model, x), atol=1e-5)


def test_dynamic_batches_and_sizes() -> None:
    model, shape = LAYERS["conv2d, relu"]
    x = torch.randn(shape)
    sizes = ({0: Dim("batch", min=2, max=64), 2: Dim("height", min=4, max=64)},)
    before = converted(model, x, QUANTIZERS["B per channel"](), dynamic_shapes=sizes)
    program = export(before, (x,), dynamic_shapes=sizes)
    result = foldproof.fold_qat(program, (x,))
    assert result.verdict.kind is Kind.PROVED_WITHIN and not operators(result.program) & CHAIN
    assert result.program.range_constraints == program.range_constraints
    other = torch.randn(5, 3, 14, 9)
    assert float((outputs(program, other) - outputs(result.program, other)).abs().max()) <= bound_of(result)


def test_many_operators_are_as_sure_as_one() -> None:
    before, x = made("A", "conv called twice")
    proof = foldproof.fold_qat(before, (x,)).verdict.proof
    assert proof is not None and proof.log2_error < -40


def test_a_second_reader_is_left() -> None:
    class ReadTwice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4)
    result = foldproof.fold_qat(converted(ReadTwice(), x, QUANTIZERS["A"]()), (x,))
    assert "batch_norm" in operators(result.program) and result.verdict.kind is Kind.PROVED


class Saturating(nn.Module):
    """A bias that does not fit into 32 bits of its accumulator's unit, in channel 1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor([[3, -5], [7, 11]], dtype=torch.int8))
        self.bias = nn.Parameter(torch.tensor([0.5, 9e3]))

    def forward(self, x: Tensor) -> Tensor:
        limits = (-128, 127, torch.int8)
        x = decomposed.dequantize_per_tensor(decomposed.quantize_per_tensor(x, 1e-3, 0, *limits), 1e-3, 0, *limits)
        return nn.functional.linear(x, decomposed.dequantize_per_tensor(self.weight, 1e-3, 0, *limits), self.bias)


def test_a_bias_that_does_not_fit() -> None:
    x = (torch.rand(3, 2) / 10,)
    with pytest.warns(UserWarning, match="does not fit into int32 in channel 1 "):
        result = foldproof.fold_qat(export(Saturating(), x), x)
    assert result.folded[0].bias.saturated == (1,)
    assert result.verdict.kind is Kind.PROVED_WITHIN
    (step,) = result.verdict.steps
    assert "cut off" in step.name and step.bound == pytest.approx(9e3 - 2147.48, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-25, 1e30])
def test_a_unit_that_float32_does_not_hold(scale: float) -> None:
    class Extreme(Saturating):
        def forward(self, x: Tensor) -> Tensor:
            limits = (-128, 127, torch.int8)
            x = decomposed.quantize_per_tensor(x, scale, 0, *limits)
            weight = decomposed.dequantize_per_tensor(self.weight, scale, 0, *limits)
            return nn.functional.linear(decomposed.dequantize_per_tensor(x, scale, 0, *limits), weight, self.bias) * 2

    x = torch.rand(3, 2)
    result = foldproof.fold_qat(export(Extreme(), (x,)), (x,))
    assert not result.folded and "outside the normal numbers of float32" in result.declined[0].reason
    assert torch.equal(outputs(result.program, x), Extreme()(x))


def test_a_bias_of_another_scale_is_expressed_anew() -> None:
    class Coarse(Saturating):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("whole", torch.tensor([700, -40], dtype=torch.int32))
            del self.bias

        @property
        def bias(self) -> Tensor:
            return decomposed.dequantize_per_tensor(self.whole, 1e-3, 0, -(2**31), 2**31 - 1, torch.int32)

    x = (torch.rand(3, 2) / 10,)
    result = foldproof.fold_qat(export(Coarse(), x), x)
    bias = of_kind(result.program, "linear").args[2]
    assert bias.args[1] == pytest.approx(1e-6)
    assert result.verdict.kind is Kind.PROVED_WITHIN
    assert [step.bound for step in result.verdict.steps] == [pytest.approx(5e-7)]
    assert torch.allclose(outputs(result.program, *x), Coarse()(*x), atol=5e-7)


class Observed(nn.Module):
    """A linear on given integers, with an observer before its BatchNorm and a coarser one behind."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((1, 4), 100, dtype=torch.int8))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, q: Tensor) -> Tensor:
        def observed(y: Tensor, *numbers: Any) -> Tensor:
            y = decomposed.quantize_per_tensor(y, *numbers, -128, 127, torch.int8)
            return decomposed.dequantize_per_tensor(y, *numbers, -128, 127, torch.int8)

        x = decomposed.dequantize_per_tensor(q, 0.1, 0, 0, 127, torch.int8)  # the limits do not hold what is given
        weight = decomposed.dequantize_per_tensor(self.weight, 0.01, 0, -128, 127, torch.int8)
        return observed(self.norm(observed(nn.functional.linear(x, weight), 0.1, -128)), 1.0, 0)


def test_whole_numbers_that_are_given_may_be_any() -> None:
    x = torch.full((2, 4), -128, dtype=torch.int8)
    program = export(Observed().eval(), (x,))
    result = foldproof.fold_qat(program, (x,))
    assert result.verdict.kind is Kind.PROVED_WITHIN
    difference = float((outputs(program, x) - outputs(result.program, x)).abs().max())
    assert 50 < difference <= bound_of(result) + 0.5  # and half a step of the quantization behind it


def test_a_whole_speaks_of_no_more_than_its_parts() -> None:
    """The first fold rounds nothing; the bounds of later ones hold for these parameter values."""
    x = torch.rand(3, 2) / 10
    norm = nn.BatchNorm1d(2)
    program = export(nn.Sequential(nn.Linear(2, 2), norm, Saturating()).eval(), (x,))
    with pytest.warns(UserWarning, match="does not fit"):
        result = foldproof.fold_qat(program, (x,))
    assert len(result.folded) == 2 and result.verdict.kind is Kind.PROVED_WITHIN
    assert "the bounds are for these parameter values" in str(result.verdict.claim)


def test_a_division_by_zero_is_told_for_what_it_is() -> None:
    class Divided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(6, 4), nn.Parameter(torch.tensor([1.0, 0, 2, 3]))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) / self.scale

    x = torch.randn(3, 6)
    result = foldproof.fold_qat(export(Divided(), (x,)), (x,))
    assert not result.folded and "is not finite" in result.declined[0].reason


def test_a_chain_that_changes_the_dtype_is_left() -> None:
    class Wider(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.scale = nn.Linear(6, 4), nn.Parameter(torch.rand(4, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.scale

    x = torch.randn(3, 6)
    program = export(Wider(), (x,))
    result = foldproof.fold_qat(program, (x,))
    assert outputs(result.program, x).dtype is torch.float64
    assert "convert torch.float32 to torch.float64" in result.declined[0].reason


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_what_is_not_quantized_may_have_any_dtype(dtype: torch.dtype) -> None:
    x = torch.randn(3, 6, dtype=dtype)
    program = export(trained(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)).eval()).to(dtype), (x,))
    result = foldproof.fold_qat(program, (x,))
    assert "batch_norm" not in operators(result.program) and result.verdict.proof is not None
    assert outputs(result.program, x).dtype is dtype


def test_nothing_in_the_batch() -> None:
    x = torch.randn(0, 2)
    result = foldproof.fold_qat(export(nn.Sequential(nn.Linear(2, 5), nn.BatchNorm1d(5)).eval(), (x,)), (x,))
    assert not result.folded and "is empty at these inputs" in result.declined[0].reason
    with pytest.warns(UserWarning, match="does not fit"):
        unproved = foldproof.fold_qat(export(Saturating(), (x,)), (x,), prove=False)
    assert unproved.ranges == {"linear": 0.0}


def test_nothing_to_do() -> None:
    x = (torch.randn(2, 3),)
    result = foldproof.fold_qat(export(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), x), x)
    assert result.verdict.kind is Kind.PROVED and not result.folded


def test_what_is_no_program() -> None:
    with pytest.raises(FoldproofError, match="can't fold an object of type Linear: give the result of convert_pt2e"):
        foldproof.fold_qat(nn.Linear(2, 2), (torch.randn(1, 2),))
