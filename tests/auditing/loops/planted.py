"""Faults planted in Inductor's lowering and scheduling, each with a program that shows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._inductor import ir, lowering, scheduler

aten = torch.ops.aten


@dataclass(frozen=True)
class Planted:
    """A program, the patch that makes its compilation wrong, and the node whose loop is wrong."""

    program: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    patch: Callable[[], AbstractContextManager[Any]]
    origin: str
    step: str = "lowering"
    integers: bool = False

    def inputs(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        if self.integers:
            return [torch.randint(-9, 9, shape, generator=generator) for shape in self.shapes]
        return [torch.randn(shape, generator=generator) for shape in self.shapes]


def lowered(operator: Any, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Any:
    """Replace the lowering of an operator by another made from it."""
    return lambda: mock.patch.dict(lowering.lowerings, {operator: make(lowering.lowerings[operator])})


def patched(owner: Any, name: str, make: Callable[[Any], Any]) -> Any:
    return lambda: mock.patch.object(owner, name, make(getattr(owner, name)))


def _shift_pointwise(original: Any) -> Any:
    """Read one element further along the last dimension."""

    def create(cls: Any, *, inner_fn: Any, ranges: Any, **rest: Any) -> Any:
        def shifted(index: Any) -> Any:
            return inner_fn([*index[:-1], index[-1] + 1])

        return original.__func__(cls, inner_fn=shifted, ranges=ranges, **rest)

    return classmethod(create)


def _filled_with_zero(original: Any) -> Any:
    return lambda x, fill, *args, **kwargs: original(x, 0.0, *args, **kwargs)


def _padding_moved(original: Any) -> Any:
    """Read each element of a padded window one further to the right."""

    def padded(x: Any, fill: Any, *args: Any, **kwargs: Any) -> Any:
        load = original(x, fill, *args, **kwargs)
        return lambda index: load([*index[:-1], index[-1] + 1])

    return padded


def _other_dimension(original: Any) -> Any:
    return lambda x, axis=None, keepdims=False, **rest: original(x, [1 - axis[0]], keepdims, **rest)


def _reversed_dimensions(original: Any) -> Any:
    return classmethod(lambda cls, x, dims: original.__func__(cls, x, [dims[0], *reversed(dims[1:])]))


def _later_start(original: Any) -> Any:
    def create(cls: Any, x: Any, dim: Any, start: Any, end: Any, step: int = 1, clamp: bool = True) -> Any:
        return original.__func__(cls, x, dim, start + 1, end + 1, step, clamp=False)

    return classmethod(create)


def _order_reversed(original: Any) -> Any:
    def fused(self: Any, nodes: Any) -> Any:
        return list(reversed(original(self, nodes)))

    return fused


def _last_dropped(original: Any) -> Any:
    def fused(self: Any, nodes: Any) -> Any:
        return original(self, nodes)[1:]

    return fused


def _shifted_index(original: Any) -> Any:
    """Change an index while loops are fused."""

    def fused(self: Any, nodes: Any) -> Any:
        made = original(self, nodes)
        body = made[0].get_nodes()[0]._body
        body.indexing_exprs = {name: index + int(name == "index0") for name, index in body.indexing_exprs.items()}
        return made

    return fused


def _early_last_usage(original: Any) -> Any:
    """Take every reading of a buffer for the last one."""

    def compute(self: Any) -> None:
        original(self)
        for node in self.nodes:
            node.last_usage = {
                name for name in node.used_buffer_names() if name.startswith("buf") and name not in node.outputs_by_name
            }

    return compute


def _without_later_users(original: Any) -> Any:
    """Decide on memory in place as if nothing after this node read it."""

    def decide(self: Any) -> None:
        ancestors = self.ancestors
        self.ancestors = {name for name in self.scheduler.name_to_node if name != self.get_name()}
        original(self)
        self.ancestors = ancestors

    return decide


def _used_twice(x: Tensor, function: Callable[[Tensor], Tensor] = torch.t) -> Tensor:
    y = torch.mm(x, x)
    return torch.mm(function(y).mm(x), y)


def _no_accumulation(original: Any) -> Any:
    def store(self: Any, *args: Any, **kwargs: Any) -> Any:
        original(self, *args, **kwargs)
        object.__setattr__(self, "scatter_mode", None)

    return store


def _floor(a: Any, b: Any, rounding_mode: Any = None) -> Any:
    return lowering.truncdiv(a, b)


PLANTED = {
    "an index off by one": Planted(
        lambda x: torch.exp(x) * 2, ((3, 4),), patched(ir.Pointwise, "create", _shift_pointwise), "exp"
    ),
    "a mask dropped in padding": Planted(
        lambda x: F.pad(x.exp(), (1, 2)),
        ((3, 4),),
        patched(lowering, "range_mask_low", lambda _: lambda i, low: lowering.ops.constant(True, torch.bool)),
        "constant_pad_nd",
    ),
    "another start of a maximum": Planted(
        lambda x: F.max_pool2d(-x.abs() - 1, 3, 2, 1),
        ((1, 2, 6, 6),),
        patched(lowering, "constant_boundary_condition", _filled_with_zero),
        "getitem",
    ),
    "a reduction of another dimension": Planted(
        lambda x: x.sin().sum(0), ((5, 5),), lowered(aten.sum.dim_IntList, _other_dimension), "sum_1"
    ),
    "a quotient rounded to zero": Planted(
        lambda x: torch.div(x, 4, rounding_mode="floor"),
        ((3, 4),),
        lowered(aten.div.Tensor_mode, lambda _: _floor),
        "div",
        integers=True,
    ),
    "a remainder of the other sign": Planted(
        lambda x: torch.remainder(x, 4),
        ((3, 4),),
        lowered(aten.remainder.Scalar, lambda _: lowering.lowerings[aten.fmod.Scalar]),
        "remainder",
        integers=True,
    ),
    "concatenated tensors exchanged": Planted(
        lambda x, y: torch.cat([x.exp(), y.sin()], 1),
        ((3, 4), (3, 4)),
        lowered(aten.cat.default, lambda original: lambda xs, dim=0: original([*reversed(xs)], dim)),
        "cat",
    ),
    "a function applied twice": Planted(
        lambda x, y: torch.mm(x, y).tanh(),
        ((3, 4), (4, 5)),
        lowered(aten.tanh.default, lambda original: lambda x: original(original(x))),
        "tanh",
    ),
    "a permutation reversed": Planted(
        lambda x: x.permute(1, 2, 0).exp(), ((3, 3, 3),), patched(ir.PermuteView, "create", _reversed_dimensions), "exp"
    ),
    "a slice that starts late": Planted(
        lambda x: x[:, 1:3].exp(), ((3, 6),), patched(ir.SliceView, "create", _later_start), "exp"
    ),
    "factors exchanged": Planted(
        lambda x, y: torch.mm(x, y).sin(),
        ((4, 4), (4, 4)),
        lowered(aten.mm.default, lambda original: lambda a, b, **rest: original(b, a, **rest)),
        "mm",
    ),
    "a bias left out": Planted(
        lambda b, x, y: torch.addmm(b, x, y),
        ((5,), (3, 4), (4, 5)),
        lowered(aten.addmm.default, lambda _: lambda b, x, y, **rest: lowering.lowerings[aten.mm.default](x, y)),
        "addmm",
    ),
    "choices exchanged": Planted(
        lambda x, y: torch.where(x > 0, x * 2, y),
        ((3, 4), (3, 4)),
        lowered(aten.where.self, lambda original: lambda c, a, b: original(c, b, a)),
        "where",
    ),
    "a variance without correction": Planted(
        lambda x: x.var(1),
        ((3, 7),),
        lowered(aten.var.correction, lambda original: lambda x, axis=None, **rest: original(x, axis, correction=0)),
        "var",
    ),
    "a row too far": Planted(
        lambda x, i: x[i],
        ((5, 4), (3,)),
        lowered(
            aten.index.Tensor,
            lambda original: (
                lambda x, indices: original(
                    x, [i if i is None else lowering.lowerings[aten.add.Tensor](i, 1) for i in indices]
                )
            ),
        ),
        "index",
    ),
    "additions that overwrite": Planted(
        lambda x, i: torch.zeros(4, 5).scatter_add(0, i, x),
        ((4, 5), (4, 5)),
        patched(ir.Scatter, "__init__", _no_accumulation),
        "scatter_add",
    ),
    "loops in reversed order": Planted(
        lambda x: torch.mm(x.exp(), x).sin(),
        ((4, 4),),
        patched(scheduler.Scheduler, "fuse_nodes", _order_reversed),
        "sin",
        step="scheduling",
    ),
    "a loop left out": Planted(
        lambda x: torch.mm(x.exp(), x).sin(),
        ((4, 4),),
        patched(scheduler.Scheduler, "fuse_nodes", _last_dropped),
        "mm",
        step="scheduling",
    ),
    "memory released too early": Planted(
        _used_twice,
        ((4, 4),),
        patched(scheduler.Scheduler, "compute_last_usage", _early_last_usage),
        "mm_2",
        step="scheduling",
    ),
    "a live buffer used in place": Planted(
        lambda x: _used_twice(x, torch.exp),
        ((4, 4),),
        patched(scheduler.BaseSchedulerNode, "decide_inplace_update", _without_later_users),
        "mm_2",
        step="scheduling",
    ),
    "reading ahead of a write in place": Planted(
        lambda x: x.mul_(2), ((3, 4),), patched(ir.Pointwise, "create", _shift_pointwise), "mul"
    ),
    "an epilogue applied twice": Planted(
        lambda b, x, y: torch.addmm(b, x, y).relu() * 2,
        ((5,), (3, 4), (4, 5)),
        lowered(aten.mul.Tensor, lambda original: lambda x, y, **rest: original(original(x, y, **rest), y, **rest)),
        "mul",
    ),
    "a window moved by one": Planted(
        lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=9),
        ((1, 2, 7, 7),),
        patched(lowering, "constant_boundary_condition", _padding_moved),
        "avg_pool2d",
    ),
    "a function applied twice in a branch": Planted(
        lambda x: torch.cond(x.sum() > 100, lambda x: x.tanh(), lambda x: x.sin(), (x,)),
        ((3, 4),),
        lowered(aten.tanh.default, lambda original: lambda x: original(original(x))),
        "tanh",
        step="true_graph_0/lowering",
    ),
    "an index changed by fusion": Planted(
        lambda x: x[:, :-1].exp().softmax(1),
        ((4, 40),),
        patched(scheduler.Scheduler, "fuse_nodes", _shifted_index),
        "exp",
        step="scheduling",
    ),
}


def inputs_of(case: Planted) -> list[Tensor]:
    """Inputs of a case; a last operand that is an index holds small integers."""
    inputs = case.inputs()
    if case.origin in ("index", "scatter_add"):
        inputs[-1] = torch.arange(inputs[-1].numel()).reshape(inputs[-1].shape) % 3
    return inputs
