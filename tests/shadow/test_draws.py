"""Operators of one distribution draw the same numbers from one state, and leave the generator in the same state."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor

from foldproof.shadow.draws import _DRAWING

aten = torch.ops.aten
P = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))

CALLS: dict[Any, tuple[Any, ...]] = {
    aten.bernoulli.default: (P,),
    aten.bernoulli.Tensor: (P, P),
    aten.bernoulli.p: (P, 0.3),
    aten.bernoulli_.Tensor: (P, P),
    aten.bernoulli_.float: (P, 0.3),
    aten.exponential.default: (P, 2.0),
    aten.exponential_.default: (P, 2.0),
    aten.normal_functional.default: (P, 0.0, 1.0),
    aten.normal_.default: (P, 0.0, 1.0),
    aten.rand.default: ((50, 3),),
    aten.rand_like.default: (P,),
    aten.randn.default: ((50, 3),),
    aten.randn_like.default: (P,),
    aten.uniform.default: (P, 0.0, 1.0),
    aten.uniform_.default: (P, 0.0, 1.0),
}


def drawn(operator: Any, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    first, *rest = CALLS[operator]
    kwargs = {"dtype": dtype} if operator in (aten.rand.default, aten.randn.default) else {}
    given = first.to(dtype).clone() if isinstance(first, Tensor) else first
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = operator(given, *(x.to(dtype) if isinstance(x, Tensor) else x for x in rest), **kwargs)
        return made, torch.get_rng_state()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_distribution_has_one_draw(dtype: torch.dtype) -> None:
    assert CALLS.keys() == _DRAWING.keys()
    groups: dict[str, list[Any]] = defaultdict(list)
    for operator, draw in _DRAWING.items():
        groups[draw.distribution].append(operator)
    for operators in groups.values():
        (numbers, state), *others = (drawn(operator, dtype, 3) for operator in operators)
        assert all(torch.equal(numbers, x) and torch.equal(state, y) for x, y in others)


@pytest.mark.parametrize("operator", _DRAWING, ids=str)
def test_the_state_moves_alike_from_any_state(operator: Any) -> None:
    """Two draws that meet in one state from one seed meet from every other: the step hangs on no drawn number."""

    def places(seed: int) -> list[int]:
        """The places of the Mersenne Twister before and after: the bytes behind its seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            first, *rest = CALLS[operator]
            given = first.clone() if isinstance(first, Tensor) else first
            operator(given, *(x.clone() if isinstance(x, Tensor) else x for x in rest))
            after = torch.get_rng_state()
            return [*before[8:24].tolist(), *after[8:24].tolist()]

    assert len({tuple(places(seed)) for seed in range(20)}) == 1
