"""Origins of a difference."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import foldproof
from examples import parallel_linears
from foldproof.comparison.report import report
from foldproof.comparison.result import DifferenceSource
from foldproof.verdict import Kind
from zoo.planted import BUGS, OPERATORS, Bug, everything, planted, ulps


def test_pytorch_179574_is_the_mean_and_not_the_linears() -> None:
    model, inputs = parallel_linears.make()
    result = foldproof.compare(model, "inductor", inputs, trials=12)
    assert result.kind is Kind.ROUNDING and not result.identical
    assert result.truth_distance is not None and result.truth_distance.nearer == "neither"
    assert "Inductor batched no operators here" in result.verdict.notes
    first = result.sources[0]
    assert first.operator == "aten.mean.dim" and first.source is not None and "parallel_linears.py" in first.source
    # How much of it hangs on the machine: from 0.65 (where its kernels add up in fewer lanes) to nearly all.
    assert first.share is not None and first.share > 0.5 and first.amplification > 5
    assert "linear" in result.found.split("gave the same bits")[0]
    assert "compiling mean" in result.found and "reproduces the difference" in result.found


@pytest.mark.parametrize("bug", BUGS[1::3], ids=lambda bug: bug.name)
def test_a_wrong_kernel_is_found(bug: Bug) -> None:
    """Some of them; docs/compare.md has all."""
    model, inputs = everything()
    result = foldproof.compare(model, planted(model, bug), inputs, trials=1)
    assert result.kind is Kind.REFUTED
    assert result.verdict.difference is not None and result.verdict.difference.operator == bug.seen_at
    assert result.verdict.difference.source is not None and "planted.py" in result.verdict.difference.source


@pytest.mark.parametrize("operator", ["aten.linear.default"])
def test_an_ulp_is_rounding(operator: str) -> None:
    model, inputs = everything()
    bug = Bug("an ulp", OPERATORS[operator], ulps(0), operator)
    result = foldproof.compare(model, planted(model, bug), inputs, trials=1)
    assert result.kind is Kind.ROUNDING
    assert operator in [source.operator for source in result.sources]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(x)))


def small() -> tuple[nn.Module, tuple[Tensor]]:
    torch.manual_seed(0)
    return Small().eval(), (torch.randn(8, 16),)


def test_two_graphs_are_walked_side_by_side() -> None:
    model, inputs = small()
    wrong = torch.export.export(model, inputs).module()
    assert isinstance(wrong, torch.fx.GraphModule)
    tanh = next(n for n in wrong.graph.nodes if n.target is torch.ops.aten.tanh.default)
    tanh.target = torch.ops.aten.sin.default
    wrong.recompile()
    result = foldproof.compare(model, wrong, inputs, trials=1)
    assert result.kind is Kind.REFUTED
    assert "walked side by side" in result.found


def test_an_operator_that_was_put_in_is_found_at_the_value_that_it_changes() -> None:
    model, inputs = small()
    wrong = torch.export.export(model, inputs).module()
    assert isinstance(wrong, torch.fx.GraphModule)
    tanh = next(n for n in wrong.graph.nodes if n.target is torch.ops.aten.tanh.default)
    with wrong.graph.inserting_after(tanh):
        scaled = wrong.graph.call_function(torch.ops.aten.mul.Tensor, (tanh, 1.001))
    tanh.replace_all_uses_with(scaled, delete_user_cb=lambda user: user is not scaled)
    wrong.recompile()
    result = foldproof.compare(model, wrong, inputs, trials=1)
    assert result.kind is Kind.REFUTED
    assert result.verdict.difference is not None and result.verdict.difference.node == "tanh"


def test_other_weights_are_found_where_they_are_used() -> None:
    model, inputs = small()
    other, _ = small()
    assert isinstance(other, Small)
    other.two.weight.data[1, 3] += 0.01
    result = foldproof.compare(model, torch.export.export(other, inputs), inputs, trials=1)
    assert result.kind is Kind.REFUTED
    assert result.verdict.difference is not None and result.verdict.difference.node == "linear_1"


def test_shares_that_mean_nothing_are_not_given() -> None:
    """Each of the layers alone makes those after it round otherwise: projected on the difference, they sum to more."""

    def layers(nudge: float) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(16, 16), nn.Tanh())]).eval()
        for parameter in model.parameters():
            parameter.data = parameter.data.mul(1 + nudge)
        return model

    inputs = (torch.randn(8, 16),)
    result = foldproof.compare(layers(0), torch.export.export(layers(1.2e-7), inputs), inputs, trials=1)
    assert result.kind is Kind.ROUNDING and len(result.sources) > 1
    assert {s.share for s in result.sources} == {None} and "no shares are given" in result.found
    assert all(
        f"at module {2 * i}: " in str(s) and "%" not in str(s) for s in result.sources for i in [int(s.node[7:] or 0)]
    )
    propagated = [s.propagated for s in result.sources]
    assert propagated == sorted(propagated, reverse=True)


def test_a_share_that_makes_the_difference_smaller_says_so() -> None:
    source = DifferenceSource("add", "aten.add.Tensor", None, 1.0, 1.0, 1.0, 1.0, -0.06, 1.0)
    assert "add (aten.add.Tensor): takes 6% off; " in str(source)
    assert "less than 1%; " in str(replace(source, share=0.001))


def test_a_candidate_that_gives_outputs_only() -> None:
    model, inputs = small()
    close = model.double()(inputs[0].double()).float().detach()
    result = foldproof.compare(model.float(), close, inputs)
    assert result.kind is Kind.ROUNDING
    assert [s.measured for s in result.sources] == [False] * len(result.sources) and result.sources
    assert sum(s.share or 0.0 for s in result.sources) == pytest.approx(1)
    wrong = foldproof.compare(model, 1.01 * close, inputs)
    assert wrong.kind is Kind.REFUTED and not wrong.sources and "can't be seen" in wrong.found


def test_a_bug_report_has_a_script_that_needs_only_torch(tmp_path: Path) -> None:
    """A real wrong answer of Inductor, made by a lowering of ours that says tanh where sin is asked for."""
    from torch._inductor import lowering

    class Sine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(x).mean(-1)

    x = torch.randn(4, 64)
    right = lowering.lowerings[torch.ops.aten.sin.default]
    lowering.lowerings[torch.ops.aten.sin.default] = lowering.lowerings[torch.ops.aten.tanh.default]
    try:
        with torch._inductor.config.patch(force_disable_caches=True):
            result = foldproof.compare(Sine(), "inductor", (x,), trials=2)
    finally:
        lowering.lowerings[torch.ops.aten.sin.default] = right
    assert result.kind is Kind.REFUTED
    assert result.verdict.difference is not None and result.verdict.difference.operator == "aten.sin.default"
    text = report(result, "Sine")
    for part in ("### 🐛 Describe the bug", "### Minimal reproduction", "### Error logs", "### Versions", "float64"):
        assert part in text
    assert result.reproduction is not None and "foldproof" not in result.reproduction
    script = tmp_path / "repro.py"
    script.write_text(result.reproduction.replace('backend="inductor"', 'backend="eager"'))
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert "compiled − float64:" in ran.stdout


def test_an_explanation_for_whoever_asked() -> None:
    model, inputs = small()
    close = model.double()(inputs[0].double()).float().detach()
    text = report(foldproof.compare(model.float(), close, inputs), "model.py:make")
    assert text.startswith("# model.py:make and saved outputs: rounding, not a bug")
    assert "noise floor" in text and "Versions:" in text


def test_values_that_are_not_meant_to_be_the_same_are_no_sources() -> None:
    """After a fold the convolution gives what the normalisation gave; as a difference that would be immense."""
    from torch.fx.experimental.optimization import fuse

    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.BatchNorm2d(8), torch.nn.ReLU()
    ).eval()
    with torch.no_grad():
        for norm in model[1:3]:
            norm.weight.normal_()
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    result = foldproof.compare(model, fuse(model), (torch.randn(2, 3, 8, 8),))
    assert result.kind is Kind.ROUNDING and not result.sources
    assert "is not the same value there" in str(result)


class Parts(nn.Module):
    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        y = x.log_softmax(-1) if self.fused else x.softmax(-1).log()
        return torch.cat([x.exp() * 0.001, y, (x * 100).sin()], -1)


def test_an_operator_is_not_blamed_for_what_rounds_before_it() -> None:
    torch.manual_seed(0)
    found = foldproof.compare(Parts(False), Parts(True), (torch.randn(8, 64),), trials=3)
    assert found.kind is Kind.ROUNDING and not any("gives other numbers" in note for note in found.verdict.notes)
    source = found.sources[0]
    assert source.operator == "aten.cat.default" and source.before == ("softmax", "log")
    assert "with softmax and log before it" in found.summary and "rounds nothing" not in str(found)
