"""Average pooling: sums of windows, divided by their sizes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.registry import exact
from foldproof.shadow.residue import Residue
from foldproof.shadow.windows import contract, find_windows

aten = torch.ops.aten


def _divisors(pool: Any, x: Tensor, args: dict[str, Any]) -> Tensor:
    """Return the divisor of each output (int64), from the operator itself on ones."""
    ones = torch.ones(x.shape[-len(args["kernel_size"]) - 1 :], dtype=torch.float64, device=x.device)
    filled: Tensor = pool(ones, **(args | {"divisor_override": 1}))
    averaged: Tensor = pool(ones, **args)
    return (filled / averaged).round().to(torch.int64)[:1]


def _over(call: Call, x: Residue, divisors: Tensor) -> Residue:
    """Return ``x`` over ``divisors``, with one common denominator, which keeps sums of the quotients small."""
    common = math.lcm(*(int(d) for d in divisors.unique()))
    share = common // divisors
    return (x if bool((share == 1).all()) else x * call.residue(share)) / call.residue(common)


def _arguments(call: Call, skip: int) -> dict[str, Any]:
    """Return the arguments after the first ``skip`` (tensors), with one number for each dimension."""
    given = dict(list(call.arguments.items())[skip:])
    dims = 2 if "2d" in call.operator.overloadpacket.__name__ else 3
    for name in ("kernel_size", "stride", "padding"):
        given[name] = list(given[name]) * (dims if len(given[name]) == 1 else 1)
    given["stride"] = given["stride"] or given["kernel_size"]
    return given


@exact(aten.avg_pool2d.default, aten.avg_pool3d.default)
def avg_pool(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """the sum of each window over the number of its elements"""
    given = _arguments(call, 1)
    terms = math.prod(given["kernel_size"])
    sums = call.residue(x).total(lambda part: call.operator(part, **(given | {"divisor_override": 1})), terms)
    if given["divisor_override"]:
        return sums / call.residue(given["divisor_override"])
    return _over(call, sums, _divisors(call.operator, x, given))


@exact(aten.avg_pool2d_backward.default, aten.avg_pool3d_backward.default)
def avg_pool_backward(call: Call, grad: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """the gradient over the number of a window's elements, added up"""
    given = _arguments(call, 2)
    if given["divisor_override"]:
        share = call.residue(grad) / call.residue(given["divisor_override"])
    else:
        pool = aten.avg_pool2d.default if len(given["kernel_size"]) == 2 else aten.avg_pool3d.default
        share = _over(call, call.residue(grad), _divisors(pool, x, given))
    like = call.value(x).to(torch.float64)
    back = given | {"divisor_override": 1}
    terms = math.prod(given["kernel_size"])
    return share.total(lambda part: call.operator(part, like, **back), terms)


def _adaptive(call: Call, x: Tensor, out: list[int]) -> tuple[list[Tensor], Tensor]:
    windows = [find_windows(s, o, x.device) for s, o in zip(x.shape[-len(out) :], out)]
    counts = windows[0].sum(1)
    for w in windows[1:]:
        counts = counts.unsqueeze(-1) * w.sum(1)
    return windows, counts.to(torch.int64)


@exact(aten._adaptive_avg_pool2d.default, aten._adaptive_avg_pool3d.default)
def adaptive_avg_pool(call: Call, x: Tensor, output_size: list[int]) -> Residue:
    """the sum of each window over the number of its elements"""
    windows, counts = _adaptive(call, x, output_size)
    terms = max(x.shape[-len(output_size) :].numel(), 1)
    return _over(call, call.residue(x).total(lambda part: contract(part, windows), terms), counts)


@exact(aten._adaptive_avg_pool2d_backward.default, aten._adaptive_avg_pool3d_backward.default)
def adaptive_avg_pool_backward(call: Call, grad: Tensor, x: Tensor) -> Residue:
    """the gradient over the number of a window's elements, added up"""
    dims = 2 if "2d" in call.operator.overloadpacket.__name__ else 3
    windows, counts = _adaptive(call, x, list(grad.shape[-dims:]))
    share = _over(call, call.residue(grad), counts)
    terms = max(grad.shape[-dims:].numel(), 1)
    return share.total(lambda part: contract(part, [w.T for w in windows]), terms)
