"""Operators of ``prims`` that decompositions leave, against the real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from foldproof.shadow import SamplePoint, Semantics, Shadow, draw_variable, embed_constant
from tests.shadow.reals import RealPoint

prims = torch.ops.prims
X, Z = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.complex128)

CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "conj": (prims.conj, (Z,)),
    "conj_physical": (prims.conj_physical, (Z,)),
    "real": (prims.real, (Z,)),
    "imag": (prims.imag, (Z,)),
    "copy_to": (prims.copy_to, (X, X * 2)),
    "convert_element_type": (prims.convert_element_type, (X, torch.float64)),
    "broadcast_in_dim": (prims.broadcast_in_dim, (X, [2, 3, 4], [1, 2])),
    "squeeze": (prims.squeeze, (X[None], [0])),
    "split_dim": (prims.split_dim, (X, 1, 2)),
    "collapse_view": (prims.collapse_view, (X, 0, 1)),
    "transpose": (prims.transpose, (X, [1, 0])),
    "as_strided": (prims.as_strided, (X, [2, 2], [2, 1], 0)),
    "view_of": (prims.view_of, (X,)),
    "cat": (prims.cat, ([X, X], 0)),
    "sum": (prims.sum, (X, [0])),
    "mul": (prims.mul, (Z, Z)),
    "abs": (prims.abs, (Z,)),
    "pow": (prims.pow, (X.abs(), X)),
    "clone": (prims.clone, (X,)),
    "rev": (prims.rev, (X, [0])),
}


@pytest.mark.parametrize("name", CALLS)
def test_real_operator(name: str) -> None:
    function, args = CALLS[name]
    point = RealPoint(Semantics())
    with torch.no_grad():
        expected = function(*tree_map(lambda t: t.clone() if isinstance(t, Tensor) else t, args))
        found = function(
            *tree_map(lambda t: Shadow(t.clone(), embed_constant(point, t)) if isinstance(t, Tensor) else t, args)
        )
    resolved = found.resolve_conj().resolve_neg()
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    torch.testing.assert_close(resolved.residue.parts[0], expected.resolve_conj().resolve_neg())
    torch.testing.assert_close(resolved.value, expected.resolve_conj().resolve_neg())


def test_views_stay_views_and_writes_are_seen() -> None:
    point = SamplePoint(seed=1, k=2)
    x, y = (Shadow(X.clone(), draw_variable(point, X, True)) for _ in range(2))
    with torch.no_grad():
        flat: Any = prims.collapse_view(x, 0, 1)
        prims.copy_to(x, y)
        assert all(torch.equal(p, q.flatten()) for p, q in zip(flat.residue.parts, y.residue.parts))
        assert torch.equal(flat.value, y.value.flatten())
