"""Fingerprints of contents: the same with and without numpy, for each dtype."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from foldproof.digest import digest

WITHOUT_NUMPY = """
import sys

sys.modules["numpy"] = None  # as if it were not installed
import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # registers quantize_per_tensor

import foldproof
from tests.proof.test_within import FloatBias, WholeBias, prove

model = FloatBias()
print(prove(model, WholeBias(model, 0.02, 0.02)).kind)
x = (torch.randn(2, 3),)
first, second = (torch.export.export(nn.Sequential(nn.ReLU(), last), x) for last in (nn.Tanh(), nn.Sigmoid()))
refuted = foldproof.prove(first, second, x)
print(refuted.kind, refuted.difference.node)
"""


def test_verdicts_without_numpy() -> None:
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", WITHOUT_NUMPY], cwd=root, capture_output=True, text=True, timeout=300)
    assert run.stdout.split() == ["PROVED_WITHIN", "REFUTED", "tanh"], run.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.complex64])
def test_contents_count_and_not_the_layout(dtype: torch.dtype) -> None:
    x = torch.arange(12).reshape(3, 4).to(dtype)
    assert digest([x]) == digest([x.t().contiguous().t()]) == digest([x.reshape(12)]) == digest([x[:2], x[2:]])
    assert digest([x]) != digest([x.t()]) or dtype is torch.bool
    assert digest([x]) == hashlib.sha256(bytes(x.contiguous().view(torch.uint8).flatten().tolist())).hexdigest()


def test_conjugates_are_read_as_they_are() -> None:
    x = torch.tensor([1 + 2j])
    assert digest([x.conj()]) == digest([torch.tensor([1 - 2j])])
    assert digest([x.conj().imag]) == digest([torch.tensor([-2.0])])


def test_empty_tensors_and_none() -> None:
    assert digest([torch.empty(0)]) == digest([]) == hashlib.sha256().hexdigest()


def test_what_has_no_memory_is_refused() -> None:
    with pytest.raises((RuntimeError, TypeError, NotImplementedError)):
        digest([torch.ones(2, device="meta")])
    with pytest.raises((RuntimeError, TypeError, NotImplementedError)):
        digest([torch.eye(2).to_sparse()])
