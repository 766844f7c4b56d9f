"""Half precision: programs that round differently, and are the same function; and some that are not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foldproof import Kind, prove
from foldproof.proof import prove as prove_programs

HALF = [torch.bfloat16, torch.float16]


class Attention(nn.Module):
    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.project, self.causal = nn.Linear(64, 192), causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (4, 16)).transpose(1, 2) for t in self.project(x).chunk(3, -1))
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)


class Softmax(nn.Module):
    def __init__(self, explicit: bool) -> None:
        super().__init__()
        self.score, self.explicit = nn.Linear(256, 256), explicit

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.score(x)
        if not self.explicit:
            return y.softmax(-1)
        e = (y - y.amax(-1, True)).exp()
        return e / e.sum(-1, True)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_fused_and_decomposed(dtype: torch.dtype, causal: bool) -> None:
    torch.manual_seed(0)
    program = torch.export.export(Attention(causal).to(dtype).eval(), (torch.randn(2, 96, 64).to(dtype),))
    verdict = prove(program, program.run_decompositions(), (torch.randn(2, 96, 64).to(dtype),))
    assert verdict.kind is Kind.PROVED, str(verdict)
    assert verdict.proof is not None and verdict.proof.log2_error < -40


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_softmax_fused_and_explicit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    fused, explicit = Softmax(False), Softmax(True)
    explicit.load_state_dict(fused.state_dict())
    verdict = prove(fused.to(dtype), explicit.to(dtype), (3 * torch.randn(64, 256).to(dtype),))
    assert verdict.kind is Kind.PROVED, str(verdict)


def folded(dtype: torch.dtype, blocks: int, forget: str = "", seed: int = 0) -> tuple[nn.Sequential, nn.Sequential]:
    """Convolutions with their BatchNorms, and the same folded, but for what is forgotten in the last."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(blocks):
        norm = nn.BatchNorm2d(8)
        assert norm.running_mean is not None and norm.running_var is not None
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.3, 3)
        layers += [nn.Conv2d(8, 8, 3, padding=1), norm, nn.ReLU()]
    before = nn.Sequential(*layers[:-1]).eval().to(dtype)
    after: Any = copy.deepcopy(before)
    for i in range(0, len(after), 3):
        after[i], after[i + 1] = nn.utils.fuse_conv_bn_eval(after[i], after[i + 1]), nn.Identity()
    if forget:
        getattr(after[-2], forget).data.copy_(getattr(before[-2], forget).data)
    return before, after


IMAGE = torch.randn(2, 8, 10, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("blocks", [1, 4])
def test_a_rounded_fold_is_rounding(dtype: torch.dtype, blocks: int) -> None:
    verdict = prove_programs(*folded(dtype, blocks), (IMAGE.to(dtype),))  # as constants
    assert verdict.kind is Kind.ROUNDING, str(verdict)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("forget", ["weight", "bias"])
@pytest.mark.parametrize("blocks", [1, 4])
def test_a_wrong_fold_is_refuted(dtype: torch.dtype, forget: str, blocks: int) -> None:
    """Though in bfloat16 it is no more than some hundred times what rounding does."""
    verdict = prove(*folded(dtype, blocks, forget), (IMAGE.to(dtype),))
    assert verdict.kind is Kind.REFUTED, str(verdict)


class Chooses(nn.Module):
    """Rounding decides here and there what comes out: nothing of that is a witness."""

    def __init__(self, body: nn.Module, how: str) -> None:
        super().__init__()
        self.body, self.how = body, how

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.how == "round":
            return (y * 4).round() / 4
        if self.how == "where":
            return torch.where(y > 0, y + 3, y - 3)
        scores = y.flatten(2).sum(-1, keepdim=True)  # one choice for a whole image
        return torch.where(scores > scores.mean(1, keepdim=True), 5 * y.flatten(2), -y.flatten(2))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("how", ["round", "where", "gate"])
def test_choices_that_rounding_turns_are_no_witness(dtype: torch.dtype, how: str) -> None:
    for seed in range(3):
        before, after = folded(dtype, 1, seed=seed)
        verdict = prove(Chooses(before, how), Chooses(after, how), (IMAGE.to(dtype),))
        assert verdict.kind in (Kind.ROUNDING, Kind.UNDECIDED), str(verdict)
