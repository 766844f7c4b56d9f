"""Operators on each element."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from foldproof.onnx_graph.registry import MICROSOFT, NotTranslated, defines, dtype_of

_OF_ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Acos": torch.acos,
    "Acosh": torch.acosh,
    "Asin": torch.asin,
    "Asinh": torch.asinh,
    "Atan": torch.atan,
    "Atanh": torch.atanh,
    "BitwiseNot": torch.bitwise_not,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Cosh": torch.cosh,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": functional.hardswish,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": functional.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Sinh": torch.sinh,
    "Softplus": functional.softplus,
    "Softsign": functional.softsign,
    "Sqrt": torch.sqrt,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
}

_OF_TWO: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "BitwiseAnd": torch.bitwise_and,
    "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "PRelu": lambda x, slope: torch.where(x < 0, slope * x, x),
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}

_OF_MANY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Max": torch.maximum,
    "Min": torch.minimum,
    "Sum": torch.add,
}


def _named(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a function of its own for each operator: its name shows in graphs."""

    def defined(*xs: Tensor) -> Tensor:
        return function(*xs)

    defined.__name__ = defined.__qualname__ = name.lower()
    return defined


def _of_all(of_two: Callable[[Tensor, Tensor], Tensor], *xs: Tensor) -> Tensor:
    return functools.reduce(of_two, xs)


for _table in (_OF_ONE, _OF_TWO):
    for _name, _function in _table.items():
        defines(_name)(_named(_name, _function))
for _name, _function_of_two in _OF_MANY.items():
    defines(_name)(_named(_name, functools.partial(_of_all, _function_of_two)))


@defines("Mean")
def mean(*xs: Tensor) -> Tensor:
    return functools.reduce(torch.add, xs) / len(xs)


@defines("Div")
def div(x: Tensor, y: Tensor) -> Tensor:
    return torch.div(x, y) if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


@defines("Mod")
def mod(x: Tensor, y: Tensor, *, fmod: int = 0) -> Tensor:
    return torch.fmod(x, y) if fmod else torch.remainder(x, y)


@defines("Pow")
def power(x: Tensor, y: Tensor) -> Tensor:
    if y.numel() == 1 and y.dim() == 0 and not hasattr(y, "residue"):
        return torch.pow(x, y.item()).to(x.dtype)
    return torch.pow(x, y).to(x.dtype)


@defines("Identity")
def identity(x: Tensor) -> Tensor:
    return x.clone()


@defines("Cast")
def cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(dtype_of(to))


@defines("CastLike")
def cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Tensor:
    return x.to(like.dtype)


@defines("Clip")
def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Limit the elements; of limits in the wrong order, the upper one holds."""
    low, high = (None if limit is None else _number(limit) for limit in (low, high))
    return x.clone() if low is None and high is None else torch.clamp(x, low, high)


def _number(x: Tensor) -> Any:
    """Return a tensor of one element as a Python number, if it is a constant."""
    return x if hasattr(x, "residue") else x.reshape(()).item()


@defines("Where")
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


@defines("IsInf")
def is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    found = torch.zeros_like(x, dtype=torch.bool)
    if detect_negative:
        found = found | torch.isneginf(x)
    return found | torch.isposinf(x) if detect_positive else found


@defines("BitShift")
def bit_shift(x: Tensor, y: Tensor, *, direction: str) -> Tensor:
    shift = torch.bitwise_left_shift if direction == "LEFT" else torch.bitwise_right_shift
    return shift(x, y)


# Activations.


@defines("Celu")
def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.celu(x, alpha)


@defines("Elu")
def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return functional.elu(x, alpha)


@defines("Gelu")
def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    return functional.gelu(x, approximate=approximate)


@defines("HardSigmoid")
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return torch.clamp(alpha * x + beta, 0, 1)


@defines("LeakyRelu")
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Tensor:
    return functional.leaky_relu(x, alpha)


@defines("Selu")
def selu(x: Tensor, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805) -> Tensor:
    return gamma * functional.elu(x, alpha)


@defines("Swish")
def swish(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return x * torch.sigmoid(alpha * x)


@defines("Shrink")
def shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Tensor:
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, 0.0)).to(x.dtype)


@defines("ThresholdedRelu")
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    return torch.where(x > alpha, x, 0.0)  # which is 0 for nan, as in ONNX Runtime


# ONNX Runtime's own.


@defines("Gelu", domain=MICROSOFT)
def microsoft_gelu(x: Tensor) -> Tensor:
    return functional.gelu(x)


@defines("BiasGelu", domain=MICROSOFT)
def bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    return functional.gelu(x + bias)


@defines("FastGelu", domain=MICROSOFT)
def fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@defines("QuickGelu", domain=MICROSOFT)
def quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Tensor:
    return x * torch.sigmoid(alpha * x)


def activation(name: str, numbers: list[float]) -> Callable[[Tensor], Tensor]:
    """Return the activation that a fused operator applies at its end, by its name and parameters.

    Raises:
        NotTranslated: there is none of this name.
    """
    if name == "":
        return lambda x: x
    if name in ("LeakyRelu", "Elu", "ThresholdedRelu") and numbers:
        return functools.partial({"LeakyRelu": leaky_relu, "Elu": elu}.get(name, thresholded_relu), alpha=numbers[0])
    if name == "Clip" and len(numbers) == 2:
        return lambda x: torch.clamp(x, numbers[0], numbers[1])
    if name == "HardSigmoid" and len(numbers) == 2:
        return functools.partial(hard_sigmoid, alpha=numbers[0], beta=numbers[1])
    if name in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Softplus", "Softsign", "Mish"):
        return _OF_ONE[name]
    raise NotTranslated(f"the fused activation {name} has no definition")
