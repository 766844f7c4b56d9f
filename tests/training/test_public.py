"""Backward functions of transformers, written by hand, against what they replace."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.models.bloom.modeling_bloom import GeLUFunction, bloom_gelu_forward
from transformers.models.sew_d.modeling_sew_d import XDropout, XSoftmax

import foldproof
from foldproof import Kind

X = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
MASK = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])


def masked_softmax(x: Tensor, mask: Tensor) -> Tensor:
    hidden = ~mask.bool()
    return x.masked_fill(hidden, torch.finfo(x.dtype).min).softmax(-1).masked_fill(hidden, 0)


def test_a_masked_softmax_is_proved() -> None:
    verdict = foldproof.prove_step(masked_softmax, lambda x, mask: XSoftmax.apply(x, mask, -1), (X, MASK))
    assert verdict.kind is Kind.PROVED, verdict


def test_a_dropout_is_proved() -> None:
    def dropped(x: Tensor) -> Tensor:
        hidden = (1 - torch.empty_like(x).bernoulli_(0.5)).to(torch.bool)
        return x.masked_fill(hidden, 0) * 2

    verdict = foldproof.prove_step(dropped, lambda x: XDropout.apply(x, 0.5), (X,))
    assert verdict.kind is Kind.PROVED, verdict


def test_a_derivative_with_rounded_constants_is_rounding() -> None:
    """Bloom's GELU has √(2/π)·3·0.044715 to ten digits."""
    verdict = foldproof.prove_step(bloom_gelu_forward, GeLUFunction.apply, (X,))
    assert verdict.kind is Kind.ROUNDING, verdict
    assert "constants: 0.1070322243 in the second only" in verdict.reason
