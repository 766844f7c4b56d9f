"""Verdicts: what is rounding is not called wrong, and what is wrong is not called rounding."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof.errors import FoldproofError
from foldproof.testing import assert_close_enough
from foldproof.verdict import Kind
from zoo import ZOO
from zoo.random_models import random_model


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 8)).eval().to(dtype)


def data(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(6, 64, generator=torch.Generator().manual_seed(1)).to(dtype)


def in_float64(model: nn.Module, x: Tensor) -> Any:
    return copy.deepcopy(model).double()(x.double()).to(x.dtype)


class TestRounding:
    def test_bit_identical(self) -> None:
        result = foldproof.compare(net(), net(), (data(),), trials=3)
        assert result.kind is Kind.ROUNDING and result.identical
        assert "bit-identical on all 3 inputs" in str(result)
        assert result.verdict.rounding is not None and result.verdict.rounding.sigma == 0

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_a_candidate_that_rounds_less_is_nearer_the_truth(self, dtype: torch.dtype) -> None:
        model = net(dtype)
        result = foldproof.compare(model, lambda x: in_float64(model, x), (data(dtype),), trials=8)
        assert result.kind is Kind.ROUNDING and not result.identical
        distance, floor = result.truth_distance, result.noise_floor
        assert distance is not None and floor is not None
        assert distance.nearer == "candidate" and distance.high < 1
        assert distance.closer == distance.inputs == 8
        assert 0 < floor.reference_sigma < 1.5 and floor.sigma < floor.reference_sigma

    def test_another_order_of_the_same_sums(self) -> None:
        model = net()
        order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
        other = copy.deepcopy(model)
        assert isinstance(other[0], nn.Linear)
        other[0].weight.data = other[0].weight.data[:, order]
        result = foldproof.compare(model, lambda x: other(x[:, order]), (data(),), trials=16)
        assert result.kind is Kind.ROUNDING and not result.identical
        assert result.truth_distance is not None and result.truth_distance.nearer == "neither"

    def test_the_same_seed_gives_the_same_answer(self) -> None:
        model = net()
        first, second = (
            foldproof.compare(model, lambda x: in_float64(model, x), (data(),), trials=4).to_dict() for _ in range(2)
        )
        for one in (first, second):
            del one["seconds"], one["verdict"]["seconds"]
        assert first == second

    def test_a_flipped_tie_of_an_argmax(self) -> None:
        class Largest(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x / 3 * 3).argmax(-1)

        x = torch.rand(2, 6)
        x[:, 1] = 2.0
        x[:, 3] = 2.0
        other = torch.tensor([1, 3])
        if torch.equal(Largest()(x), other):
            other = torch.tensor([3, 1])
        result = foldproof.compare(Largest(), other, (x,))
        assert result.kind is Kind.ROUNDING
        assert any("a tie that rounding flips" in note for note in result.verdict.notes)

    def test_infinities_and_nans_in_the_same_places(self) -> None:
        class Log(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.log(x)

        x = torch.tensor([0.0, -1.0, 1.5, 2.5])
        assert foldproof.compare(Log(), lambda x: in_float64(Log(), x), (x,), trials=2).kind is Kind.ROUNDING

    def test_half_that_overflows_in_both(self) -> None:
        x = torch.tensor([1e3, 1.0, 3.0], dtype=torch.float16)

        class Square(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x * x

        assert foldproof.compare(Square(), lambda x: (x.float() ** 2).half(), (x,)).kind is Kind.ROUNDING

    def test_products_that_round_their_operands_on_both_sides(self) -> None:
        model, x = nn.Linear(256, 64), torch.randn(16, 256)
        with products("bf16"):
            reference = foldproof.compare(model, lambda x: at("ieee", model, x), (x,), trials=3)
        assert reference.kind is Kind.ROUNDING
        assert any("fp32_precision" in note for note in reference.verdict.notes)

    def test_a_model_in_training_is_left_as_it_is(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
        before = copy.deepcopy(model.state_dict())
        result = foldproof.compare(model, "aot_eager", (torch.randn(2, 3, 8, 8),), trials=2)
        assert result.kind is Kind.ROUNDING
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def test_quantized_simulation_flips_codes(self) -> None:
        class Simulated(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.two = nn.Linear(64, 64), nn.Linear(64, 16)

            def forward(self, x: Tensor) -> Tensor:
                x = torch.fake_quantize_per_tensor_affine(self.one(x), 0.02, 0, -128, 127)
                return torch.fake_quantize_per_tensor_affine(self.two(x), 0.02, 0, -128, 127)

        torch.manual_seed(0)
        model = Simulated().eval()
        x = torch.randn(64, 64)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
        other = copy.deepcopy(model)
        other.one.weight.data = other.one.weight.data[:, order]
        result = foldproof.compare(model, lambda x: other(x[:, order]), (x,), trials=12)
        assert result.kind is not Kind.REFUTED


@contextmanager
def products(mode: str) -> Iterator[None]:
    backend: Any = torch.backends.mkldnn
    before = backend.matmul.fp32_precision
    backend.matmul.fp32_precision = mode
    try:
        yield
    finally:
        backend.matmul.fp32_precision = before


def at(mode: str, model: nn.Module, x: Tensor) -> Any:
    with products(mode):
        return model(x)


class TestRefuted:
    def test_a_dropped_bias_with_its_witness(self) -> None:
        model = net()
        other = copy.deepcopy(model)
        assert isinstance(other[3], nn.Linear)
        other[3].bias.data.zero_()
        result = foldproof.compare(model, lambda x: other(x), (data(),), trials=3)
        assert result.kind is Kind.REFUTED
        witness = result.verdict.counterexample
        assert witness is not None and witness.difference > 1000 * witness.floor
        assert torch.equal(witness.inputs[0], data())
        assert witness.before == model(data())[witness.index].item()
        assert result.truth_distance is not None and result.truth_distance.nearer == "reference"

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_types(self, dtype: torch.dtype) -> None:
        model = net(dtype)
        other = copy.deepcopy(model)
        assert isinstance(other[3], nn.Linear)
        other[3].bias.data.zero_()
        assert foldproof.compare(model, lambda x: other(x), (data(dtype),), trials=3).kind is Kind.REFUTED

    def test_reduced_precision_that_nobody_asked_for(self) -> None:
        model = net()
        low = copy.deepcopy(model).bfloat16()
        result = foldproof.compare(model, lambda x: low(x.bfloat16()), (data(),), trials=3)
        assert result.kind is Kind.REFUTED
        assert any("bfloat16 from the candidate" in note for note in result.verdict.notes)

    def test_a_single_wrong_element(self) -> None:
        model = net()

        def other(x: Tensor) -> Tensor:
            y = model(x).clone()
            y[2, 5] *= 1 + 2.0**-14
            return y

        result = foldproof.compare(model, other, (data(),), trials=3)
        assert result.kind is Kind.REFUTED
        assert result.verdict.counterexample is not None and result.verdict.counterexample.index == (2, 5)

    def test_a_small_output_beside_a_large_one(self) -> None:
        class Two(nn.Module):
            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return 1e6 * x.exp(), 1e-6 * x.exp()

        def other(x: Tensor) -> tuple[Tensor, Tensor]:
            return 1e6 * x.exp(), 1.001e-6 * x.exp()

        result = foldproof.compare(Two(), other, (data(),), trials=2)
        assert result.kind is Kind.REFUTED
        assert result.verdict.counterexample is not None and result.verdict.counterexample.output == 1

    def test_wrong_for_other_inputs_only(self) -> None:
        model, x = net(), data()
        result = foldproof.compare(model, lambda z: model(z) + 0.1 * (not torch.equal(z, x)), (x,), trials=3)
        assert result.kind is Kind.REFUTED
        assert result.verdict.counterexample is not None and "drawn" in result.verdict.counterexample.description

    def test_wrong_at_another_size_only(self) -> None:
        model, x = net(), data()
        shapes = {"input": {0: torch.export.Dim("batch", min=2, max=64)}}
        other = lambda input: model(input) + 0.1 * (len(input) != 6)  # noqa: E731
        result = foldproof.compare(model, other, (x,), dynamic_shapes=shapes, trials=2)
        assert result.kind is Kind.REFUTED

    def test_another_shape_for_other_inputs_only(self) -> None:
        model, x = net(), data()
        result = foldproof.compare(model, lambda z: model(z)[: 6 if torch.equal(z, x) else 5], (x,), trials=3)
        assert result.kind is Kind.REFUTED and "(5, 8) from the candidate" in str(result)

    def test_another_class(self) -> None:
        class Largest(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = net()

            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                y = self.net(x)
                return y, y.argmax(-1)

        model = Largest()

        def other(x: Tensor) -> tuple[Tensor, Tensor]:
            y = model.net(x)
            return y, y.argmin(-1)

        result = foldproof.compare(model, other, (data(),), trials=2)
        assert result.kind is Kind.REFUTED
        assert result.verdict.counterexample is not None and result.verdict.counterexample.output == 1

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_not_finite_in_the_candidate_only(self, value: float) -> None:
        model = net()
        result = foldproof.compare(model, lambda x: model(x).index_fill(1, torch.tensor([2]), value), (data(),))
        assert result.kind is Kind.REFUTED

    def test_outputs_of_another_shape_or_number(self) -> None:
        model = net()
        shape = foldproof.compare(model, lambda x: model(x).T, (data(),))
        assert shape.kind is Kind.REFUTED and "shape (6, 8)" in str(shape)
        number = foldproof.compare(model, lambda x: (model(x), x), (data(),))
        assert number.kind is Kind.REFUTED and "1 outputs, the candidate 2" in str(number)


class TestUndecided:
    def test_a_reference_that_draws_random_numbers(self) -> None:
        model = nn.Sequential(nn.Dropout(0.5)).train()
        result = foldproof.compare(model, lambda x: x, (data(),))
        assert result.kind is Kind.UNDECIDED and "random" in result.verdict.reason

    def test_a_candidate_that_changes_by_being_run(self) -> None:
        model = net()
        result = foldproof.compare(model, lambda x: model(x) + torch.rand(1), (data(),))
        assert result.kind is Kind.UNDECIDED and "when it is run again" in result.verdict.reason

    def test_an_operator_of_which_nothing_is_known(self) -> None:
        class Inverse(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.linalg.inv(x)

        x = torch.eye(4) + 0.1 * torch.randn(4, 4)
        result = foldproof.compare(Inverse(), lambda x: (1 + 4e-6) * torch.linalg.inv(x), (x,), trials=2)
        assert result.kind is Kind.UNDECIDED and "linalg_inv" in result.verdict.reason
        wrong = foldproof.compare(Inverse(), lambda x: 1.01 * torch.linalg.inv(x), (x,), trials=2)
        assert wrong.kind is Kind.REFUTED  # 100 times as far as the reference itself is no rounding of any operator

    def test_where_rounding_explains_anything(self) -> None:
        class Chaos(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                for _ in range(30):
                    x = 3.99 * x * (1 - x)
                return x

        x = torch.rand(50)
        result = foldproof.compare(Chaos(), lambda x: 1 - Chaos()(x), (x,), trials=2)
        assert result.kind is Kind.UNDECIDED and "agreement says nothing" in result.verdict.reason


def test_dicts_in_another_order_are_the_same_outputs() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Any]:
            return {"b": x.sum(1), "a": (scale * x, x.mean())}

    def other(x: Tensor, scale: float = 1.0) -> dict[str, Any]:
        return {"a": [scale * x, x.mean()], "b": x.sum(1)}

    assert foldproof.compare(Two(), other, (data(),), {"scale": 2.0}, trials=2).identical


def test_inputs_that_a_program_refuses_are_left_out() -> None:
    class Picky(nn.Module):
        def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
            return torch.nn.functional.embedding_bag(torch.arange(4), x, offsets, mode="mean")

    inputs = torch.randn(8, 3), torch.tensor([0, 1, 3])
    result = foldproof.compare(Picky(), Picky(), inputs, trials=3)
    assert result.identical and result.inputs == 3
    model, x = net(), data()

    def other(z: Tensor) -> Tensor:
        if not torch.equal(z, x):
            raise ValueError("not this one")
        out: Tensor = model(z)
        return out

    picky = foldproof.compare(model, other, (x,), trials=3)
    assert picky.identical and picky.inputs == 1 and "not this one" in str(picky)


@pytest.mark.parametrize(("elements", "inputs"), [(1 << 10, 24), (1 << 19, 8), (1 << 22, 4)])
def test_fewer_of_large_inputs_are_tried(elements: int, inputs: int) -> None:
    x = torch.randn(elements)
    assert f"bit-identical on all {inputs} inputs" in str(foldproof.compare(nn.ReLU(), torch.relu, (x,)))
    assert "bit-identical on all 5 inputs" in str(foldproof.compare(nn.ReLU(), torch.relu, (x,), trials=5))


def test_a_candidate_that_writes_to_its_input() -> None:
    model, x = net(), data()
    result = foldproof.compare(model, lambda z: model(z.mul_(1)), (x,), trials=2)
    assert result.identical and torch.equal(x, data())


def test_the_result_as_json() -> None:
    model = net()
    result = foldproof.compare(model, model(data()).detach() * 1.01, (data(),))
    assert result.inputs == 1
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert json.loads(text)["verdict"]["kind"] == "REFUTED"


def test_assert_close_enough() -> None:
    model = net()
    assert assert_close_enough(model, lambda x: in_float64(model, x), (data(),)).kind is Kind.ROUNDING
    with pytest.raises(AssertionError, match="REFUTED"):
        assert_close_enough(model, lambda x: 1.001 * model(x), (data(),))


@pytest.mark.parametrize(
    ("reference", "candidate", "message"),
    [
        (lambda x: x, net(), "give an nn.Module, a GraphModule or an ExportedProgram"),
        (net(), 3, "cannot compare with a int"),
        (net(), "tvm", "cannot compare with 'tvm'"),
        (net(), "missing.onnx", "missing.onnx does not exist"),
        (net(), {}, "there is no tensor in it"),
        (net(), lambda x: x.no_such_thing(), "does not run on the inputs"),
    ],
)
def test_bad_arguments(reference: Any, candidate: Any, message: str) -> None:
    with pytest.raises(FoldproofError, match=message):
        foldproof.compare(reference, candidate, (data(),))


@pytest.mark.parametrize("name", ["informer_distilling", "bert"])
def test_no_false_alarm_on_the_zoo(name: str) -> None:
    """A program and its decomposition, in float32 and in bfloat16; docs/compare.md has all of them."""
    for dtype in (torch.float32, torch.bfloat16):
        sample = ZOO[name].build()
        model = sample.model.to(dtype)
        inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in sample.inputs)
        with torch.no_grad():
            candidate = torch.export.export(model, inputs).run_decompositions()
        result = foldproof.compare(model, candidate, inputs, trials=2, locate=False)
        assert result.kind is Kind.ROUNDING, str(result)


@pytest.mark.parametrize("seed", range(2))
def test_no_false_alarm_on_random_models_compiled_by_inductor(seed: int) -> None:
    model, inputs = random_model(seed)
    result = foldproof.compare(model, "inductor", inputs, trials=3, locate=False)
    assert result.kind is Kind.ROUNDING, str(result)


def test_parts_that_an_operator_runs_by_itself_are_undecided() -> None:
    class Branches(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: x / 3, lambda x: x - 1, (x,))

    result = foldproof.compare(Branches(), lambda x: x * (1 / 3), (torch.rand(3),))
    assert result.kind is Kind.UNDECIDED and "cond at " in result.verdict.reason, result
