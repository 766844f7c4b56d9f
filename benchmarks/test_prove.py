"""Proof relative to evaluation: per prime, the target is 3 times a float64 forward of *before* plus one of *after*.

The time covers all of `foldproof.prove`: matching parameters, the scout run, the proof, the float64 check, and a run of
the real programs.
"""

from __future__ import annotations

import copy
import time
from statistics import median
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
        start = time.perf_counter()
        verdict = foldproof.prove(before, after, args)
        taken = time.perf_counter() - start
        assert verdict.kind is foldproof.Kind.PROVED, str(verdict)
        assert verdict.proof is not None
        # half a prime more for the scout run, which runs one of the two programs with one prime
        ratios.append(taken / (verdict.proof.k + 0.5) / forward)

    benchmark.pedantic(once, rounds=5, warmup_rounds=1)
    benchmark.extra_info["per prime over two float64 forwards"] = round(median(ratios[1:]), 2)
