"""PROVED_WITHIN: programs that are equal but for parameters which one of them rounds, with a bound for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import foldproof
from foldproof import Kind
from foldproof.testing import assert_equivalent

decomposed = torch.ops.quantized_decomposed

STEP = 1e-4
INT32 = (-(2**31), 2**31 - 1, torch.int32)


class FloatBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 3, 3, 3)), nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(torch.conv2d(x, self.weight, self.bias))


class WholeBias(nn.Module):
    """The same with a bias of whole numbers; ``into`` and ``out_of`` are the scales it is made and read with."""

    def __init__(self, model: FloatBias, into: float = STEP, out_of: float = STEP, limits: Any = INT32) -> None:
        super().__init__()
        self.weight, self.into, self.out_of, self.limits = model.weight, into, out_of, limits
        self.register_buffer("whole", self.made({"bias": model.bias.detach()})["whole"])

    def made(self, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"whole": decomposed.quantize_per_tensor(old["bias"].float(), self.into, 0, *self.limits)}

    def forward(self, x: Tensor) -> Tensor:
        bias = decomposed.dequantize_per_tensor(self.whole, self.out_of, 0, *self.limits)
        return torch.relu(torch.conv2d(x, self.weight, bias))


@pytest.fixture
def model() -> FloatBias:
    torch.manual_seed(0)
    return FloatBias()


def prove(before: nn.Module, after: WholeBias) -> foldproof.Verdict:
    return foldproof.prove(before, after, (torch.randn(2, 3, 5, 5),), derive=after.made)


def test_half_a_step(model: FloatBias) -> None:
    verdict = prove(model, WholeBias(model))
    assert verdict.kind is Kind.PROVED_WITHIN, str(verdict)
    (step,) = verdict.steps
    assert step.bound == pytest.approx(STEP / 2, rel=1e-2)
    assert step.name == "whole is rounded to steps of 0.0001"
    assert verdict.proof is not None and verdict.proof.log2_error < -40
    assert "the bounds are for these parameter values" in str(verdict.claim)
    assert "approximation: whole is rounded to steps of 0.0001: within 5e-05" in str(verdict)
    assert verdict.kind.exit_code == 0


def test_the_bound_is_that_of_the_difference(model: FloatBias) -> None:
    after = WholeBias(model, 0.02, 0.02)
    (step,) = prove(model, after).steps
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        difference = float((model(x) - after(x)).abs().max())
    assert 0.3 * step.bound < difference <= step.bound * 1.001


def test_what_is_cut_off_has_a_bound_too(model: FloatBias) -> None:
    limits = (-1000, 1000, torch.int32)
    after = WholeBias(model, 1e-3, 1e-3, limits)
    verdict = prove(model, after)
    assert verdict.kind is Kind.PROVED_WITHIN
    (step,) = verdict.steps
    assert step.bound == pytest.approx(float(model.bias.abs().max()) - 1, rel=1e-3)
    assert "cut off" in step.name


@pytest.mark.parametrize("scales", [(STEP, 2 * STEP), (2 * STEP, STEP), (STEP, -STEP)])
def test_another_scale_is_refuted(model: FloatBias, scales: tuple[float, float]) -> None:
    verdict = prove(model, WholeBias(model, *scales))
    assert verdict.kind is Kind.REFUTED, str(verdict)


def test_a_wrong_parameter_is_refuted(model: FloatBias) -> None:
    class Wrong(WholeBias):
        def made(self, old: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return super().made({"bias": -old["bias"]})

    assert prove(model, Wrong(model)).kind is Kind.REFUTED


def test_what_is_held_must_be_what_is_derived(model: FloatBias) -> None:
    """One unit off in one channel: then it is no rounding of the expression, and nothing is proved of it."""
    after = WholeBias(model, 0.02, 0.02)
    after.whole[2] += 1
    assert prove(model, after).kind not in (Kind.PROVED, Kind.PROVED_WITHIN)


def quantize_biases(graph_module: fx.GraphModule) -> None:
    """A pass that does nothing else."""
    graph = graph_module.graph
    for node in list(graph.nodes):
        if node.op == "get_attr" and str(node.target).endswith("bias"):
            with graph.inserting_after(node):
                q = graph.call_function(decomposed.quantize_per_tensor.default, (node, STEP, 0, *INT32))
            with graph.inserting_after(q):
                back = graph.call_function(decomposed.dequantize_per_tensor.default, (q, STEP, 0, *INT32))
            node.replace_all_uses_with(back, delete_user_cb=lambda user, q=q: user is not q)
    graph_module.recompile()


def test_a_pass_that_rounds(model: FloatBias) -> None:
    x = (torch.randn(2, 3, 5, 5),)
    verdict = foldproof.prove_pass(quantize_biases, torch.export.export(model, x).module(), x)
    assert verdict.kind is Kind.PROVED_WITHIN, str(verdict)
    assert [step.bound for step in verdict.steps] == [pytest.approx(STEP / 2, rel=1e-2)]


def test_a_pass_that_rounds_and_is_wrong(model: FloatBias) -> None:
    def wrong(graph_module: fx.GraphModule) -> None:
        quantize_biases(graph_module)
        next(n for n in graph_module.graph.nodes if n.target is torch.ops.aten.conv2d.default).args += ([2, 2],)
        graph_module.recompile()

    x = (torch.randn(2, 3, 6, 6),)
    assert foldproof.prove_pass(wrong, torch.export.export(model, x).module(), x).kind is Kind.REFUTED


def test_a_pass_that_rounds_what_it_computes_itself() -> None:
    """It ended the process: shadows of one draw got into the plain parameters of a run beside it."""

    def rounds(linear: nn.Linear) -> None:
        whole = decomposed.quantize_per_tensor(linear.weight.data, 0.01, 0, -128, 127, torch.int8)
        linear.weight.data = decomposed.dequantize_per_tensor(whole, 0.01, 0, -128, 127, torch.int8)

    verdict = foldproof.prove_pass(rounds, nn.Linear(4, 4), (torch.randn(3, 4),))
    assert verdict.kind is not Kind.PROVED, str(verdict)


def test_what_both_round_alike_is_no_step(model: FloatBias) -> None:
    x = (torch.randn(2, 3, 5, 5),)
    module = torch.export.export(model, x).module()
    quantize_biases(module)
    verdict = foldproof.prove(module, torch.export.export(module, x), x)
    assert verdict.kind is Kind.PROVED and not verdict.steps, str(verdict)


def test_rounded_data_is_no_step() -> None:
    """No bound limits the movement of data."""

    def rounds(x: Tensor) -> Tensor:
        q = decomposed.quantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8)
        return decomposed.dequantize_per_tensor(q, 0.1, 0, -128, 127, torch.int8) * 2

    verdict = foldproof.prove(lambda x: x * 2, rounds, (torch.randn(5, 5),))
    assert verdict.kind is Kind.REFUTED, str(verdict)


def test_where_nobody_says_what_was_rounded(model: FloatBias) -> None:
    """Without ``derive`` the whole numbers are constants, and the difference is one."""
    with pytest.raises(AssertionError):
        assert_equivalent(model, WholeBias(model), (torch.randn(2, 3, 5, 5),))


class Attention(nn.Module):
    """Gradients of a bias that is one for queries, keys and values; that of the keys' part is 0."""

    def __init__(self, tenth: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.packed, self.tenth = nn.Linear(8, 24), tenth

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            bias = self.packed.bias.detach().requires_grad_()
            q, k, v = F.linear(x, self.packed.weight.detach(), bias).split(8, -1)
            out = self.tenth(F.softmax(self.tenth(q @ k.transpose(1, 2)), -1) @ v).tanh()
            return torch.autograd.grad(out.sum(), bias)[0]


def prove_attention(tenth: Callable[[Tensor], Tensor]) -> foldproof.Verdict:
    torch.manual_seed(0)
    before, after = Attention(lambda x: x * 0.1), Attention(tenth)
    after.load_state_dict(before.state_dict())
    return foldproof.prove(before, after, (torch.randn(2, 5, 8),))


def test_a_part_of_an_output_may_be_zero_but_for_rounding() -> None:
    found = prove_attention(lambda x: x / 10)
    assert found.kind is Kind.PROVED_WITHIN, found
    assert [step.name for step in found.steps] == ["the constant 0.1 is read as 1/10"]


def test_another_number_is_refuted_beside_a_part_that_is_zero() -> None:
    assert prove_attention(lambda x: x / 10.01).kind is Kind.REFUTED


def _noise(x: Tensor) -> Tensor:
    """Return large elements, and such as float64's rounding moves by their own size."""
    return torch.cat([x * 1e25, (x + 1e16) - 1e16])


@pytest.mark.parametrize(
    "beside",
    [
        _noise,
        lambda x: torch.floor(x / (x * 3) * 9),  # float64's rounding makes it 2 or 3
        lambda x: (x + 1e16) - 1e16 - x,
    ],
)
@pytest.mark.parametrize(
    ("constants", "function"),
    [
        ((2.9999998, 3.0), lambda x, c: torch.floor((x * 0 + c) * x.sign())),
        ((0.33333334, 0.33333331), lambda x, c: ((x * 0 + c) - 1 / 3) * 1e8),
    ],
)
def test_elements_that_rounding_moves_hide_no_other_ones(
    constants: tuple[float, float], function: Callable[[Tensor, float], Tensor], beside: Callable[[Tensor], Tensor]
) -> None:
    """The rounding of a constant moves small elements by their own size; float64's rounding moves others."""
    before, after = (lambda x, c=c: torch.cat([beside(x), function(x, c)]) for c in constants)
    found = foldproof.prove(before, after, (torch.rand(4) + 1,))
    assert found.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), found


@pytest.mark.parametrize("large", [1.0, 1e9])
def test_a_jump_beside_large_elements_is_no_rounding(large: float) -> None:
    """floor(90·0.7) is 62 in float64, and floor(90·7/10) is 63: rounding decides, but the difference is no rounding."""

    def before(x: Tensor) -> Tensor:
        return torch.cat([x * large, torch.floor((x * 0 + 90) * 0.7)])

    def after(x: Tensor) -> Tensor:
        return torch.cat([x * large, torch.floor((x * 0 + 90) * 7 / 10)])

    assert foldproof.prove(before, after, (torch.randn(6),)).kind not in (Kind.PROVED, Kind.PROVED_WITHIN)
