"""Every layer in every way in which its chain survives torchao's conversion: folded, proved, and within its bound."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import export

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.qat import FoldQATConvBN, QuantizeFusedConvBnBias
from tests.qat.qat_programs import QUANTIZERS, converted

decomposed = torch.ops.quantized_decomposed


class Twice(nn.Module):
    """One convolution with two BatchNorms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.conv(self.first(self.conv(x))))


class ThroughViews(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.norm(y.flatten(0, 1)).reshape_as(y)


LAYERS = {
    "conv1d": (nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6)), (4, 3, 9)),
    "conv2d, relu": (nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), (4, 3, 9, 9)),
    "conv2d, hardswish": (
        nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Hardswish()),
        (2, 3, 7, 7),
    ),
    "conv2d, other eps": (nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, eps=0.1, momentum=0.3)), (2, 3, 9, 9)),
    "conv2d, same padding": (nn.Sequential(nn.Conv2d(3, 6, 3, padding="same"), nn.BatchNorm2d(6)), (2, 3, 9, 9)),
    "depthwise, relu6": (
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4), nn.ReLU6()),
        (2, 4, 9, 9),
    ),
    "grouped": (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (2, 4, 7, 7)),
    "conv3d": (nn.Sequential(nn.Conv3d(3, 6, 3), nn.BatchNorm3d(6)), (2, 3, 5, 5, 5)),
    "conv_transpose1d": (nn.Sequential(nn.ConvTranspose1d(3, 6, 3, stride=2), nn.BatchNorm1d(6)), (2, 3, 9)),
    "conv_transpose2d": (nn.Sequential(nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6)), (2, 3, 5, 5)),
    "conv called twice": (Twice(), (2, 3, 7, 7)),
    "linear": (nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)), (8, 6)),
    "linear through views": (ThroughViews(), (4, 5, 6)),
}
CHAIN = {"sqrt", "div", "mul", "zeros_like", "reshape", "add", "batch_norm"}

BROKEN = {("E", "conv called twice"), ("E per channel", "conv called twice"), ("E per channel", "conv_transpose1d")} | {
    ("E per channel", "conv_transpose2d")
}
"""torchao itself fails to prepare these."""
CASES = [(q, layer) for q in QUANTIZERS for layer in LAYERS if (q, layer) not in BROKEN]
QUICK = [(q, layer) for q, layer in CASES if q in ("A", "B per channel", "E") or layer == "conv2d, relu"]


def operators(program: Any) -> set[str]:
    return {
        n.target.overloadpacket.__name__ for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)
    }


def outputs(program: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return (program if isinstance(program, nn.Module) else program.module())(x)


@pytest.mark.parametrize(("quantizer", "layer"), QUICK, ids=lambda x: x)
def test_every_chain_is_folded(quantizer: str, layer: str) -> None:
    torch.manual_seed(0)
    model, shape = LAYERS[layer]
    x = torch.randn(shape)
    before = converted(model, x, QUANTIZERS[quantizer]())
    state = copy.deepcopy(before.state_dict())
    chain = operators(before) & CHAIN
    assert chain, "there is nothing to fold"
    result = foldproof.fold_qat(before, (x,))
    assert all(torch.equal(state[name], tensor) for name, tensor in before.state_dict().items()), "it was changed"
    assert result.verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), str(result.verdict)
    assert not result.declined
    assert not operators(result.program) & CHAIN
    bound = sum(step.bound for step in result.verdict.steps)
    expected, got = outputs(before, x), outputs(result.program, x)
    if layer != "conv called twice" and "hardswish" not in layer:  # there it is a bound of what comes first
        assert float((expected - got).abs().max()) <= bound + 2e-6 * float(expected.abs().max())
    # What was observed on these very inputs is hardly cut off: then a step or two is the whole difference.
    assert float((expected - got).abs().mean()) < 0.02 * float(expected.abs().max())
    if quantizer == "A":
        assert result.verdict.kind is Kind.PROVED


@pytest.mark.parametrize("quantizer", QUANTIZERS)
def test_both_forms(quantizer: str) -> None:
    """A GraphModule becomes one, an ExportedProgram another, and they compute the same."""
    torch.manual_seed(0)
    model, shape = LAYERS["conv2d, relu"]
    x = torch.randn(shape)
    module = converted(model, x, QUANTIZERS[quantizer]())
    program = export(module, (x,))
    results = [foldproof.fold_qat(form, (x,)) for form in (module, program)]
    assert [type(r.program) for r in results] == [type(module), type(program)]
    assert results[0].verdict.kind is results[1].verdict.kind
    a, b = (outputs(r.program, x) for r in results)
    assert torch.equal(a, b)
    assert "batch_norm" in operators(program), "the given program was changed"
    assert torch.equal(outputs(export(results[0].program, (x,)), x), a), "what was made can be exported again"


def test_bias_in_the_accumulators_unit() -> None:
    torch.manual_seed(0)
    model, shape = LAYERS["conv2d, relu"]
    x = torch.randn(shape)
    for name in ("B", "B per channel", "B uint8", "E"):
        result = foldproof.fold_qat(converted(model, x, QUANTIZERS[name]()), (x,))
        (conv,) = (n for n in result.program.graph.nodes if "conv2d" in str(n.target))
        data, weight, bias = conv.args[:3]
        assert bias.args[-1] is torch.int32
        held = [
            getattr(result.program, str(s.target)) if isinstance(s, torch.fx.Node) else s
            for s in (weight.args[1], bias.args[1])
        ]
        torch.testing.assert_close(torch.as_tensor(held[1]).double(), torch.as_tensor(held[0]).double() * data.args[1])
        (step,) = (s for s in result.verdict.steps if "bias_folded" in s.name)
        assert step.bound <= 0.51 * float(torch.as_tensor(held[1]).max())
        assert "of the output's range" in step.name
        assert result.share(result.folded[0]) < 1e-3


def test_float_biases_for_backends_that_want_them() -> None:
    torch.manual_seed(0)
    model, shape = LAYERS["depthwise, relu6"]
    x = torch.randn(shape)
    result = foldproof.fold_qat(converted(model, x, QUANTIZERS["B per channel"]()), (x,), quantize_bias=False)
    (conv,) = (n for n in result.program.graph.nodes if "conv2d" in str(n.target))
    assert conv.args[2].op == "get_attr"
    assert not any("bias" in step.name for step in result.verdict.steps)
    assert result.verdict.kind is Kind.PROVED_WITHIN  # the observer in between


def test_the_passes_one_after_the_other() -> None:
    """In ExecuTorch's order: zero biases first, then the fold; in place, on a GraphModule."""
    torch.manual_seed(0)
    model, shape = LAYERS["conv2d, hardswish"]  # it has no bias
    x = torch.randn(shape)
    module = converted(model, x, QUANTIZERS["B per channel"]())
    expected = foldproof.fold_qat(module, (x,))
    shapes = {n.name: torch.Size([2, 6, 5, 5]) for n in module.graph.nodes if "conv2d" in n.name}
    first, second = QuantizeFusedConvBnBias(), FoldQATConvBN(shapes=shapes)
    made = first(module)
    assert made.modified and made.graph_module is module
    assert float(first.account.folded[0].bias.value.abs().max()) == 0
    assert second(module).modified
    assert torch.equal(outputs(module, x), outputs(expected.program, x))
    assert not second(module).modified, "once is enough"


def test_a_negative_scale_is_declined() -> None:
    torch.manual_seed(0)
    model, shape = LAYERS["linear"]
    x = torch.randn(shape)
    result = foldproof.fold_qat(converted(model, x, QUANTIZERS["B"](), negative=True), (x,))
    (declined,) = result.declined
    assert "no positive number" in declined.reason and "channel" in declined.reason
    assert "batch_norm" in operators(result.program)


def test_a_negative_scale_that_cancels_is_folded() -> None:
    torch.manual_seed(0)
    model, shape = LAYERS["conv2d, relu"]
    x = torch.randn(shape)
    result = foldproof.fold_qat(converted(model, x, QUANTIZERS["B"](), negative=True), (x,))
    assert not result.declined and result.folded[0].exact


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
    with pytest.warns(UserWarning, match="does not fit into int32 in channel 1,"):
        result = foldproof.fold_qat(export(Saturating(), x), x)
    assert result.folded[0].bias.saturated == (1,)
    assert result.verdict.kind is Kind.PROVED_WITHIN
    (step,) = result.verdict.steps
    assert "cut off" in step.name and step.bound == pytest.approx(9e3 - 2147.48, rel=1e-3)


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
    (conv,) = (n for n in result.program.graph.nodes if "linear" in str(n.target))
    assert conv.args[2].args[1] == pytest.approx(1e-6)
    assert result.verdict.kind is Kind.PROVED_WITHIN


def test_nothing_to_do() -> None:
    x = (torch.randn(2, 3),)
    result = foldproof.fold_qat(export(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), x), x)
    assert result.verdict.kind is Kind.PROVED and not result.folded


def test_what_is_no_program() -> None:
    with pytest.raises(FoldproofError, match="can't fold a Linear: give what convert_pt2e made"):
        foldproof.fold_qat(nn.Linear(2, 2), (torch.randn(1, 2),))
