"""Embeddings: rows of a table, and bags of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.registry import RuleKind, exact, rule
from foldproof.shadow.residue import Residue

aten = torch.ops.aten

_MEAN, _MAX = 1, 2


@rule(RuleKind.EXACT, aten.embedding.default, integers=True)
def embedding(call: Call, weight: Tensor, indices: Tensor, *unused: Any, **also: Any) -> Residue:
    """rows selected by the indices' values"""
    index = call.indices(indices)
    return call.residue(weight).rows(index, aten.embedding.default)


@exact(aten._embedding_bag.default, aten._embedding_bag_forward_only.default)
def embedding_bag(
    call: Call,
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Residue, None, None, None]:
    """the rows of each bag added up, averaged, or the largest by value"""
    index, starts = call.indices(indices), call.indices(offsets)
    starts = starts[:-1] if include_last_offset else starts
    table, shape = call.residue(weight), call.first_result.shape
    bag = torch.searchsorted(starts, torch.arange(len(index), device=index.device, dtype=starts.dtype), right=True) - 1
    kept = index != padding_idx
    sizes = torch.zeros(len(starts), dtype=torch.int64, device=index.device).index_add(0, bag[kept], kept[kept].long())
    if mode == _MAX:
        call.took_branch()
        at, full = call.result[3].to(torch.int64), (sizes > 0).unsqueeze(-1)
        return table.map(lambda part: torch.where(full, part.gather(0, at), 0.0)), None, None, None
    rows = table.map(lambda part: part[index[kept]])
    if per_sample_weights is not None:
        rows = rows * call.residue(per_sample_weights).map(lambda part: part[kept].unsqueeze(-1))
    out = rows.total(lambda part: part.new_zeros(shape).index_add(0, bag[kept], part), int(sizes.max()))
    if mode == _MEAN:
        out = out / call.residue(sizes.clamp(min=1).unsqueeze(-1))
    return out, None, None, None
