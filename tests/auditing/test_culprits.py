"""Inductor's wrong answers that no proof decides are traced to a step all the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn
from torch._inductor.custom_graph_pass import CustomGraphPass

import foldproof
from foldproof import Kind


class ToZero(nn.Module):
    """0 times a number, which is nan for nan and infinity."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 0 + 1


class Resized(nn.Module):
    """Two pixels, resized by 1.3: PyTorch's own decomposition computes the coordinates in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=1.3, mode="nearest")


class Shifted(nn.Module):
    """Every row takes the one before it."""

    def forward(self, x: Tensor) -> Tensor:
        x[1:] = x[:-1].clone()
        return x


@pytest.mark.parametrize(
    ("model", "x", "culprit"),
    [
        (ToZero(), torch.tensor([1.0, float("nan"), float("inf"), -2.0]), "the pass constant_fold_uniform_value"),
        (
            Resized(),
            torch.tensor([[[[1.0, 2.0]]]], dtype=torch.float64),
            "AOTAutograd's decomposition of aten.upsample_nearest2d.default",
        ),
        (
            Shifted(),
            torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0)),
            "the pass reinplace_inplaceable_ops",
        ),
    ],
    ids=["nan", "resized", "shifted"],
)
def test_the_culprit_is_named(model: nn.Module, x: Tensor, culprit: str) -> None:
    found = foldproof.audit(model, (x,), compiler="inductor", locate=False)
    assert found.kind is Kind.REFUTED
    assert found.conclusion.startswith(f"wrong: {culprit} changes"), found.conclusion


class Failing(CustomGraphPass):
    """A pass of a user's that raises."""

    def __call__(self, graph: fx.Graph) -> None:
        raise RuntimeError("no such operator")

    def uuid(self) -> str:
        return "failing"


def test_the_steps_before_a_crash_are_judged() -> None:
    model = nn.Sequential(nn.Identity(), nn.Linear(4, 4), nn.Dropout()).eval()
    found = foldproof.audit(
        model, (torch.randn(2, 4),), compiler="inductor", options={"post_grad_custom_post_pass": Failing()}
    )
    assert found.kind is Kind.UNDECIDED and found.end_to_end is None
    assert any(step.fired and step.verdict.kind is Kind.PROVED for step in found.steps)
    assert found.conclusion.startswith("crash: inductor can't compile the model (")
    assert "--disable Failing leaves out the pass that failed" in found.conclusion
    assert "no such operator" in found.conclusion and "graph pass" in found.conclusion


class Doubling(CustomGraphPass):
    """A pass of a user's that is wrong."""

    def __call__(self, graph: fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=torch.ops.aten.addmm.default):
            node.kwargs = {"beta": 2}

    def uuid(self) -> str:
        return "doubling"


def test_a_custom_pass_has_the_name_of_its_class() -> None:
    inputs, options = (torch.randn(2, 4),), {"post_grad_custom_post_pass": Doubling()}
    found = foldproof.audit(nn.Linear(4, 4), inputs, compiler="inductor", options=options, locate=False)
    assert found.conclusion.endswith("audit without it: --disable Doubling"), found.conclusion
    found = foldproof.audit(
        nn.Linear(4, 4), inputs, compiler="inductor", options=options, disable="Doubling", locate=False
    )
    assert not found.refuted, found.conclusion
