"""Inductor's caches: kernels are taken from them, and nothing that a pass or the code generator did."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import config
from torch._inductor.codegen.cpp import CppOverrides, CppVecOverrides

import foldproof
from foldproof.verdict import Kind


class Grown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x * 0.125 + 1)


def compile_as_users_do(model: nn.Module, x: torch.Tensor) -> None:
    torch._dynamo.reset()
    torch.compile(model)(x)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of its own, without the precompiled headers that would take most of the time."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with config.patch(cpp_cache_precompile_headers=False):
        yield tmp_path


def kernels(cache: Path) -> set[Path]:
    return set(cache.rglob("*.so"))


def test_kernels_come_from_the_cache_and_every_pass_runs(cache: Path) -> None:
    model, x = Grown().eval(), torch.randn(4, 16)
    with torch.no_grad():
        compile_as_users_do(model, x)
        hits = counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"]
        compile_as_users_do(model, x)
    assert counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"] > hits
    built, folders = kernels(cache), {path.name for path in cache.iterdir()}
    found = foldproof.audit(model, [x], locate=False)
    assert {"remove_noop_ops", "lowering"} <= {step.name for step in found.steps}
    assert built and kernels(cache) == built
    assert not [path for path in cache.iterdir() if path.name not in folders and len(path.name) != 2]


def test_a_right_kernel_in_the_cache_hides_no_wrong_one(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Grown().eval(), torch.randn(4, 16)
    with torch.no_grad():
        compile_as_users_do(model, x)
    monkeypatch.setattr(CppVecOverrides, "exp", staticmethod(lambda x: f"{x}.sin()"))
    monkeypatch.setattr(CppOverrides, "exp", staticmethod(lambda x: f"std::sin({x})"))
    found = foldproof.audit(model, [x], locate=False)
    assert found.end_to_end is not None and found.end_to_end.verdict.kind is Kind.REFUTED
