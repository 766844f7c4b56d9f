"""Gradients of models of the zoo against their joint graphs, of which attention on core operators is a wrong one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import zoo.gradients
from foldproof import Kind
from zoo import ZOO
from zoo.architecture import Architecture, Family
from zoo.gradients import prove_gradients


@pytest.mark.parametrize("name", ["byol_head", "conv_flatten_bn", "tabular_mlp"])
def test_joint_graphs_are_proved(name: str) -> None:
    found = prove_gradients(ZOO[name])
    assert found.joint.kind is Kind.PROVED, found.joint
    assert found.decomposed.kind is Kind.PROVED, found.decomposed


class Attention(nn.Module):
    """One head on one operand."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Any:
        q = self.project(x)[:, None]
        return F.scaled_dot_product_attention(q, q, q)


def test_attention_on_core_operators_reads_its_weights_as_a_logsumexp(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch decomposes attention into a program that returns its weights second, and leaves its backward alone."""
    monkeypatch.setattr(zoo.gradients, "_core_operators", torch.export.default_decompositions)
    found = prove_gradients(Architecture("attention", Family.TEXT, Attention, lambda: (torch.randn(2, 5, 16),)))
    assert found.joint.kind is Kind.PROVED, found.joint
    assert found.decomposed.kind is Kind.UNDECIDED
    assert "a logsumexp of shape (2, 1, 5, 5) is none of these scores" in found.decomposed.reason


def test_attention_as_one_operator_is_proved() -> None:
    found = prove_gradients(Architecture("attention", Family.TEXT, Attention, lambda: (torch.randn(2, 5, 16),)))
    assert found.joint.kind is found.decomposed.kind is Kind.PROVED, found.decomposed
