"""ExecuTorch's XNNPACK FuseBatchNormPass, unmodified, on edge programs whose parameters are shadows."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

import foldproof
from foldproof import Kind

from .models import CalledTwice, trained

exir = pytest.importorskip("executorch.exir")
fuse_batch_norm = pytest.importorskip("executorch.backends.xnnpack._passes.fuse_batch_norm")

CASES = {
    "conv+bn": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (2, 3, 8, 8), Kind.PROVED),
    "linear+bn, 2-D": (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), (4, 6), Kind.PROVED),
    "linear+bn, 3-D": (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), (4, 6, 6), Kind.REFUTED),
    "one conv weight, two BatchNorms": (CalledTwice(), (2, 3, 8, 8), Kind.REFUTED),
}


def fuse(program: ExportedProgram) -> object:
    return fuse_batch_norm.FuseBatchNormPass(program)(program.graph_module)


@pytest.mark.parametrize("name", CASES)
def test_fuse_batch_norm_pass(name: str) -> None:
    model, shape, expected = CASES[name]
    torch.manual_seed(0)
    inputs = (torch.randn(shape),)
    config = exir.EdgeCompileConfig(_check_ir_validity=False, preserve_ops=[torch.ops.aten.linear.default])
    edge = exir.to_edge(torch.export.export(trained(model), inputs), compile_config=config).exported_program()
    verdict = foldproof.prove_pass(fuse, edge, inputs)
    assert verdict.kind is expected, str(verdict)
    if expected is Kind.REFUTED:
        assert verdict.counterexample is not None and verdict.counterexample.difference > 0.1
    assert any("batch_norm" in str(n.target) for n in edge.graph.nodes), "the caller's program was changed"
