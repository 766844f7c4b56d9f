"""Folding without proofs, relative to torchao and torch.fx on the same network."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx.experimental.optimization import fuse as fx_fuse

import foldproof

from .networks import resnet_like

utils = pytest.importorskip("torchao.quantization.pt2e.utils")


def seconds(prepare: Callable[[], Any], work: Callable[[Any], Any], rounds: int = 5) -> float:
    """Median time of ``work`` on fresh results of ``prepare``, which is not timed."""
    taken = []
    for _ in range(rounds):
        given = prepare()
        start = time.perf_counter()
        work(given)
        taken.append(time.perf_counter() - start)
    return median(taken)


def test_fuse_against_torchao_and_fx(benchmark: Any) -> None:
    """The target is 1.5 times the faster of the two tools that keep the original unchanged, as foldproof does.

    The in-place form of torch.fx, which makes no copy, is reported beside them.
    """
    torch.manual_seed(0)
    model, args = resnet_like()
    program = torch.export.export(model, args)

    def ours() -> None:
        result = foldproof.fuse(program, args, prove=False)
        assert len(result.rewrites) == 49

    benchmark.pedantic(ours, rounds=5, warmup_rounds=1)
    median_ours = benchmark.stats.stats.median
    torchao = seconds(program.module, utils._fuse_conv_bn_)
    fx = seconds(lambda: model, fx_fuse)
    in_place = seconds(lambda: copy.deepcopy(model), lambda m: fx_fuse(m, inplace=True))
    benchmark.extra_info |= {
        "over the faster of the two": round(median_ours / min(torchao, fx), 2),
        "over torchao": round(median_ours / torchao, 2),
        "over torch.fx": round(median_ours / fx, 2),
        "over torch.fx in place": round(median_ours / in_place, 2),
    }


def chain(blocks: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    layers: list[nn.Module] = []
    for _ in range(blocks):
        layers += [nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers).eval(), (torch.randn(1, 4, 4, 4),)


@pytest.mark.parametrize("blocks", [10, 200, 2000])
def test_growth(benchmark: Any, blocks: int) -> None:
    """Time for each block stays the same from 10 to 2,000 conv→BatchNorm→ReLU blocks, for fuse and for prove."""
    import resource

    torch.manual_seed(0)
    model, args = chain(blocks)
    program = torch.export.export(model, args)
    repeats = max(1, 200 // blocks)

    def fold() -> Any:
        result = [foldproof.fuse(program, args, prove=False) for _ in range(repeats)][-1]
        assert len(result.rewrites) == blocks
        return result

    result = benchmark.pedantic(fold, rounds=3, warmup_rounds=1)
    folding = benchmark.stats.stats.median / repeats / blocks
    proving, primes = [], 0
    for _ in range(repeats + 1):  # the first warms up
        start = time.perf_counter()
        verdict = foldproof.prove(program, program, args)
        proving.append(time.perf_counter() - start)
        assert verdict.proof is not None, str(verdict)
        primes = verdict.proof.k
    block = median(proving[1:]) / blocks
    benchmark.extra_info |= {
        "fuse, ms a block": round(1e3 * folding, 3),
        "prove, ms a block": round(1e3 * block, 3),
        "prove, ms a block and prime": round(1e3 * block / (primes + 0.5), 3),  # longer chains need more primes
        "peak memory of the process, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    assert len(result.declined) == 0
