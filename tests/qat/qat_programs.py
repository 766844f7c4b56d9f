"""Networks that torchao trains quantization-aware and converts, with quantizers that leave its simulation standing."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

pytest.importorskip("torchao.quantization.pt2e.qat_utils")

from torchao.quantization.pt2e import (
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    disable_observer,
    move_exported_model_to_eval,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import (
    DerivedQuantizationSpec,
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)

aten = torch.ops.aten
LINEAR = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
    aten.linear.default,
}
TRANSPOSED = {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}


def spec(
    observer: Any, low: int, high: int, scheme: torch.qscheme, axis: int | None = None, dtype: torch.dtype = torch.int8
) -> QuantizationSpec:
    return QuantizationSpec(
        dtype, FusedMovingAvgObsFakeQuantize.with_args(observer=observer), low, high, scheme, axis, False
    )


INT8 = spec(MovingAverageMinMaxObserver, -128, 127, torch.per_tensor_affine)
UINT8 = spec(MovingAverageMinMaxObserver, 0, 255, torch.per_tensor_affine, dtype=torch.uint8)
PER_TENSOR = spec(MovingAverageMinMaxObserver, -127, 127, torch.per_tensor_symmetric)
PER_TENSOR_INT4 = spec(MovingAverageMinMaxObserver, -8, 7, torch.per_tensor_symmetric)


def per_channel(axis: int = 0, low: int = -127, high: int = 127) -> QuantizationSpec:
    return spec(MovingAveragePerChannelMinMaxObserver, low, high, torch.per_channel_symmetric, axis)


class LinearOnly(Quantizer):
    """Annotates convolutions and linears and knows nothing of BatchNorm: it looks at one operator at a time.

    ``weight`` is "tensor", "channel" or "int4"; ``output`` puts an observer on the operator's own output, and so into
    the chain; ``bias`` derives an int32 bias from the scales of input and weight.
    """

    def __init__(self, weight: str, output: bool, bias: bool = False, activation: QuantizationSpec = INT8) -> None:
        super().__init__()
        self.weight, self.output, self.bias, self.activation = weight, output, bias, activation

    def validate(self, model: Any) -> None:
        pass

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        for node in model.graph.nodes:
            if node.target in LINEAR:
                self._annotate(node)
        return model

    def _annotate(self, node: fx.Node) -> None:
        axis = 1 if node.target in TRANSPOSED else 0
        weight = {"tensor": PER_TENSOR, "channel": per_channel(axis), "int4": per_channel(axis, -8, 7)}[self.weight]
        inputs: dict[Any, Any] = {node.args[0]: self.activation, node.args[1]: weight}
        if self.bias and len(node.args) > 2 and node.args[2] is not None:
            inputs[node.args[2]] = DerivedQuantizationSpec(
                derived_from=[(node.args[0], node), (node.args[1], node)],
                derive_qparams_fn=_product_of_scales,
                dtype=torch.int32,
                quant_min=-(2**31),
                quant_max=2**31 - 1,
                qscheme=torch.per_tensor_symmetric if self.weight == "tensor" else torch.per_channel_symmetric,
                ch_axis=None if self.weight == "tensor" else 0,
            )
        output = self.activation if self.output else None
        node.meta["quantization_annotation"] = QuantizationAnnotation(inputs, output, _annotated=True)


class Nothing(Quantizer):
    """Annotates nothing: torchao puts its chain in all the same."""

    def validate(self, model: Any) -> None:
        pass

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        return model


def _product_of_scales(observers: Any) -> tuple[Tensor, Tensor]:
    (input_scale, _), (weight_scale, _) = (o.calculate_qparams() for o in observers)
    scale = input_scale * weight_scale
    return scale, torch.zeros_like(scale, dtype=torch.int32)


CONTROLS: dict[str, Callable[[], Quantizer]] = {
    "C": lambda: LinearOnly("tensor", output=False),
    "C per channel": lambda: LinearOnly("channel", output=False),
    "D": lambda: LinearOnly("tensor", output=False, bias=True),
}
"""torchao folds the chain itself: with a float bias, and with an integer one."""

QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "A": Nothing,
    "B": lambda: LinearOnly("tensor", output=True),
    "B per channel": lambda: LinearOnly("channel", output=True),
    "B int4": lambda: LinearOnly("int4", output=True),
    "B uint8": lambda: LinearOnly("channel", output=True, activation=UINT8),
    "E": lambda: LinearOnly("tensor", output=True, bias=True),
    "E per channel": lambda: LinearOnly("channel", output=True, bias=True),
}
"""Three ways in which the chain survives `convert_pt2e` of torchao 0.18: A, B, and E, which is B with an int32 bias."""


def trained(model: nn.Module, negative: bool = False, seed: int = 0) -> nn.Module:
    """Weights, statistics and affines as after training; some scales are ``negative``, if that is wanted."""
    generator = torch.Generator().manual_seed(seed)

    def rand(t: Tensor, low: float, high: float) -> Tensor:
        return torch.rand(t.shape, generator=generator) * (high - low) + low

    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.copy_(rand(module.running_mean, -1, 1))
            module.running_var.copy_(rand(module.running_var, 0.3, 2))
            sign = rand(module.weight, -1, 3).sign() if negative else 1
            module.weight.data.copy_(rand(module.weight, 0.4, 1.6) * sign)
            module.bias.data.copy_(rand(module.bias, -1, 1))
        elif isinstance(getattr(module, "weight", None), nn.Parameter):
            size = module.weight[0].numel() ** -0.5
            module.weight.data.copy_(rand(module.weight, -size, size))
            if module.bias is not None:
                module.bias.data.copy_(rand(module.bias, -size, size))
    return model


def prepared(
    model: nn.Module, x: Tensor, quantizer: Quantizer, negative: bool = False, dynamic_shapes: Any = None
) -> fx.GraphModule:
    """After QAT: observers have seen x and are switched off, BatchNorm is in eval mode."""
    model = trained(copy.deepcopy(model).train(), negative)
    module = prepare_qat_pt2e(torch.export.export(model, (x,), dynamic_shapes=dynamic_shapes).module(), quantizer)
    with torch.no_grad():
        module(x), module(x)
    move_exported_model_to_eval(module)
    module.apply(disable_observer)
    return module


def without_counters(module: fx.GraphModule) -> fx.GraphModule:
    """Without the counting of batches, which torchao stops for 2-d BatchNorms only, and only when it converts."""
    for node in list(module.graph.nodes):
        if node.target is aten.add_.Tensor and "num_batches_tracked" in str(node.args[0]):
            module.graph.erase_node(node)
    module.recompile()
    return module


def converted(
    model: nn.Module, x: Tensor, quantizer: Quantizer, negative: bool = False, dynamic_shapes: Any = None
) -> fx.GraphModule:
    """Convert it with `convert_pt2e`, in eval mode."""
    module = convert_pt2e(prepared(model, x, quantizer, negative, dynamic_shapes))
    move_exported_model_to_eval(module)
    return module


class Twice(nn.Module):
    """One convolution with two BatchNorms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.conv(self.first(self.conv(x))))


class Shared(nn.Module):
    """Two convolutions with one BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.norm.num_batches_tracked = None  # torchao fails on a counter that two calls write to

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.second(self.norm(self.first(x)).relu()))


class ThroughViews(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.norm(y.flatten(0, 1)).reshape_as(y)


LAYERS = {
    "conv1d": (nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6)), (4, 3, 9)),
    "conv2d, relu": (nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU()), (4, 3, 9, 9)),
    "conv2d, hardswish": (
        nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Hardswish()),
        (2, 3, 7, 7),
    ),
    "conv2d, other eps": (nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, eps=0.1, momentum=0.3)), (2, 3, 9, 9)),
    "conv2d, same padding": (nn.Sequential(nn.Conv2d(3, 6, 3, padding="same"), nn.BatchNorm2d(6)), (2, 3, 9, 9)),
    "depthwise, relu6": (
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4), nn.ReLU6()),
        (2, 4, 9, 9),
    ),
    "grouped": (nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (2, 4, 7, 7)),
    "conv3d": (nn.Sequential(nn.Conv3d(3, 6, 3), nn.BatchNorm3d(6)), (2, 3, 5, 5, 5)),
    "conv_transpose1d": (nn.Sequential(nn.ConvTranspose1d(3, 6, 3, stride=2), nn.BatchNorm1d(6)), (2, 3, 9)),
    "conv_transpose2d": (nn.Sequential(nn.ConvTranspose2d(3, 6, 3), nn.BatchNorm2d(6)), (2, 3, 5, 5)),
    "conv_transpose3d": (nn.Sequential(nn.ConvTranspose3d(2, 3, 2), nn.BatchNorm3d(3)), (2, 2, 3, 3, 3)),
    "conv1d, valid, relu6": (
        nn.Sequential(nn.Conv1d(3, 4, 3, padding="valid", bias=False), nn.BatchNorm1d(4), nn.ReLU6()),
        (2, 3, 7),
    ),
    "linear, relu": (nn.Sequential(nn.Linear(5, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU()), (8, 5)),
    "conv called twice": (Twice(), (2, 3, 7, 7)),
    "shared BatchNorm": (Shared(), (2, 3, 5, 5)),
    "linear": (nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), (8, 6)),
    "linear through views": (ThroughViews(), (4, 5, 6)),
}


@functools.cache
def made(quantizer: str, layer: str, negative: bool = False) -> tuple[fx.GraphModule, Tensor]:
    """Return a converted layer and an input for it, which tests must not change."""
    torch.manual_seed(0)
    model, shape = LAYERS[layer]
    x = torch.randn(shape)
    return converted(model, x, QUANTIZERS[quantizer](), negative), x
