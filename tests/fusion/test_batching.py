"""Joining operators that read one tensor: correctness, speed, and equality of bits."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fusion_programs import FORMS, assert_unchanged, largest_error, run, snapshot
from mutants.batching import always
from torch import Tensor, nn
from torch.export import Dim

import foldproof
from foldproof import Kind
from foldproof.fusion import DEFAULT, PASSES, FuseResult
from foldproof.fusion.batching import BATCHING, timing
from foldproof.fusion.examples import Declines, Fires, Functional, functional, made
from foldproof.rewriting.refusal import CannotFold

FIRES = [pytest.param(example, id=example.name) for example in BATCHING[0].fires]
DECLINES = [pytest.param(example, id=example.name) for example in BATCHING[0].declines]
six = partial(nn.Linear, 8, 6)


@pytest.fixture
def paying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept every measurement, so that tests do not depend on the machine."""
    monkeypatch.setattr(always.home, always.name, always.wrong)


@pytest.fixture
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(timing, "find_folder", lambda: tmp_path)
    return tmp_path


def batch(program: Any, inputs: tuple[Any, ...], *passes: str) -> FuseResult:
    return foldproof.fuse(program, inputs, passes=passes or ("batch_linears",))


def counts(result: FuseResult) -> dict[str, int]:
    kinds = ("linear", "mm", "addmm", "baddbmm", "matmul", "conv1d", "conv2d", "convolution")
    return {kind: n for kind in kinds if (n := result.operators_after.get(f"aten.{kind}.default", 0))}


def gate() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return functional(((4, 8),), lambda m, x: m.g(x).relu() * m.u(x), g=six, u=six)()


def test_has_to_be_asked_for() -> None:
    assert {rule.id for rule in BATCHING} == set(PASSES) - set(DEFAULT) - {"norm_affine", "dead_channels"}
    assert foldproof.fuse(*gate()).rewrites == ()


@pytest.mark.usefixtures("paying")
class TestWhatItDoes:
    @pytest.mark.parametrize("form", ["training IR", "core ATen"])
    @pytest.mark.parametrize("example", FIRES)
    def test_fires_and_is_proved(self, example: Fires, form: str) -> None:
        model, inputs = example.make()
        program = FORMS[form](torch.export.export(model, inputs))
        before = snapshot(program)
        result = batch(program, inputs)
        [rewrite] = result.rewrites
        assert not result.declined
        assert sum(counts(result).values()) <= 1  # a batch of products without biases is bmm, which attention is, too
        assert rewrite.saving.operators == len(rewrite.nodes) - 1
        assert rewrite.verdict.kind is result.verdict.kind is Kind.PROVED, result.verdict
        assert all(str(v.claim).startswith("all inputs and all param") for v in (rewrite.verdict, result.verdict))
        assert rewrite.accuracy is not None and rewrite.accuracy.ratio <= 16
        assert result.bytes_after <= result.bytes_before + 64 and rewrite.saving.copies <= 64  # biases that are zeros
        assert_unchanged(before, program)
        assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6

    @pytest.mark.parametrize("example", DECLINES)
    def test_declines_and_changes_nothing(self, example: Declines) -> None:
        model, inputs = example.make()
        program = torch.export.export(model, inputs)
        before = snapshot(program)
        result = batch(program, inputs)
        assert result.rewrites == ()
        assert [example.reason in declined.reason for declined in result.declined] == [True]
        assert_unchanged(before, program)
        for a, b in zip(run(program, inputs), run(result.program, inputs), strict=True):
            assert torch.equal(a, b)

    @pytest.mark.parametrize("example", DECLINES)
    def test_declined_in_one_form_is_never_wrong_in_the_other(self, example: Declines) -> None:
        model, inputs = example.make()
        program = FORMS["core ATen"](torch.export.export(model, inputs))
        result = batch(program, inputs)
        assert result.verdict.kind is Kind.PROVED
        assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_dtypes(self, dtype: torch.dtype) -> None:
        model, (x,) = gate()
        result = batch(model.to(dtype), (x.to(dtype),))
        assert len(result.rewrites) == 1 and result.verdict.kind is Kind.PROVED
        assert {t.dtype for t in result.program.state_dict.values()} == {dtype}

    def test_other_dtypes_are_not_joined(self) -> None:
        class Mixed(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.c = six(), six().to(torch.bfloat16), six()

            def forward(self, x: Tensor) -> Tensor:
                return self.a(x).relu() * self.b(x.bfloat16()) + self.c(x)

        model, inputs = made(Mixed(), (4, 8))
        result = batch(model, inputs)
        [rewrite] = result.rewrites
        assert rewrite.nodes == ("linear", "linear_2")
        assert counts(result) == {"linear": 2}

    def test_weights_are_joined_once_and_the_old_ones_go(self) -> None:
        result = batch(*gate())
        state = result.program.state_dict
        assert {name: tuple(t.shape) for name, t in state.items()} == {
            "g.weight_folded": (12, 8),
            "g.bias_folded": (12,),
        }
        assert result.bytes_after == result.bytes_before
        kinds = [node.target for node in result.program.graph.nodes if node.op == "call_function"]
        assert torch.ops.aten.cat.default not in kinds

    def test_trained_weights_get_the_gradients_of_the_old_ones(self) -> None:
        model, inputs = made(Functional(lambda m, x: m.g(x).relu() * m.u(x), g=six(), u=six()), (4, 8))
        result = batch(model, inputs)
        model(*inputs).square().sum().backward()
        module = result.program.module()
        module(*inputs).square().sum().backward()
        gradients = {name: p.grad for name, p in module.named_parameters()}
        expected = torch.cat([model.g.weight.grad, model.u.weight.grad])
        # Sums in another order: elements near zero keep fewer digits.
        torch.testing.assert_close(gradients["g.weight_folded"], expected, rtol=1e-4, atol=1e-5)

    def test_a_bias_that_is_not_trained_stays_so(self) -> None:
        model, inputs = gate()
        model.u.bias.requires_grad_(False)
        result = batch(model, inputs)
        assert not result.rewrites and "the biases of linear are trained" in result.declined[0].reason

    def test_a_dynamic_batch(self) -> None:
        model, inputs = gate()
        program = torch.export.export(model, inputs, dynamic_shapes=(({0: Dim.DYNAMIC},),))
        result = batch(program, inputs)
        assert len(result.rewrites) == 1 and result.verdict.kind is Kind.PROVED
        other = (torch.randn(9, 8),)
        assert largest_error(run(program, other), run(result.program, other)) < 2e-6

    def test_a_dynamic_batch_of_a_tensor_each(self) -> None:
        """PyTorch 2.13 can't trace a baddbmm that broadcasts a bias to sizes that are not known."""
        model, inputs = functional(((4, 8), (4, 8)), lambda m, x, y: m.a(x).relu() * m.b(y).relu(), a=six, b=six)()
        rows = Dim("rows")
        program = torch.export.export(model, inputs, dynamic_shapes=(({0: rows}, {0: rows}),))
        result = batch(program, inputs)
        assert len(result.rewrites) == 1 and result.verdict.kind is Kind.PROVED
        other = (torch.randn(9, 8), torch.randn(9, 8))
        assert largest_error(run(program, other), run(result.program.run_decompositions(), other)) < 2e-6

    def test_behind_folds(self) -> None:
        """First normalisations are folded, then their operators are joined."""
        model, inputs = functional(
            ((4, 8),),
            lambda m, x: m.n(m.a(x)).relu() * m.o(m.b(x)),
            a=six,
            b=six,
            n=partial(nn.BatchNorm1d, 6),
            o=partial(nn.BatchNorm1d, 6),
        )()
        result = batch(model, inputs, *DEFAULT, "batch_linears")
        assert [r.rule.split()[0] for r in result.rewrites] == ["batch_norm", "batch_norm", "batch_linears"]
        assert counts(result) == {"linear": 1} and result.verdict.kind is Kind.PROVED
        assert largest_error(run(torch.export.export(model, inputs), inputs), run(result.program, inputs)) < 2e-6

    def test_biases_of_the_last_only(self) -> None:
        model, inputs = functional(
            ((4, 8),),
            lambda m, x: m.a(x).relu() * m.b(x),
            a=partial(nn.Linear, 8, 400, bias=False),
            b=partial(nn.Linear, 8, 400),
        )()
        exported = torch.export.export(model, inputs)
        for program in (exported, exported.module()):
            result = batch(program, inputs)
            assert len(result.rewrites) == 1 and result.verdict.kind is Kind.PROVED

    def test_what_follows_the_last_first(self) -> None:
        model, inputs = functional(
            ((4, 8),), lambda m, x: (a := m.a(x), b := m.b(x), c := b.relu(), a.relu() * c.sum(0))[3], a=six, b=six
        )()
        exported = torch.export.export(model, inputs)
        for program in (exported, exported.module()):
            result = batch(program, inputs)
            assert len(result.rewrites) == 1 and result.verdict.kind is Kind.PROVED
            result.program.graph.lint()

    def test_one_behind_the_other_is_left(self) -> None:
        """Members of equal sizes, of which the second depends on the first."""
        square = partial(nn.Linear, 8, 8)
        result = batch(*functional(((4, 8),), lambda m, x: m.b(m.a(x).relu()), a=square, b=square)())
        assert result.rewrites == () and result.declined == ()

    def test_layer_upon_layer(self) -> None:
        parts: dict[str, nn.Module] = {f"{kind}{i}": nn.Linear(8, 8) for i in range(3) for kind in "qkv"}

        def function(m: Any, x: Tensor) -> Tensor:
            for i in range(3):
                q, k, v = (getattr(m, f"{kind}{i}")(x) for kind in "qkv")
                x = x + torch.softmax(q @ k.transpose(-1, -2), -1) @ v
            return x

        model, inputs = made(Functional(function, **parts), (2, 5, 8))
        program = torch.export.export(model, inputs)
        result = batch(program, inputs)
        assert len(result.rewrites) == 3 and result.verdict.kind is Kind.PROVED
        assert counts(result) == {"linear": 3, "matmul": 6}
        assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6

    @pytest.mark.parametrize("example", FIRES)
    def test_a_graph_module(self, example: Fires) -> None:
        model, inputs = example.make()
        module = torch.export.export(model, inputs).module()
        result = batch(module, inputs)
        assert len(result.rewrites) == 1 and result.verdict.kind is Kind.PROVED
        result.program.graph.lint()
        assert torch.allclose(module(*inputs), result.program(*inputs), atol=1e-6)

    def test_can_be_saved_and_loaded(self, tmp_path: Path) -> None:
        model, inputs = gate()
        result = batch(model, inputs)
        torch.export.save(result.program, tmp_path / "joined.pt2")
        loaded = torch.export.load(tmp_path / "joined.pt2")
        assert torch.equal(loaded.module()(*inputs), result.program.module()(*inputs))


class TestWhetherItPays:
    def test_is_measured_once_and_kept(self, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        model, inputs = gate()
        first = batch(model, inputs)
        [file] = own_cache.iterdir()
        kept = json.loads(file.read_text())
        assert kept["key"]["machine"]["threads"] == torch.get_num_threads()
        assert all(0 < low <= middle <= high for low, middle, high in kept["seconds"].values())

        def fails(*_: object) -> None:
            raise AssertionError("measured again")

        monkeypatch.setattr(timing, "measure", fails)
        again = batch(model, inputs)
        assert [r.speed for r in first.rewrites] == [r.speed for r in again.rewrites]
        assert [d.reason for d in first.declined] == [d.reason for d in again.declined]
        assert len(first.rewrites) + len(first.declined) == 1
        told = str(first.rewrites[0].speed) if first.rewrites else first.declined[0].reason
        assert f"{1e6 * kept['seconds']['before'][1]:.3g} → {1e6 * kept['seconds']['after'][1]:.3g} µs on" in told

    def test_another_shape_or_number_of_threads_is_measured_anew(self, own_cache: Path) -> None:
        model, (x,) = gate()
        batch(model, (x,))
        batch(model, (x[:3],))
        threads = torch.get_num_threads()
        torch.set_num_threads(threads + 1)
        try:
            batch(model, (x,))
        finally:
            torch.set_num_threads(threads)
        assert len(list(own_cache.iterdir())) == 3

    @pytest.mark.parametrize("text", ["{", "{}", "[]"])
    def test_a_broken_file_is_measured_anew(self, text: str, own_cache: Path) -> None:
        model, inputs = gate()
        batch(model, inputs)
        [file] = own_cache.iterdir()
        file.write_text(text)
        batch(model, inputs)
        assert "seconds" in json.loads(file.read_text())

    def test_no_place_for_the_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setattr(timing, "find_folder", lambda: tmp_path / "file")
        result = batch(*gate())
        assert len(result.rewrites) + len(result.declined) == 1

    @pytest.mark.parametrize(
        ("before", "after", "pays"),
        [
            ([3, 4, 5], [1, 2, 2.5], True),
            ([3, 4, 5], [3, 4, 5], False),
            ([1, 2, 3], [1, 1.5, 2], False),  # within the noise
            ([40, 41, 42], [38, 38.5, 39], False),  # too little
            ([1, 2, 2.5], [3, 4, 5], False),
        ],
    )
    def test_only_beyond_the_noise(
        self, before: list[float], after: list[float], pays: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(timing, "recall_or_measure", lambda *_: {"before": before, "after": after})
        result = batch(*gate())
        assert bool(result.rewrites) is pays
        if pays:
            [rewrite] = result.rewrites
            assert rewrite.speed is not None and (rewrite.speed.before, rewrite.speed.after) == (4, 2)
            assert result.to_dict()["rewrites"][0]["speed"]["after"] == 2
        else:
            assert "it is not clearly faster here" in result.declined[0].reason

    def test_what_does_more_is_measured_to_take_longer(self, own_cache: Path) -> None:
        """The clock is real: the larger of two products loses."""
        small, large = (torch.fx.symbolic_trace(nn.Linear(512, n)) for n in (8, 4096))
        x = [torch.randn(8, 512)]
        assert timing.require_faster(large, small, x, bitwise=False).after < 1
        with pytest.raises(CannotFold, match="not clearly faster"):
            timing.require_faster(small, large, x, bitwise=False)


class TestBits:
    def test_other_bits_are_declined(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timing, "recall_or_measure", lambda *_: {"before": [3.0] * 3, "after": [1.0] * 3})
        monkeypatch.setattr(timing, "have_same_bits", lambda *_: False)
        result = batch(*gate(), "batch_linears_bitwise")
        assert result.rewrites == () and "rounds some results differently" in result.declined[0].reason

    def test_bits_that_differ_are_seen(self) -> None:
        def times(factor: Tensor) -> torch.fx.GraphModule:
            graph = torch.fx.Graph()
            graph.output((graph.call_function(torch.mul, (graph.placeholder("x"), graph.get_attr("w"))),))
            return torch.fx.GraphModule({"w": factor}, graph)

        one, other = times(torch.tensor(1.0)), times(torch.tensor(1.0).nextafter(torch.tensor(2.0)))
        x = [torch.randn(4, 8)]
        assert timing.have_same_bits(one, one, x) and not timing.have_same_bits(one, other, x)

    def test_the_inputs_of_the_program_are_tried_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timing, "recall_or_measure", lambda *_: {"before": [3.0] * 3, "after": [1.0] * 3})
        monkeypatch.setattr(timing, "have_same_bits", lambda *_: True)
        monkeypatch.setattr(torch, "equal", lambda a, b: False)
        result = batch(*gate(), "batch_linears_bitwise")
        assert result.rewrites == () and "on these inputs" in result.declined[0].reason

    def test_what_is_kept_has_the_same_bits_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timing, "recall_or_measure", lambda *_: {"before": [3.0] * 3, "after": [1.0] * 3})
        for example in BATCHING[0].fires:
            model, inputs = example.make()
            program = torch.export.export(model, inputs)
            result = batch(program, inputs, "batch_linears_bitwise")
            for rewrite in result.rewrites:
                assert "with the same bits there on 8 inputs" in str(rewrite.speed)
                assert rewrite.accuracy is not None and rewrite.accuracy.identical
            for a, b in zip(run(program, inputs), run(result.program, inputs), strict=True):
                assert torch.equal(a, b)
