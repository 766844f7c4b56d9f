"""Tied weights: one tensor under two names, as in language models with tied embeddings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.auditing import api
from foldproof.compiler_catalog import DECLARED


class Tied(nn.Module):
    """A head that is the embedding, a projection that is another's, and one module called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.first, self.second, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)
        self.second.weight = self.first.weight
        self.again = self.norm
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.embedding(tokens))
        y: Tensor = self.head(self.again(self.second(torch.relu(self.first(x)))))
        return y


@pytest.mark.parametrize("compiler", DECLARED)
def test_an_audit_of_tied_weights(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "COMPARED_INPUTS", 3)
    for package in DECLARED[compiler].packages:
        pytest.importorskip(package)
    found = foldproof.audit(Tied().eval(), (torch.randint(11, (2, 5)),), compiler=compiler)
    assert found.kind is not Kind.REFUTED, str(found)
    assert found.end_to_end is not None
    undecided = [step.name for step in found.steps if step.verdict.kind is Kind.UNDECIDED]
    assert not undecided, str(found)
