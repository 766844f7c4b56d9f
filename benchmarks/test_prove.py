"""Proof against plain evaluation: per prime, the target is 3x one float64 forward of *before* plus one of *after*."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
import torch

import foldproof

from .networks import bert_like, resnet_like


@pytest.mark.parametrize("make", [resnet_like, bert_like])
def test_prove_per_prime(benchmark: Any, make: Any) -> None:
    torch.manual_seed(0)
    model, args = make()
    with torch.no_grad():
        before = torch.export.export(model, args)
        after = before.run_decompositions()
        wide = tuple(a.double() for a in args)
        double = torch.export.export(copy.deepcopy(model).double(), wide)
        modules = [double.module(), double.run_decompositions().module()]
    ratios = []

    def once() -> None:
        with torch.no_grad():
            start = time.perf_counter()
            for module in modules:
                module(*wide)
            forward = time.perf_counter() - start
        verdict = foldproof.prove(before, after, args)
        assert verdict.kind is foldproof.Kind.PROVED, str(verdict)
        assert verdict.proof is not None
        # one more prime for the scout that finds out how many are needed
        ratios.append(verdict.seconds / (verdict.proof.k + 1) / forward)

    benchmark.pedantic(once, rounds=3, warmup_rounds=1)
    benchmark.extra_info["per prime over two float64 forwards"] = round(sorted(ratios)[len(ratios) // 2], 2)
