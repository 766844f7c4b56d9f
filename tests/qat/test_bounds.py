"""Stated bounds against measured differences: programs drawn at random, run on inputs that drive them to their limits.

The result of a fold is computed in integers here, as integer kernels do it: an accumulator of products and the bias in
its unit.
"""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torch.export import export

import foldproof
from foldproof import Kind

decomposed = torch.ops.quantized_decomposed
INT8 = (-128, 127, torch.int8)
CHANNELS = 3


def pair(x: Tensor, scale: float, zero: int) -> Tensor:
    q = decomposed.quantize_per_tensor(x, scale, zero, *INT8)
    return decomposed.dequantize_per_tensor(q, scale, zero, *INT8)


class Layer(nn.Module):
    """A quantized linear or convolution and a chain, with quantizations at those of the four ``places`` that are given.

    With ``cancels``, the chain is torchao's, whose scale is 1.
    """

    def __init__(self, seed: int, conv: bool, per_channel: bool, cancels: bool, places: frozenset[int]) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)

        def rand(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
            return torch.rand(shape, generator=g) * (high - low) + low

        self.conv, self.per_channel, self.places = conv, per_channel, places
        shape = (CHANNELS, 2, 3) if conv else (CHANNELS, 4)
        self.register_buffer("weight", torch.randint(-127, 128, shape, generator=g, dtype=torch.int8))
        self.register_buffer("steps", rand(CHANNELS, low=1e-3, high=2e-2))
        self.register_buffer("zeros", torch.zeros(CHANNELS, dtype=torch.int64))
        self.norm = nn.BatchNorm1d(CHANNELS).eval()
        self.norm.running_mean.copy_(rand(CHANNELS))
        self.norm.running_var.copy_(rand(CHANNELS, low=0.1, high=3))
        self.norm.weight.data.copy_(rand(CHANNELS, low=-2, high=2))
        self.norm.bias.data.copy_(rand(CHANNELS, low=-2, high=2))
        self.scale, self.bias = nn.Parameter(rand(CHANNELS, low=0.2, high=2)), nn.Parameter(rand(CHANNELS))
        self.cancels = cancels
        self.input = (float(rand(1, low=1e-2, high=5e-2)), int(torch.randint(-128, 128, (1,), generator=g)))
        self.pairs = [
            (float(rand(1, low=3e-3, high=0.3)), int(torch.randint(-128, 128, (1,), generator=g))) for _ in "1234"
        ]

    def forward(self, x: Tensor) -> Tensor:
        x = pair(x, *self.input)
        if self.per_channel:
            w = decomposed.dequantize_per_channel(self.weight, self.steps, self.zeros, 0, -127, 127, torch.int8)
        else:
            w = decomposed.dequantize_per_tensor(self.weight, 5e-3, 0, -127, 127, torch.int8)
        y = torch.conv1d(x, w, padding=1) if self.conv else nn.functional.linear(x, w)
        norm, along = self.norm, (1, -1, 1) if self.conv else (1, -1)
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps) if self.cancels else self.scale
        for place, step in enumerate(
            (lambda y: y / scale.reshape(along), lambda y: y + self.bias.reshape(along), norm)
        ):
            y = step(self.observed(y, place))
        return self.observed(y, 3)

    def observed(self, y: Tensor, place: int) -> Tensor:
        return pair(y, *self.pairs[place]) if place in self.places else y

    def inputs(self) -> Tensor:
        """At random, and such that each output channel is as small or as large as it can be."""
        scale, zero = self.input
        ends = torch.tensor([scale * (-128 - zero), scale * (127 - zero)])
        signs = (self.weight.float().flatten(1) > 0).long()
        rows = torch.cat([ends[signs], ends[1 - signs]])
        x = rows.reshape(-1, *self.weight.shape[1:])
        return torch.cat([x, torch.randn(40, *x.shape[1:])])


def accumulated(program: Any, x: Tensor) -> Tensor:
    """Compute the folded operator's result in integers, times its unit: in float64, which represents them all."""
    (node,) = (n for n in program.graph.nodes if str(n.target) in ("aten.conv1d.default", "aten.linear.default"))
    data, weight, bias = node.args[:3]

    def held(a: Any) -> Any:
        return getattr(program, str(a.target)).double() if isinstance(a, fx.Node) else a

    step, zero = data.args[1:3]
    q = decomposed.quantize_per_tensor(x, step, zero, *INT8).double() - zero
    w, b = held(weight.args[0]), held(bias.args[0])
    sums = torch.conv1d(q, w, b, padding=1) if x.dim() == 3 else nn.functional.linear(q, w, b)
    unit = torch.as_tensor(held(bias.args[1]), dtype=torch.float64)
    torch.testing.assert_close(unit, torch.as_tensor(held(weight.args[1]), dtype=torch.float64) * step)
    return sums * unit.reshape((-1, 1) if x.dim() == 3 else (-1,))


def rest(program: Any, y: Tensor) -> Tensor:
    """Apply the rest of the folded program to its operator's result: at most one quantization."""
    found = [n for n in program.graph.nodes if str(n.target) == "quantized_decomposed.quantize_per_tensor.default"]
    return pair(y.float(), *found[1].args[1:3]) if len(found) > 1 else y


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 2**32),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.frozensets(st.integers(0, 3)),
)
def test_no_difference_is_above_its_bound(
    seed: int, conv: bool, per_channel: bool, cancels: bool, places: frozenset[int]
) -> None:
    layer = Layer(seed, conv, per_channel, cancels, places).eval()
    x = layer.inputs()
    result = foldproof.fold_qat(export(layer, (x,)).module(), (x,))
    assert not result.declined and result.verdict.kind is Kind.PROVED_WITHIN, str(result)
    assert not any("batch_norm" in str(n.target) for n in result.program.graph.nodes)
    bound = sum(step.bound for step in result.verdict.steps)
    with torch.no_grad():
        before, after = layer(x).double(), result.program(x).double()
    whole = rest(result.program, accumulated(result.program, x)).double()
    slack = 1e-5 * float(before.abs().max())
    if 3 in places:  # which rounds both of them once more
        bound += layer.pairs[3][0]
    assert float((before - after).abs().max()) <= bound + slack
    assert float((before - whole).abs().max()) <= bound + slack
