"""Without a proof of the training step, one note says that gradients were not looked at, where someone needs them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import foldproof
from foldproof.program.gradients import UNSEEN_GRADIENTS


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))


X = torch.randn(2, 3)


def test_a_model_in_training() -> None:
    model = mlp()
    for verdict in (foldproof.prove(model, mlp(), (X,)), foldproof.compare(model, mlp(), (X,)).verdict):
        assert verdict.notes.count(UNSEEN_GRADIENTS) == 1


def test_an_audit() -> None:
    found = foldproof.audit(mlp(), (X,), compiler="export").end_to_end
    assert found is not None and found.verdict.notes.count(UNSEEN_GRADIENTS) == 1


def test_inputs_with_gradients() -> None:
    x = X.clone().requires_grad_()
    assert UNSEEN_GRADIENTS in foldproof.prove(torch.tanh, torch.tanh, (x,)).notes


@pytest.mark.parametrize("why", ["evaluation", "no_grad", "frozen", "graph", "step"])
def test_no_note_where_nobody_needs_gradients(why: str) -> None:
    model, other = mlp(), mlp()
    if why == "evaluation":
        model, other = model.eval(), other.eval()
    if why == "frozen":
        model, other = model.requires_grad_(False), other.requires_grad_(False)
    if why == "step":
        verdict = foldproof.prove_step(model, other, (X,))
    elif why == "graph":
        graph = torch.fx.symbolic_trace(model)
        verdict = foldproof.prove(graph, copy.deepcopy(graph), (X,))
    else:
        with torch.set_grad_enabled(why != "no_grad"):
            verdict = foldproof.prove(model, other, (X,))
    assert UNSEEN_GRADIENTS not in verdict.notes
