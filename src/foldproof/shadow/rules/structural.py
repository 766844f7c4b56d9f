"""Operators that select and rearrange elements: the residues are rearranged by the operator itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow import piecewise
from foldproof.shadow.call import Call
from foldproof.shadow.registry import RuleKind, exact, rule
from foldproof.shadow.residue import Residue
from foldproof.shadow.whole import residues_of_results

aten = torch.ops.aten


@rule(
    RuleKind.EXACT,
    aten.alias.default,
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
    complex=True,
)
def view(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """rearranged by the operator itself; views stay views"""
    return call.residue(x).view(lambda part: call.operator(part, *args, **kwargs))


@rule(RuleKind.EXACT, aten.as_strided.default, aten.as_strided_copy.default, integers=True, complex=True)
def as_strided(call: Call, x: Tensor, size: list[int], stride: list[int], storage_offset: int | None = None) -> Residue:
    """rearranged by the operator itself, inside the memory of a dense tensor; views stay views"""
    value = call.value(x)
    start = 0 if storage_offset is None else storage_offset - value.storage_offset()
    last = start + sum((n - 1) * step for n, step in zip(size, stride))
    if not (aten.is_non_overlapping_and_dense.default(value) and 0 <= start <= last < value.numel()):
        raise call.undecided("it reads memory that is not its operand's")

    def restrided(part: Tensor) -> Tensor:
        return part.as_strided(size, stride, part.storage_offset() + start)

    residue = call.residue(x)
    return residue.view(restrided) if call.operator is aten.as_strided.default else residue.map(restrided)


@rule(
    RuleKind.EXACT,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.unbind.int,
    aten.unsafe_split.Tensor,
    aten.unsafe_split_with_sizes.default,
    integers=True,
    complex=True,
)
def views(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> list[Residue]:
    """rearranged by the operator itself; views stay views"""
    return call.residue(x).views(lambda part: call.operator(part, *args, **kwargs), len(call.result))


@rule(
    RuleKind.EXACT,
    aten.split_copy.Tensor,
    aten.split_with_sizes_copy.default,
    aten.unbind_copy.int,
    integers=True,
    complex=True,
)
def pieces(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> list[Residue]:
    """rearranged by the operator itself"""
    residue = call.residue(x)
    return [residue.map(lambda part, j=j: call.operator(part, *args, **kwargs)[j]) for j in range(len(call.result))]


@rule(
    RuleKind.EXACT,
    aten.alias_copy.default,
    aten.channel_shuffle.default,
    aten.clone.default,
    aten.detach_copy.default,
    aten.diag_embed.default,
    aten.diagonal_copy.default,
    aten.expand_copy.default,
    aten.flip.default,
    aten.im2col.default,
    aten.lift_fresh_copy.default,
    aten.narrow_copy.default,
    aten.permute_copy.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.reflection_pad3d.default,
    aten.repeat.default,
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.replication_pad3d.default,
    aten.roll.default,
    aten.rot90.default,
    aten.select_copy.int,
    aten.slice_copy.Tensor,
    aten.squeeze_copy.default,
    aten.squeeze_copy.dim,
    aten.squeeze_copy.dims,
    aten.t_copy.default,
    aten.transpose_copy.int,
    aten.tril.default,
    aten.triu.default,
    aten.unfold_copy.default,
    aten.unsqueeze_copy.default,
    aten.view_copy.default,
    integers=True,
    complex=True,
)
def rearrange(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """rearranged by the operator itself"""
    return call.residue(x).map(lambda part: call.operator(part, *args, **kwargs), result=call.first_result)


@rule(
    RuleKind.EXACT,
    aten._upsample_nearest_exact1d.default,
    aten._upsample_nearest_exact2d.default,
    aten._upsample_nearest_exact3d.default,
    aten.upsample_nearest1d.default,
    aten.upsample_nearest2d.default,
    aten.upsample_nearest3d.default,
    integers=True,
    complex=True,
)
def nearest(call: Call, x: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """the elements that the operator chooses, in the precision that it computes positions in"""
    dims = x.ndim - 2
    area = math.prod(x.shape[2:])
    positions = torch.empty_like(call.value(x), dtype=torch.promote_types(x.dtype, torch.float32))
    positions.copy_(torch.arange(area, device=x.device).view(x.shape[2:]))
    if area > 2**24:
        raise call.undecided("too many positions to tell them apart")
    at = call.operator(positions, *args, **kwargs).to(torch.int64)
    return call.residue(x).map(lambda part: part.flatten(-dims).gather(-1, at.flatten(-dims)).view(at.shape))


@exact(
    aten._upsample_nearest_exact1d_backward.default,
    aten._upsample_nearest_exact2d_backward.default,
    aten._upsample_nearest_exact3d_backward.default,
    aten.reflection_pad1d_backward.default,
    aten.reflection_pad2d_backward.default,
    aten.reflection_pad3d_backward.default,
    aten.replication_pad1d_backward.default,
    aten.replication_pad2d_backward.default,
    aten.replication_pad3d_backward.default,
    aten.upsample_nearest1d_backward.default,
    aten.upsample_nearest2d_backward.default,
    aten.upsample_nearest3d_backward.default,
)
def gathered(call: Call, grad: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """the gradients of all copies of an element added up by the operator itself, reduced"""
    rest = [x.to(torch.float64) if isinstance(x, Tensor) else x for x in call.value(args)]
    terms = max(grad.shape[1:].numel(), 1)
    return call.residue(grad).total(lambda part: call.operator(part, *rest, **kwargs), terms)


@exact(aten.col2im.default)
def col2im(call: Call, x: Tensor, size: list[int], kernel: list[int], *args: Any) -> Residue:
    """overlapping blocks added up, reduced"""
    return call.residue(x).total(lambda part: aten.col2im.default(part, size, kernel, *args), kernel[0] * kernel[1])


@rule(RuleKind.EXACT, aten.block_diag.default, aten.cat.default, aten.stack.default, integers=True, complex=True)
def joined(call: Call, tensors: list[Tensor], *dim: int) -> Residue:
    """concatenated by the operator itself"""
    first, *rest = call.residues(tensors)
    return first.map(lambda *parts: call.operator(parts, *dim), *rest, result=call.first_result)


@exact(aten.constant_pad_nd.default, complex=True)
def constant_pad_nd(call: Call, x: Tensor, pad: list[int], value: float = 0) -> Residue:
    """padded with the exact residue of the constant"""
    fill = call.stored(value)
    return call.residue(x).map(lambda part, f: aten.constant_pad_nd.default(part, pad, f.item()), fill)


@rule(RuleKind.EXACT, aten.index_select.default, aten.gather.default, integers=True, complex=True)
def select_along(call: Call, x: Tensor, dim: int, index: Tensor, **kwargs: Any) -> Residue:
    """elements selected by the indices' values"""
    at = call.indices(index)
    return call.residue(x).map(lambda part: call.operator(part, dim, at), result=call.first_result)


@rule(RuleKind.EXACT, aten.take.default, aten.masked_select.default, integers=True, complex=True)
def take(call: Call, x: Tensor, index: Tensor) -> Residue:
    """elements selected by the indices' (mask's) values"""
    at = call.indices(index)
    return call.residue(x).map(lambda part: call.operator(part, at))


@rule(RuleKind.EXACT, aten.index.Tensor, aten._unsafe_index.Tensor, integers=True, complex=True)
def index(call: Call, x: Tensor, indices: list[Tensor | None]) -> Residue:
    """elements selected by the indices' values"""
    at = [None if i is None else call.indices(i) for i in indices]
    return call.residue(x).map(lambda part: call.operator(part, at), result=call.first_result)


@exact(
    aten.adaptive_max_pool2d_backward.default,
    aten.adaptive_max_pool3d_backward.default,
    aten.max_pool2d_with_indices_backward.default,
    aten.max_pool3d_with_indices_backward.default,
)
def max_pool_backward(call: Call, grad: Tensor, x: Tensor, *rest: Any) -> Residue:
    """the gradient added where each window's largest element was, by the indices' values"""
    dims = 2 if "2d" in call.operator.overloadpacket.__name__ else 3
    at, shape = call.indices(rest[-1]).flatten(-dims), x.shape
    flat = [*shape[:-dims], shape[-dims:].numel()]
    put = call.residue(grad).map(lambda part: part.new_zeros(flat).scatter_add(-1, at, part.flatten(-dims)))
    return put.total(lambda part: part.view(shape), at.shape[-1])


@exact(aten.index_put.default, aten._unsafe_index_put.default)
def index_put(call: Call, x: Tensor, indices: list[Tensor | None], values: Tensor, accumulate: bool = False) -> Residue:
    """elements at the indices' values replaced, or added to"""
    at = [None if i is None else call.indices(i) for i in indices]
    base, new = call.residue(x), call.residue(values)
    terms = 1 + call.value(x)[tuple(slice(None) if i is None else i for i in at)].numel()
    put = base.map(lambda part, v: call.operator(part, at, v, accumulate), new)
    if not accumulate and new.numel() > 1 and not _kept(put, at, new):
        _once(call, x, lambda hits, one: call.operator(hits, at, one, True))
    return put.total(lambda part: part, terms) if accumulate else put


@rule(RuleKind.COMPOSED, aten.scatter.reduce, rewrites=True)
def scatter_by_multiplying(x: Tensor, dim: int, index: Tensor, src: Tensor, *, reduce: str) -> Tensor:
    """scatter_reduce with a sum or product"""
    kind = {"add": "sum", "multiply": "prod"}[reduce]
    made: Tensor = aten.scatter_reduce.two(x, dim, index, src, kind, include_self=True)
    return made


@exact(aten.index_copy.default, complex=True)
def index_copy(call: Call, x: Tensor, dim: int, index: Tensor, source: Tensor) -> Residue:
    """slices at the indices' values replaced"""
    at = call.indices(index)
    if at.unique().numel() < at.numel():
        raise call.undecided("an element is written twice, and which one stays is left open")
    return call.residue(x).map(lambda part, s: aten.index_copy.default(part, dim, at, s), call.residue(source))


@exact(aten.index_fill.int_Scalar, aten.index_fill.int_Tensor, complex=True)
def index_fill(call: Call, x: Tensor, dim: int, index: Tensor, value: Any) -> Residue:
    """slices at the indices' values filled with the exact residue of the number"""
    at = call.indices(index)
    return call.residue(x).map(lambda part, v: aten.index_fill.int_Tensor(part, dim, at, v), call.stored(value))


@exact(aten.scatter.src, aten.scatter_add.default)
def scatter(call: Call, x: Tensor, dim: int, index: Tensor, src: Tensor) -> Residue:
    """elements at the indices' values replaced, or added to"""
    at = call.indices(index)
    adds = call.operator is aten.scatter_add.default
    if not adds:
        _once(call, x, lambda hits, one: hits.scatter_add(dim, at, one.expand(at.shape)))
    put = call.residue(x).map(lambda part, s: call.operator(part, dim, at, s), call.residue(src))
    return put.total(lambda part: part, 1 + at.numel()) if adds else put


@exact(aten.scatter.value, complex=True)
def scatter_value(call: Call, x: Tensor, dim: int, index: Tensor, value: float) -> Residue:
    """elements at the indices' values replaced by the exact residue of the number"""
    at = call.indices(index)
    return call.residue(x).map(lambda part, v: call.operator(part, dim, at, v.item()), call.stored(value))


@exact(aten.scatter_reduce.two)
def scatter_reduce(
    call: Call, x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Residue:
    """the reductions "sum" and "mean"; others are uninterpreted as a whole"""
    if reduce not in ("sum", "mean"):
        (whole,) = residues_of_results(call)
        assert whole is not None
        return whole
    at = call.indices(index)

    def total(part: Tensor, s: Tensor) -> Tensor:
        out: Tensor = aten.scatter_reduce.two(part, dim, at, s, "sum", include_self=include_self)
        return out

    put = call.residue(x).map(total, call.residue(src)).total(lambda part: part, 1 + at.numel())
    if reduce == "sum":
        return put
    counts = torch.ones(x.shape, dtype=torch.int64, device=x.device)
    return put / call.residue(total(counts, torch.ones(src.shape, dtype=torch.int64, device=x.device)).clamp(min=1))


@exact(aten.index_add.default)
def index_add(call: Call, x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Residue:
    """elements at the indices' values added to"""
    at = call.indices(index)
    added = call.residue(source) * call.residue(alpha)
    put = call.residue(x).map(lambda part, s: aten.index_add.default(part, dim, at, s), added)
    return put.total(lambda part: part, 1 + at.numel())


@exact(
    aten.slice_scatter.default,
    aten.select_scatter.default,
    aten.diagonal_scatter.default,
    aten.copy.default,
    complex=True,
)
def write_into(call: Call, x: Tensor, src: Tensor, *args: Any, **kwargs: Any) -> Residue:
    """a part replaced by the second tensor"""
    if call.operator is aten.copy.default and call.value(src).dtype.is_floating_point != x.dtype.is_floating_point:
        raise call.undecided("a copy between integers and floats")
    return call.residue(x).map(lambda part, s: call.operator(part, s, *args, **kwargs), call.residue(src))


@exact(aten.masked_fill.Scalar, aten.masked_fill.Tensor, booleans=True)
def masked_fill(call: Call, x: Tensor, mask: Tensor, value: Any) -> Residue:
    """elements under the mask replaced by the exact residue of the constant"""
    return _chosen(call, mask, call.stored(value), call.residue(x))


@exact(aten.masked_scatter.default, complex=True)
def masked_scatter(call: Call, x: Tensor, mask: Tensor, source: Tensor) -> Residue:
    """elements under the mask replaced by those of the source, in order"""
    at = call.indices(mask)
    return call.residue(x).map(lambda part, s: aten.masked_scatter.default(part, at, s), call.residue(source))


@exact(aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther, booleans=True)
def where(call: Call, condition: Tensor, x: Any, y: Any) -> Residue:
    """one or the other by the condition's value (the comparison that made it, if one did, is the branch)"""
    return _chosen(call, condition, call.stored(x), call.stored(y))


def _chosen(call: Call, condition: Tensor, x: Residue, y: Residue) -> Residue:
    """Return x where the condition is true, y where it is not."""
    if hasattr(condition, "residue") and call.algebraic(condition, x, y):
        chosen: Residue = piecewise.where(call.residue(condition), x, y)
        return chosen
    if not (x.infinite or y.infinite) and call.decides_as_function(condition):
        holds = call.residue(condition)
        return x * holds + y * (call.residue(1) - holds)
    at = call.indices(condition)
    return x.map(lambda a, b: torch.where(at, a, b), y)


@exact(aten._to_copy.default, booleans=True)
def to_copy(call: Call, x: Tensor, *, dtype: torch.dtype | None = None, **kwargs: Any) -> Residue | None:
    """float to float is the identity (the claim is about real numbers); integers and booleans follow the value"""
    source, target = x.dtype, call.first_result.dtype
    if target.is_floating_point or target == source:
        device, residue = call.first_result.device, call.residue(x)
        if residue.is_algebraic and device == x.device:
            return residue.copied()
        return residue.map(lambda part: part.to(device, copy=True))
    if target is torch.bool and x.dtype.is_floating_point and call.decides_as_function(x):  # as x != 0 is
        call.point.compared.setdefault("ne")
        return call.uninterpreted([x], real=lambda t: t.ne(0).double(), name="ne")
    call.took_branch()
    return None


def _kept(put: Residue, at: list[Tensor | None], new: Residue) -> bool:
    """Return True if every value that was put is found where it was put: values in one place are equal."""
    put.point.tests += new.numel()
    found = (aten.index.Tensor(part, at) for part in put.parts)
    return all(torch.equal(one, other.expand_as(one)) for one, other in zip(found, new.parts))


def _once(call: Call, x: Tensor, count: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Refuse two writes to one element: PyTorch does not define the one that stays."""
    hits = count(torch.zeros(x.shape, dtype=torch.int64), torch.ones((), dtype=torch.int64))
    if bool((hits > 1).any()):
        raise call.undecided("an element is written twice, and which one stays is left open")
