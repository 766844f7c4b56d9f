"""Linear + BatchNorm, as in torchao #4242: its tests, by their meaning.

A linear operator acts on the last axis and BatchNorm1d on axis 1; only for 2-D inputs are they the same.
"""

from __future__ import annotations

import re

import pytest
import torch
from fusion_programs import norms
from torch import Tensor, nn

import foldproof
from foldproof import Kind


def linear_bn(features: int, channels: int, bias: bool) -> nn.Sequential:
    """Linear and BatchNorm1d with statistics that matter, as after training."""
    generator = torch.Generator().manual_seed(features * 10 + channels)
    model = nn.Sequential(nn.Linear(features, channels, bias=bias), nn.BatchNorm1d(channels))
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d) and norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    nn.init.normal_(norm.weight, generator=generator)
    nn.init.normal_(norm.bias, generator=generator)
    return model.eval()


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("features", "channels"), [(3, 5), (5, 5), (10, 3), (1, 1), (64, 32)])
def test_2d_is_fused(features: int, channels: int, bias: bool) -> None:
    model, inputs = linear_bn(features, channels, bias), (random(4, features),)
    program = torch.export.export(model, inputs)
    result = foldproof.fuse(program, inputs)
    assert [rewrite.nodes for rewrite in result.rewrites] == [("linear", "batch_norm")]
    assert result.verdict.kind is Kind.PROVED
    assert norms(program) and not norms(result.program)
    torch.testing.assert_close(result.program.module()(*inputs), model(*inputs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("outputs", [5, 7])  # as many as the other axis has, too: then no shape is wrong
def test_3d_is_not_fused_and_a_warning_names_node_and_ranks(outputs: int, bias: bool) -> None:
    model, inputs = linear_bn(3, 5, bias), (random(2, 5, 3),)
    model[0] = nn.Linear(3, outputs, bias=bias)
    program = torch.export.export(model, inputs)
    with pytest.warns(UserWarning, match=r"the output of linear is 3-D.*axis 2.*axis 1") as caught:
        result = foldproof.fuse(program, inputs)
    assert [re.search("test_seed1", warning.filename) is not None for warning in caught] == [True]
    assert result.rewrites == ()
    assert [(declined.node, "axis" in declined.reason) for declined in result.declined] == [("batch_norm", True)]
    assert norms(result.program) == norms(program) == ["batch_norm"]
    assert torch.equal(result.program.module()(*inputs), program.module()(*inputs))


@pytest.mark.parametrize("bias", [True, False])
def test_the_reproduction_of_the_report(bias: bool) -> None:
    """Linear(3, 5) and BatchNorm1d(5): wrong by 0.37 on (2, 5, 3) before the mend, right on (2, 3)."""
    model = linear_bn(3, 5, bias)
    wrong, right = (random(2, 5, 3),), (random(2, 3),)
    with pytest.warns(UserWarning, match="3-D"):
        left = foldproof.fuse(model, wrong)
    assert torch.equal(left.program.module()(*wrong), model(*wrong))
    assert norms(left.program)
    fused = foldproof.fuse(model, right)
    assert not norms(fused.program)
    assert (fused.program.module()(*right) - model(*right)).abs().max() < 1e-6
