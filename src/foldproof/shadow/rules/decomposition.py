"""The long tail: operators read by PyTorch's own decomposition, run on shadows.

Only operators listed here are, and each is tested against the real operator like any other rule.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map

from foldproof.shadow.call import Call
from foldproof.shadow.registry import composed
from foldproof.shadow.residue import Residue

aten = torch.ops.aten


@composed(
    aten.embedding_dense_backward.default,
    aten.grid_sampler_2d.default,
    aten.native_group_norm_backward.default,
    aten.native_layer_norm_backward.default,
)
def decomposed(call: Call, *args: Any, **kwargs: Any) -> Any:
    """by PyTorch's own decomposition"""
    from torch._decomp import decomposition_table

    return tree_map(_residue, decomposition_table[call.operator](*args, **kwargs))


def _residue(x: Any) -> Residue | None:
    known = getattr(x, "residue", None)
    return known if isinstance(known, Residue) else None
