"""A quantization's bound holds for the values that were seen: what it cuts off is part of the bound."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # defines the operators
from torch import Tensor, fx, nn
from torch.fx.passes.infra.pass_base import PassBase, PassResult

import foldproof
from foldproof import Kind

from .programs import normal

decomposed = torch.ops.quantized_decomposed
ROW = {0: torch.tensor([0.05] * 7 + [1e-4]), 1: torch.zeros(8, dtype=torch.int64)}
"""Scales and zero points of eight channels, one of which is cut off."""

X = normal(6, 8)


class Quantizes(PassBase):
    """Puts a pair of quantize and dequantize after the rectifier."""

    def __init__(self, kind: str, *args: Any) -> None:
        super().__init__()
        self.pair = (getattr(decomposed, f"quantize_{kind}").default, getattr(decomposed, f"dequantize_{kind}").default)
        self.args = args

    def call(self, module: fx.GraphModule) -> PassResult:
        graph = module.graph
        (node,) = (n for n in graph.nodes if n.target is torch.ops.aten.relu.default)
        with graph.inserting_after(node):
            # Buffers of the module hold the scales of channels.
            last = node
            args = []
            for i, x in enumerate(self.args):
                if isinstance(x, Tensor):
                    module.register_buffer(f"quantized_{i}", x)
                    with graph.inserting_after(last):
                        last = graph.get_attr(f"quantized_{i}")
                args.append(last if isinstance(x, Tensor) else x)
            with graph.inserting_after(last):
                whole = graph.call_function(self.pair[0], (node, *args))
            with graph.inserting_after(whole):
                back = graph.call_function(self.pair[1], (whole, *args))
        node.replace_all_uses_with(back, delete_user_cb=lambda user: user is not whole)
        module.recompile()
        return PassResult(module, True)


CUTTING: dict[str, tuple[Any, ...]] = {
    "a range of one number": ("per_tensor", 0.01, 0, 0, 0, torch.int8),
    "a range that is too small": ("per_tensor", 0.002, -128, -128, 127, torch.int8),
    "a zero point at the other end": ("per_tensor", 0.02, 127, -128, 127, torch.int8),
    "one channel": ("per_channel", ROW[0], ROW[1], 1, -128, 127, torch.int8),
}


def quantized(*args: Any) -> tuple[Any, float]:
    torch.manual_seed(0)
    module = torch.export.export(nn.Sequential(nn.Linear(8, 8), nn.ReLU()).eval(), (X,)).module()
    with foldproof.watch((X,)) as log:
        after = Quantizes(*args)(copy.deepcopy(module)).graph_module
    (step,) = log.steps
    return step.verdict, float((module(X) - after(X)).abs().max())


@pytest.mark.parametrize("name", CUTTING)
def test_cut_off_values_are_in_the_bound(name: str) -> None:
    verdict, difference = quantized(*CUTTING[name])
    assert verdict.kind is Kind.PROVED_WITHIN, str(verdict)
    (step,) = verdict.steps
    assert step.bound >= 0.99 * difference > 0.1 and "cutting off" in step.name
    assert f"outputs differ by up to {difference:.3g}" in str(verdict)
    assert verdict.claim is not None and verdict.claim.local_bounds


def test_a_range_that_fits() -> None:
    verdict, difference = quantized("per_tensor", 0.02, -128, -128, 127, torch.int8)
    (step,) = verdict.steps
    assert verdict.kind is Kind.PROVED_WITHIN and "within its range" in step.name
    assert step.bound == pytest.approx(0.01) and difference <= step.bound
    assert "outputs differ by up to" in str(verdict)
