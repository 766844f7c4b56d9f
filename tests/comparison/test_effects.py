"""Everything that a call changes is compared: state, inputs, layouts, shared memory, and a second call."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import foldproof
from foldproof.errors import FoldproofError
from foldproof.verdict import Kind


class Cache(nn.Module):
    """Writes a row of a cache at a position that counts up; ``fault`` names one way to be wrong."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fault = fault
        self.key = nn.Linear(8, 8)
        self.register_buffer("rows", torch.zeros(6, 8))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        key = self.key(x)
        at = self.position.reshape(1) + (self.fault == "another index")
        if self.fault == "always at the start":
            at = torch.zeros(1, dtype=torch.int64)
        if self.fault != "no write":
            self.rows.index_copy_(0, at, key)
        if self.fault != "no count":
            self.position.add_(1)
        return torch.tanh(key) if self.fault == "unread" else torch.tanh(key) + 0 * self.rows.sum()


X = torch.randn(1, 8, generator=torch.Generator().manual_seed(1))


def compared(reference: Any, candidate: Any, *inputs: Any, **options: Any) -> foldproof.CompareResult:
    return foldproof.compare(reference, candidate, inputs, trials=2, **{"locate": False, **options})


class TestState:
    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            ("no write", "buffer rows after the call differs"),
            ("another index", "buffer rows after the call differs"),
            ("no count", "buffer position after the call (int64) differs"),
            ("always at the start", "buffer rows after the second call differs"),
        ],
    )
    def test_a_wrong_write_is_told_by_name(self, fault: str, told: str) -> None:
        result = compared(Cache(), Cache(fault), X)
        assert result.kind is Kind.REFUTED and told in result.verdict.reason, str(result)
        shown = result.verdict.counterexample
        assert shown is not None and shown.name in told and shown.name in str(result)
        assert shown.name in [one.name for one in result.outputs] or "position" in shown.name

    @pytest.mark.parametrize(
        ("fault", "operator"),
        [("no write", "index_copy"), ("another index", "index_copy"), ("no count", "add"), ("unread", None)],
    )
    def test_the_operator_that_writes_it_is_named(self, fault: str, operator: str | None) -> None:
        found = compared(Cache(), Cache(fault), X).verdict.difference
        if operator is None:
            assert found is None
        else:
            assert found is not None and operator in found.operator
            assert found.source is not None and "test_effects.py" in found.source

    def test_the_same_program_is_fine(self) -> None:
        result = compared(Cache(), Cache(), X)
        assert result.kind is Kind.ROUNDING and result.identical and not result.uncompared
        names = [one.name for one in result.outputs]
        assert "buffer rows after the second call" in names and "output 0 in the second call" in names

    @pytest.mark.parametrize("momentum", [0.1, 0.2, None])
    def test_momentum_of_running_statistics(self, momentum: float | None) -> None:
        def net(momentum: float | None) -> nn.Module:
            return nn.Sequential(nn.BatchNorm1d(8, momentum=momentum), nn.ReLU()).train()

        result = compared(net(0.1), net(momentum), torch.randn(5, 8))
        assert (result.kind is Kind.ROUNDING) == (momentum == 0.1), str(result)
        assert result.kind is Kind.ROUNDING or "running_mean" in result.verdict.reason

    def test_momentum_that_one_call_does_not_show(self) -> None:
        """A mean over all calls and a moving one agree after the first, if their weights do."""

        def net(momentum: float | None) -> nn.Module:
            return nn.BatchNorm1d(8, momentum=momentum).train()

        result = compared(net(1.0), net(None), torch.randn(5, 8))
        assert result.kind is Kind.REFUTED and "after the second call" in result.verdict.reason, str(result)

    def test_rounding_of_running_statistics_is_rounding(self) -> None:
        class Mean(nn.Module):
            def __init__(self, halves: bool) -> None:
                super().__init__()
                self.halves = halves
                self.register_buffer("mean", torch.zeros(16))

            def forward(self, x: Tensor) -> Tensor:
                total = x[:32].sum(0) + x[32:].sum(0) if self.halves else x.sum(0)
                self.mean.mul_(0.9).add_(total / 64, alpha=0.1)
                return x + 1

        result = compared(Mean(False), Mean(True), torch.randn(64, 16))
        assert result.kind is Kind.ROUNDING and not result.identical, str(result)

    def test_state_is_put_back_and_the_users_modules_are_left_alone(self) -> None:
        reference, module, compiled = Cache(), Cache(), Cache()
        result = compared(reference, module, X)
        assert result.identical
        assert compared(reference, torch.compile(compiled, backend="aot_eager"), X).identical
        assert not any(m.rows.any() or m.position for m in (reference, module, compiled))

    def test_state_in_python_is_put_back(self) -> None:
        class Counting(Cache):
            calls = 0

            def forward(self, x: Tensor) -> Tensor:
                self.calls += 1
                out: Tensor = super().forward(x)
                return out

        compiled = Counting()
        assert compared(Counting(), torch.compile(compiled, backend="eager"), X).identical
        assert "calls" not in vars(compiled)

    @pytest.mark.parametrize("locate", [False, True])
    def test_compiled_by_inductor(self, locate: bool) -> None:
        result = compared(Cache(), "inductor", X, locate=locate)
        assert result.kind is Kind.ROUNDING and not result.uncompared, str(result)

    def test_exported_and_reloaded(self, tmp_path: Path) -> None:
        torch.export.save(torch.export.export(Cache(), (X,)), tmp_path / "cache.pt2")
        result = compared(Cache(), tmp_path / "cache.pt2", X)
        assert result.identical and not result.uncompared, str(result)
        program = torch.export.export(Cache("no count"), (X,))
        assert compared(program, Cache(), X).kind is Kind.REFUTED

    def test_state_that_a_list_holds_too(self) -> None:
        class Adds(nn.Module):
            def __init__(self, step: float, listed: bool) -> None:
                super().__init__()
                self.step = step
                self.register_buffer("total", torch.zeros(4))
                self.all = [self.total] if listed else []

            def forward(self, x: Tensor) -> Tensor:
                (self.all[0] if self.all else self.total).add_(self.step)
                return x + self.total

        listed = Adds(1.0, True)
        assert compared(Adds(1.0, False), listed, torch.randn(4)).identical and not listed.total.any()
        assert compared(Adds(1.0, False), Adds(2.0, True), torch.randn(4)).kind is Kind.REFUTED

    def test_buffers_that_overlap(self) -> None:
        class Flat(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("flat", torch.zeros(8))
                self.register_buffer("head", self.flat[:4])

            def forward(self, x: Tensor) -> Tensor:
                self.head.add_(1)
                return x + self.flat

        with pytest.raises(FoldproofError, match="writes nothing in place"):  # torch 2.13 fails at it
            compared(Flat(), Flat(), torch.randn(8))

    def test_a_candidate_that_remembers_its_first_answer(self) -> None:
        class Stale(nn.Module):
            kept: Tensor | None = None

            def forward(self, x: Tensor) -> Tensor:
                if self.kept is None:
                    self.kept = torch.tanh(x)
                return self.kept

        class Fresh(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.tanh(x)

        assert compared(Fresh(), Stale(), torch.randn(3, 4)).kind is Kind.REFUTED


class TestNotShown:
    def test_candidates_that_do_not_show_their_state(self) -> None:
        other = Cache("no write")
        result = compared(Cache(), lambda x: other(x), X)
        assert result.kind is Kind.ROUNDING and not result.verdict.reason.startswith("bit-identical")
        assert "state after the call was not compared, because a plain callable" in result.uncompared
        assert result.uncompared in result.verdict.notes and not other.position
        saved = compared(Cache(), Cache()(X).detach(), X)
        assert "inputs and state after the call were not compared, because saved numbers" in saved.uncompared

    def test_state_of_another_name(self) -> None:
        class Other(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = Cache()

            def forward(self, x: Tensor) -> Tensor:
                out: Tensor = self.inner(x)
                return out

        result = compared(Cache(), Other(), X)
        assert result.kind is Kind.ROUNDING and "nothing of that name" in result.uncompared

    def test_nothing_is_said_where_nothing_is_written(self) -> None:
        model = nn.Linear(8, 8)
        assert not compared(model, lambda x: model(x), X).uncompared


class TestInputs:
    class Adds(nn.Module):
        def __init__(self, step: float) -> None:
            super().__init__()
            self.step = step

        def forward(self, x: Tensor, cache: Tensor) -> Tensor:
            cache.add_(self.step)
            return x * 2

    @pytest.mark.parametrize("by_name", [False, True])
    def test_a_written_input(self, by_name: bool) -> None:
        x, cache = torch.randn(3), torch.randn(3)
        args, kwargs = ((x,), {"cache": cache}) if by_name else ((x, cache), {})
        name = "input cache after the call" if by_name else "input 1 after the call"

        def run(candidate: Any) -> foldproof.CompareResult:
            return foldproof.compare(self.Adds(1.0), candidate, args, kwargs, trials=2, locate=False)

        assert run("aot_eager").kind is Kind.ROUNDING
        assert run(self.Adds(1.0)).identical
        result = run(self.Adds(1.5))
        assert result.kind is Kind.REFUTED and f"{name} differs" in result.verdict.reason
        assert result.verdict.difference is not None and "aten.add" in result.verdict.difference.operator
        dropped = run(lambda x, cache: x * 2)
        assert dropped.kind is Kind.REFUTED and name in dropped.verdict.reason
        assert "ROUNDING" in str(run(x * 2)) and "inputs and state" in run(x * 2).uncompared

    def test_a_candidate_that_alone_writes_to_its_input(self) -> None:
        model = nn.Tanh()
        result = compared(model, lambda x: model(x.clone()) + 0 * x.mul_(2).sum(), torch.randn(3))
        assert result.kind is Kind.REFUTED and "input 0 after the call" in result.verdict.reason


class Returns(nn.Module):
    """Returns a function of its input."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class TestBesideValues:
    @pytest.mark.parametrize(
        ("one", "other", "told"),
        [
            (
                lambda x: x.view(-1),
                lambda x: x.clone().view(-1),
                "output 0 shares memory with input 0 in the reference",
            ),
            (lambda x: x + 0, lambda x: x, "output 0 shares memory with input 0 in the candidate"),
            (lambda x: (y := x + 1, y[0]), lambda x: (x + 1, (x + 1)[0]), "output 0 shares memory with output 1"),
            (lambda x: x[:1].expand(3, 4) + 0, lambda x: (x[:1] + 0).expand(3, 4), "with itself (elements are one) in"),
            (lambda x: (x + 1).unfold(1, 3, 1), lambda x: (x + 1).unfold(1, 3, 1).clone(), "with itself (elements"),
            (lambda x: x > 0, lambda x: (x > 0).float(), "output 0 is bool from the reference and float32"),
            (lambda x: x + 1, lambda x: (x + 1).double(), "output 0 is float32 from the reference and float64"),
            (lambda x: x.argmax(-1), lambda x: x.argmax(-1).int(), "output 0 is int64 from the reference and int32"),
        ],
    )
    def test_is_told(self, one: Any, other: Any, told: str) -> None:
        x = torch.randn(3, 4)
        result = compared(Returns(one), Returns(other), x)
        assert result.kind is Kind.REFUTED and told in result.verdict.reason, str(result)
        assert not result.identical and result.verdict.kind.exit_code == 1
        for same in (one, other):
            assert compared(Returns(same), Returns(same), x).kind is Kind.ROUNDING

    def test_strides_and_memory_that_nobody_can_tell_apart(self) -> None:
        def row(x: Tensor) -> Tensor:
            return torch.as_strided(x.clone(), (1, 4), (7, 1))

        x = torch.randn(1, 4)
        assert compared(Returns(lambda x: x + 0), Returns(row), x).identical
        halves = Returns(lambda x: (x + 1).chunk(2, 1))
        assert compared(halves, Returns(lambda x: ((x + 1)[:, :2].clone(), (x + 1)[:, 2:].clone())), torch.randn(1, 4))
        assert compared(halves, Returns(lambda x: ((x + 1)[:, :2].clone(), (x + 1)[:, 2:].clone())), x).identical

    @pytest.mark.parametrize(
        ("one", "other", "told"),
        [
            (lambda x: (x + 1).t(), lambda x: (x + 1).t().contiguous(), "output 0 has other strides: (1, 4) from"),
            (
                lambda x: (x, x + 1),
                lambda x: (x, (x + 1).t().contiguous().t()),
                "output 1 has other strides: (4, 1) from",
            ),
            (lambda x: (x + 1)[:, ::2], lambda x: x[:, ::2] + 1, "output 0 has other strides: (4, 2) from"),
        ],
    )
    def test_other_strides_are_a_remark(self, one: Any, other: Any, told: str) -> None:
        for a, b in ((one, other), (other, one)):
            result = compared(Returns(a), Returns(b), torch.randn(3, 4))
            assert result.kind is Kind.ROUNDING and result.identical, str(result)
        result = compared(Returns(one), Returns(other), torch.randn(3, 4))
        assert any(told in note for note in result.verdict.notes), str(result)
        wrong = compared(Returns(one), Returns(lambda x: [t * 1.01 for t in tree_leaves(other(x))]), torch.randn(3, 4))
        assert wrong.kind is Kind.REFUTED and "strides" not in wrong.verdict.reason, str(wrong)

    def test_strides_of_attention_with_a_mask(self) -> None:
        """Export traces the path of training, and gives batches first; the fast path gives them as they came."""

        class Masked(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

            def forward(self, x: Tensor, mask: Tensor) -> Any:
                return self.attention(x, x, x, key_padding_mask=mask)[0]

        model, mask = Masked().eval(), torch.tensor([[False, False, True], [False, False, False]])
        x = torch.randn(2, 3, 4)
        program = torch.export.export(model, (x, mask))
        result = foldproof.compare(model, program, (x, mask), trials=2, locate=False)
        assert result.kind is Kind.ROUNDING, str(result)

    def test_outputs_that_are_no_numbers_are_told(self) -> None:
        x = torch.randn(3, 4)
        result = compared(Returns(lambda x: (x + 1, "a", None)), Returns(lambda x: (x + 1, "b", None)), x)
        assert result.verdict.notes == ("an output is 'a', which is no number and was not compared",), str(result)

    def test_saved_outputs_have_no_layout(self) -> None:
        x = torch.randn(3, 4)
        assert compared(Returns(lambda x: x.t()), x.t().contiguous(), x).identical

    @pytest.mark.parametrize("function", [lambda x: x.view(-1), lambda x: (y := x.sin(), y[0]), lambda x: x.t()])
    def test_inductor_is_fine(self, function: Any) -> None:
        assert compared(Returns(function), "inductor", torch.randn(3, 4)).kind is Kind.ROUNDING


class TestPrecision:
    def test_a_copy_in_bfloat16(self) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
        low = copy.deepcopy(model).bfloat16()
        x = torch.randn(4, 32)
        inside = lambda x: low(x.bfloat16()).float()  # noqa: E731
        assert compared(model, inside, x).kind is Kind.REFUTED
        assert compared(model, inside, x, precision=torch.bfloat16).kind is Kind.ROUNDING
        outside = lambda x: low(x.bfloat16())  # noqa: E731
        assert compared(model, outside, x).kind is Kind.REFUTED
        assert compared(model, outside, x, precision=torch.bfloat16).kind is Kind.ROUNDING
        wrong = lambda x: low(1.3 * x.bfloat16())  # noqa: E731
        assert compared(model, wrong, x, precision=torch.bfloat16).kind is Kind.REFUTED

    def test_a_wider_dtype_that_is_meant(self) -> None:
        model, x = nn.Linear(8, 4), torch.randn(3, 8)
        wide = copy.deepcopy(model).double()
        result = compared(model, lambda x: wide(x.double()), x, precision=torch.float64)
        assert result.kind is Kind.ROUNDING and not any("float64 from" in note for note in result.verdict.notes)

    @pytest.mark.parametrize("precision", [torch.int8, "half of it"])
    def test_no_precision(self, precision: Any) -> None:
        with pytest.raises(FoldproofError, match="is no precision; give a floating-point dtype"):
            compared(nn.ReLU(), nn.ReLU(), X, precision=precision)


class TestNothingCompared:
    @pytest.mark.parametrize(
        ("function", "x", "told"),
        [
            (lambda x: x[:0] + 1, torch.randn(3), "all outputs are empty"),
            (lambda x: (x - 5).log(), torch.rand(3), "NaN on both sides"),
            (lambda x: None, torch.rand(3), "no outputs"),
        ],
    )
    def test_is_undecided(self, function: Any, x: Tensor, told: str) -> None:
        result = compared(Returns(function), Returns(function), x)
        assert result.kind is Kind.UNDECIDED and not result.identical
        assert "nothing was compared" in result.verdict.reason and told in result.verdict.reason

    def test_one_output_of_several(self) -> None:
        def both(x: Tensor) -> tuple[Tensor, Tensor]:
            return x + 1, (x - 5).log()

        result = compared(Returns(both), Returns(both), torch.rand(3))
        assert result.kind is Kind.ROUNDING
        assert any("nothing was compared of output 1" in note for note in result.verdict.notes)

    def test_state_alone(self) -> None:
        class Counts(nn.Module):
            def __init__(self, step: int) -> None:
                super().__init__()
                self.step = step
                self.register_buffer("count", torch.zeros((), dtype=torch.int64))

            def forward(self, x: Tensor) -> None:
                self.count.add_(self.step)

        assert compared(Counts(1), Counts(1), X).kind is Kind.ROUNDING
        assert compared(Counts(1), Counts(2), X).kind is Kind.REFUTED


class TestAudit:
    """The end of an audit compares the same; a compiler that is wrong stands in for one that is right."""

    @pytest.mark.parametrize("fault", ["", "no write", "hidden"])
    def test_state_is_compared_end_to_end(self, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
        from foldproof.auditing.compilers.compiler import Compiled
        from foldproof.auditing.compilers.export import Export

        def compile(*args: Any) -> Compiled:
            if fault == "hidden":
                new = Cache()
                return Compiled(lambda x: copy.deepcopy(new)(x), "the compiled model")
            made = Cache(fault)
            return Compiled(made, "the compiled model", holder=made)

        monkeypatch.setattr(Export, "compile", compile)
        found = foldproof.audit(Cache(), (X,), compiler="export", locate=False)
        if fault == "":
            assert found.conclusion.startswith("fine: ")
        elif fault == "no write":
            assert found.kind is Kind.REFUTED and "buffer rows after the call" in found.conclusion
        else:
            assert (
                "fine" not in found.conclusion and "were not compared, because the compiled model" in found.conclusion
            )

    def test_a_real_pipeline_is_fine(self) -> None:
        found = foldproof.audit(Cache(), (X,), compiler="inductor", locate=False)
        assert found.end_to_end is not None and found.end_to_end.kind is Kind.ROUNDING, str(found)
        assert not found.end_to_end.uncompared
