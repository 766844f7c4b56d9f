"""Fused steps of optimizers against PyTorch's kernels."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from foldproof.operators import define_foreach
from foldproof.operators.fused import FUSED

aten = torch.ops.aten
FLAGS = list(itertools.product((False, True), repeat=3))


def tensors(seed: int, count: int) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in ((3, 4), (5,))] for _ in range(count)
    ]


def calls(operator: Any) -> list[tuple[list[Any], dict[str, Any]]]:
    made = []
    for maximize, decays, flag in FLAGS:
        decay = 0.1 if decays else 0.0
        steps = [torch.tensor(3.0), torch.tensor(5.0)]
        common = {"lr": 0.1, "weight_decay": decay, "maximize": maximize}
        if operator is aten._fused_sgd_.default:
            for first, momentum in ((True, 0.9), (False, 0.9), (False, 0.0)):
                rest = {"momentum": momentum, "dampening": 0.0 if flag else 0.2, "nesterov": flag and momentum > 0}
                given = tensors(1, 3) if momentum else [*tensors(1, 2), []]
                made.append((given, {**common, **rest, "is_first_step": first}))
        elif operator is aten._fused_adagrad_.default:
            made.append(([*tensors(1, 3), steps], {**common, "lr_decay": 0.3 if flag else 0.0, "eps": 1e-3}))
        else:
            largest = tensors(2, 1) if flag else [[]]
            rest = {"beta1": 0.8, "beta2": 0.9, "eps": 1e-3, "amsgrad": flag}
            made.append(([*tensors(1, 4), *largest, steps], {**common, **rest}))
    return made


@pytest.mark.parametrize("operator", FUSED, ids=str)
def test_the_definition_is_the_kernel(operator: Any) -> None:
    defined = define_foreach(operator)
    assert defined is not None
    for args, kwargs in calls(operator):
        real, ours = ([[x.clone() for x in one] for one in args] for _ in range(2))
        operator(*real, **kwargs)
        defined(*ours, **kwargs)
        for x, y in zip(itertools.chain(*real), itertools.chain(*ours), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("operator", FUSED, ids=str)
def test_a_gradient_scaler_is_refused(operator: Any) -> None:
    args, kwargs = calls(operator)[0]
    with pytest.raises(NotImplementedError, match="with a gradient scaler"):
        FUSED[operator](*args, **kwargs, grad_scale=torch.ones(()))
