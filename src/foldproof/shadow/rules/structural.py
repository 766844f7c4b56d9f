"""Operators that select and rearrange elements: the residues are rearranged by the operator itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.registry import RuleKind, exact, rule
from foldproof.shadow.residue import Residue

aten = torch.ops.aten


@rule(
    RuleKind.EXACT,
    aten.alias.default,
    aten.as_strided.default,
    aten.detach.default,
    aten.diagonal.default,
    aten.expand.default,
    aten.lift_fresh.default,
    aten.permute.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.t.default,
    aten.transpose.int,
    aten.unfold.default,
    aten.unsqueeze.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten._reshape_alias.default,
    integers=True,
)
def view(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """rearranged by the operator itself; views stay views"""
    return call.residue(x).view(lambda part: call.operator(part, *args, **kwargs))


@rule(
    RuleKind.EXACT,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.unbind.int,
    integers=True,
)
def views(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> list[Residue]:
    """rearranged by the operator itself; views stay views"""
    residue = call.residue(x)
    return [residue.view(lambda part, j=j: call.operator(part, *args, **kwargs)[j]) for j in range(len(call.result))]


@rule(
    RuleKind.EXACT,
    aten.clone.default,
    aten.flip.default,
    aten.im2col.default,
    aten.lift_fresh_copy.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.reflection_pad3d.default,
    aten.repeat.default,
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.replication_pad3d.default,
    aten.roll.default,
    aten.tril.default,
    aten.triu.default,
    aten.unfold_copy.default,
    aten.upsample_nearest1d.default,
    aten.upsample_nearest2d.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.default,
    aten.view_copy.default,
    integers=True,
)
def rearrange(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """rearranged by the operator itself"""
    return call.residue(x).map(lambda part: call.operator(part, *args, **kwargs))


@exact(aten.col2im.default)
def col2im(call: Call, x: Tensor, size: list[int], kernel: list[int], *args: Any) -> Residue:
    """overlapping blocks added up, reduced"""
    return call.residue(x).total(lambda part: aten.col2im.default(part, size, kernel, *args), kernel[0] * kernel[1])


@rule(RuleKind.EXACT, aten.cat.default, aten.stack.default, integers=True)
def joined(call: Call, tensors: list[Tensor], dim: int = 0) -> Residue:
    """concatenated by the operator itself"""
    first, *rest = call.residues(tensors)
    return first.map(lambda *parts: call.operator(parts, dim), *rest)


@exact(aten.constant_pad_nd.default)
def constant_pad_nd(call: Call, x: Tensor, pad: list[int], value: float = 0) -> Residue:
    """padded with the exact residue of the constant"""
    fill = call.residue(value)
    return call.residue(x).map(lambda part, f: aten.constant_pad_nd.default(part, pad, float(f)), fill)


@rule(
    RuleKind.EXACT,
    aten.embedding.default,
    integers=True,
)
def embedding(call: Call, weight: Tensor, indices: Tensor, *unused: Any, **also: Any) -> Residue:
    """rows selected by the indices' values"""
    index = _index(call, indices)
    return call.residue(weight).map(lambda part: aten.embedding.default(part, index))


@rule(RuleKind.EXACT, aten.index_select.default, aten.gather.default, integers=True)
def select_along(call: Call, x: Tensor, dim: int, index: Tensor, **kwargs: Any) -> Residue:
    """elements selected by the indices' values"""
    at = _index(call, index)
    return call.residue(x).map(lambda part: call.operator(part, dim, at))


@rule(RuleKind.EXACT, aten.index.Tensor, aten._unsafe_index.Tensor, integers=True)
def index(call: Call, x: Tensor, indices: list[Tensor | None]) -> Residue:
    """elements selected by the indices' values"""
    at = [None if i is None else _index(call, i) for i in indices]
    return call.residue(x).map(lambda part: call.operator(part, at))


@exact(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(call: Call, x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False) -> Residue:
    """elements at the indices' values replaced, or added to"""
    at = [None if i is None else _index(call, i) for i in indices]
    base, new = call.residue(x), call.residue(values)
    put = base.map(lambda part, v: call.operator(part, at, v, accumulate), new)
    return put.total(lambda part: part, 1 + new.numel()) if accumulate else put


@exact(aten.scatter.src, aten.scatter_add.default)
def scatter(call: Call, x: Tensor, dim: int, index: Tensor, src: Tensor) -> Residue:
    """elements at the indices' values replaced, or added to"""
    at, terms = _index(call, index), 1 + call.value(index).numel()
    put = call.residue(x).map(lambda part, s: call.operator(part, dim, at, s), call.residue(src))
    return put.total(lambda part: part, terms if call.operator is aten.scatter_add.default else 1)


@exact(aten.scatter.value)
def scatter_value(call: Call, x: Tensor, dim: int, index: Tensor, value: float) -> Residue:
    """elements at the indices' values replaced by the exact residue of the constant"""
    at = _index(call, index)
    return call.residue(x).map(lambda part, v: call.operator(part, dim, at, float(v)), call.residue(value))


@exact(aten.scatter_reduce.two)
def scatter_reduce(call: Call, x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, **kwargs: Any) -> Residue:
    """the reduction "sum"; others have no rule"""
    if reduce != "sum":
        raise call.undecided(f"no rule for the reduction {reduce!r}")
    at, terms = _index(call, index), 1 + call.value(index).numel()
    put = call.residue(x).map(lambda part, s: call.operator(part, dim, at, s, reduce, **kwargs), call.residue(src))
    return put.total(lambda part: part, terms)


@exact(aten.index_add.default)
def index_add(call: Call, x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Residue:
    """elements at the indices' values added to"""
    at, terms = _index(call, index), 1 + call.value(index).numel()
    added = call.residue(source) * call.residue(alpha)
    put = call.residue(x).map(lambda part, s: aten.index_add.default(part, dim, at, s), added)
    return put.total(lambda part: part, terms)


@exact(aten.slice_scatter.default, aten.select_scatter.default, aten.diagonal_scatter.default, aten.copy.default)
def write_into(call: Call, x: Tensor, src: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """a part replaced by the second tensor"""
    if call.operator is aten.copy.default and call.value(src).dtype.is_floating_point != x.dtype.is_floating_point:
        raise call.undecided("a copy between integers and floats")
    return call.residue(x).map(lambda part, s: call.operator(part, s, *args, **kwargs), call.residue(src))


@exact(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(call: Call, x: Tensor, mask: Tensor, value: Any) -> Residue:
    """elements under the mask replaced by the exact residue of the constant"""
    at = call.value(mask)
    return call.residue(x).map(lambda part, v: torch.where(at, v, part), call.residue(value))


@exact(aten.masked_scatter.default)
def masked_scatter(call: Call, x: Tensor, mask: Tensor, source: Tensor) -> Residue:
    """elements under the mask replaced by those of the source, in order"""
    at = call.value(mask)
    return call.residue(x).map(lambda part, s: aten.masked_scatter.default(part, at, s), call.residue(source))


@exact(aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, aten.where.Scalar)
def where(call: Call, condition: Tensor, x: Any, y: Any) -> Residue:
    """one or the other by the condition's value (the comparison that made it is the branch)"""
    at = call.value(condition)
    return call.residue(x).map(lambda a, b: torch.where(at, a, b), call.residue(y))


@exact(aten._to_copy.default)
def to_copy(call: Call, x: Tensor, *, dtype: torch.dtype | None = None, **kwargs: Any) -> Residue | None:
    """float to float is the identity (the claim is about real numbers); integers and booleans follow the value"""
    source, target = x.dtype, call.first_result.dtype
    if target.is_complex:
        raise call.undecided("complex numbers have no residues")
    if target.is_floating_point or target == source:
        device = call.first_result.device
        return call.residue(x).map(lambda part: part.to(device, copy=True))
    call.took_branch()
    return None


def _index(call: Call, index: Tensor) -> Tensor:
    """Where the elements are taken from: a choice made by values, if it depends on a shadow."""
    at: Tensor = call.value(index)
    if at is not index:
        call.took_branch()
    return at


