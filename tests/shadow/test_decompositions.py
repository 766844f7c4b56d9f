"""An operator and PyTorch's own decomposition of it have the same residues, so that either form proves the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions
from torch._ops import OpOverload
from torch.utils._pytree import tree_leaves, tree_map

from foldproof.shadow import RULES, SamplePoint, Shadow, Undecided, draw_variable, embed_constant
from tests.shadow.calls import calls_of, copied, is_float

aten = torch.ops.aten
TABLE = core_aten_decompositions()

BY_CASES = {
    # Uninterpreted, which holds whatever the input; the decomposition chooses between cases by comparing.
    aten._prelu_kernel.default,
    aten.celu.default,
    aten.hardshrink.default,
    aten.heaviside.default,
    aten.logaddexp.default,
    aten.sinc.default,
    aten.softshrink.default,
    aten.threshold.default,
    aten.xlogy.Scalar_Other,
    aten.xlogy.Scalar_Self,
    aten.xlogy.Tensor,
}
OTHER_FORM = {
    aten.logaddexp2.default,  # uninterpreted; the decomposition is an identity about logarithms
    aten.empty_like.default,  # uninitialised
    aten.new_empty.default,
}
AGREE = sorted((o for o in RULES if o in TABLE and o not in BY_CASES | OTHER_FORM), key=str)


@pytest.mark.parametrize("operator", AGREE, ids=str)
def test_agrees_with_its_decomposition(operator: OpOverload) -> None:
    compared = 0
    for call in calls_of(operator, torch.float32):
        point = SamplePoint(seed=5, k=2)
        args, kwargs = tree_map(
            lambda t: Shadow(t.clone(), draw_variable(point, t, True)) if is_float(t) else copied(t),
            (call.args, call.kwargs),
        )
        try:
            fused = tree_leaves(operator(*args, **kwargs))
            parts = tree_leaves(TABLE[operator](*args, **kwargs))
        except Undecided:
            continue
        for a, b in zip(fused, parts):  # attention's second result is another one there, and nobody reads it
            if isinstance(a, Tensor) and a.dtype.is_floating_point and a.shape == b.shape:
                for field, p, q in zip(point.fields, residues(point, a), residues(point, b)):
                    assert torch.equal(field.canonical(p), field.canonical(q))
        compared += 1
    assert compared


@pytest.mark.parametrize("operator", sorted(BY_CASES, key=str), ids=str)
def test_exceptions_are_real(operator: OpOverload) -> None:
    """No operator is listed as an exception that is none."""
    with pytest.raises((AssertionError, Undecided)):
        for call in calls_of(operator, torch.float32):
            point = SamplePoint(seed=5, k=2)
            args = tree_map(lambda t: Shadow(t.clone(), draw_variable(point, t, True)) if is_float(t) else t, call.args)
            if not any(isinstance(a, Shadow) and a.numel() for a in args):
                continue
            fused, parts = operator(*args, **call.kwargs), TABLE[operator](*args, **call.kwargs)
            for field, p, q in zip(point.fields, residues(point, fused), residues(point, parts)):
                assert torch.equal(field.canonical(p), field.canonical(q))


def residues(point: SamplePoint, x: Tensor) -> tuple[Tensor, ...]:
    return (x.residue if isinstance(x, Shadow) else embed_constant(point, x)).parts
