"""Perturbed runs: float32 kernels stay within them, and what is rounded more does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_leaves, tree_map

from foldproof.rounding.constant_noise import ConstantNoise, mark
from foldproof.rounding.float64 import Float64, widened
from foldproof.rounding.floor import Floor
from foldproof.rounding.magnitudes import MAGNITUDES
from foldproof.rounding.noise import Noise
from tests.shadow.calls import samples_of

F = torch.nn.functional


def tensors(x: Any) -> list[Tensor]:
    return [t for t in tree_leaves(x) if isinstance(t, Tensor)]


def widen(x: Any) -> Any:
    return tree_map(lambda t: widened(t.detach()) if isinstance(t, Tensor) else t, x)


def measured(
    function: Callable[..., Any], *args: Any, dtype: torch.dtype = torch.float32, runs: int = 8, **kwargs: Any
) -> tuple[Tensor, Floor, set[str]]:
    """The float64 result of the first result, the floor around it, and operators of which nothing is known."""
    args, kwargs = widen((args, kwargs))
    unknown: set[str] = set()
    with torch.no_grad():
        with Float64():
            float64 = tensors(function(*args, **kwargs))[0]
        deviations = []
        for seed in range(runs):
            noise = Noise(torch.Generator().manual_seed(seed))
            noise.dtype = dtype
            with noise:
                deviations.append([tensors(function(*args, **kwargs))[0] - float64])
            unknown |= noise.unknown
    return float64, Floor(deviations), unknown


CALLS: dict[str, Callable[[], tuple[Callable[..., Tensor], tuple[Tensor, ...]]]] = {
    "matmul": lambda: (torch.matmul, (torch.randn(16, 500), torch.randn(500, 8))),
    "matmul of one sign": lambda: (torch.matmul, (torch.rand(16, 500), torch.rand(500, 8))),
    "linear": lambda: (F.linear, (torch.randn(4, 3, 64), torch.randn(32, 64), torch.randn(32))),
    "conv2d": lambda: (F.conv2d, (torch.randn(2, 8, 9, 9), torch.randn(12, 8, 3, 3), torch.randn(12))),
    "sum": lambda: (lambda x: x.sum(-1), (torch.rand(8, 4096),)),
    "layer_norm": lambda: (lambda x: F.layer_norm(x, (300,)), (torch.randn(8, 300) + 5,)),
    "softmax": lambda: (lambda x: torch.softmax(3 * x, -1), (torch.randn(8, 300),)),
    "attention": lambda: (F.scaled_dot_product_attention, tuple(torch.randn(2, 4, 20, 16) for _ in range(3))),
    "gelu": lambda: (F.gelu, (4 * torch.randn(1000),)),
    "cancelling add": lambda: (torch.add, (torch.randn(1000), torch.randn(1000))),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_real_kernel_is_within_the_floor_and_a_coarser_one_is_not(name: str) -> None:
    torch.manual_seed(0)
    function, args = CALLS[name]()
    float64, floor, unknown = measured(function, *args, runs=16)
    assert not unknown
    real = floor.score([function(*args).double() - float64])
    assert 0 < real.rms < 1.5 and real.worst < 8
    coarse = floor.score([function(*(a.bfloat16() for a in args)).double() - float64])
    assert coarse.rms > 30


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_added_up_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    args = torch.randn(16, 500).to(dtype), torch.randn(500, 8).to(dtype)
    float64, floor, _ = measured(torch.matmul, *args, dtype=dtype, runs=16)
    assert 0.1 < floor.score([torch.matmul(*args).double() - float64]).rms < 1.5
    assert floor.size < 2 * torch.finfo(dtype).eps * float(float64.square().mean().sqrt())


def test_moving_numbers_around_rounds_nothing() -> None:
    x = torch.randn(4, 6)
    _, floor, unknown = measured(lambda x: torch.relu(torch.cat([x.t(), -x.t()])).flatten().flip(0)[::2], x)
    assert floor.size == 0 and not unknown


def test_a_number_that_float32_holds_is_not_moved_by_being_made() -> None:
    _, floor, _ = measured(lambda x: torch.full_like(x, 0.5) + 0 * x, torch.ones(3))
    assert floor.size < 1e-7
    _, made, _ = measured(lambda x: torch.full((3,), 0.5, dtype=torch.float32), torch.ones(3))
    assert made.size == 0


def test_operators_of_which_nothing_is_known_are_named() -> None:
    assert measured(torch.linalg.inv, torch.randn(3, 3))[2]
    assert "aten.igamma.default" in measured(torch.igamma, torch.rand(3), torch.rand(3))[2]
    assert measured(lambda x: torch.polar(x, x).acos().real, torch.randn(8))[2]


INDEX = torch.tensor([0, 2])

KNOWN: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...]]] = {
    "prelu": (F.prelu, (torch.randn(3, 4), torch.rand(1))),
    "glu": (F.glu, (torch.randn(3, 4),)),
    "cdist": (torch.cdist, (torch.randn(30, 4), torch.randn(30, 4))),
    "take": (torch.take, (torch.randn(3, 4), INDEX)),
    "index_fill": (lambda x: x.index_fill(0, INDEX, 0.1), (torch.randn(3, 4),)),
    "zero": (torch.ops.aten.zero, (torch.randn(3),)),
    "index_copy": (lambda x, y: x.index_copy(0, INDEX, y), (torch.randn(3, 4), torch.randn(2, 4))),
    "put": (lambda x, y: x.put(INDEX, y), (torch.randn(3, 4), torch.randn(2))),
    "diagonal_copy": (torch.diagonal_copy, (torch.randn(3, 4),)),
    "mode": (lambda x: x.mode().values, (torch.randn(3, 4),)),
    "nanmedian": (torch.nanmedian, (torch.randn(3, 4),)),
    "floor_divide": (torch.floor_divide, (10 * torch.randn(3, 4), torch.rand(3, 4))),
    "nll_loss": (lambda x: F.nll_loss(x, torch.tensor([0, 1, 2])), (torch.randn(3, 4),)),
    "cross_entropy": (lambda x: F.cross_entropy(x, torch.tensor([0, 1, 2])), (torch.randn(3, 4),)),
    "huber_loss": (F.huber_loss, (torch.randn(3, 4), torch.randn(3, 4))),
    "detach": (lambda x: torch.tensor([0.1]) * x.detach(), (torch.randn(3, 4),)),
}


@pytest.mark.parametrize("name", KNOWN)
def test_operators_that_people_use_are_known(name: str) -> None:
    function, args = KNOWN[name]
    assert not measured(function, *args, runs=2)[2]


def test_the_same_seed_makes_the_same_noise() -> None:
    x = torch.randn(8, 8)
    first, second = (measured(torch.mm, x, x)[1].sigmas[0] for _ in range(2))
    assert torch.equal(first, second)


def _has_a_rule(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last.startswith("conv") or last in {str(f).split(".")[1].lstrip("_") for f in MAGNITUDES}


# Operators whose float64 result depends on the memory layout, that request another dtype than the noise, or that jump.
_APART = {"as_strided", "bfloat16", "half", "grid_sampler_3d"}


def test_no_operator_with_a_rule_leaves_its_floor() -> None:
    """PyTorch's own operator database: real float32 kernels, against rules that must at least take their arguments."""
    skipped = ("linalg", "fft", "svd", "sparse", "masked.", "special.", "empty")
    skipped += (
        "rand",
        "dropout",
        "normal",
        "bernoulli",
        "multinomial",
        "exponential",
        "cauchy",
        "geometric",
        "uniform",
    )
    seen = 0
    for op in op_db:
        if torch.float32 not in op.dtypes or op.name in _APART or any(s in op.name for s in skipped):
            continue
        if not _has_a_rule(op.name):
            continue
        for sample in samples_of(op, 1, torch.float32):
            args, kwargs = (sample.input, *sample.args), sample.kwargs
            try:
                with torch.no_grad():
                    real = tensors(op.op(*args, **kwargs))[0].detach()
                    with Float64():
                        wide = tensors(op.op(*widen(args), **widen(kwargs)))[0]
            except Exception:
                continue  # not an operator on tensors, or one without a float64 form
            if wide.dtype != torch.float64:
                continue
            float64, floor, unknown = measured(op.op, *args, runs=5, **kwargs)
            if unknown or float64.shape != real.shape:
                continue
            error = torch.where(float64.isfinite() & (float64.abs() > 1e-30), real.double() - float64, 0.0)
            assert floor.score([error]).worst < 30, op.name
            seen += 1
    assert seen > 60


def test_constants_made_of_parts_move_as_these_do() -> None:
    """The variance of numbers around 1000 rounds more than its own last place; data is not moved."""
    x = 1000 + torch.randn(4, 50, dtype=torch.float64)
    for data, least, most in ((False, 1e-5, 1.0), (True, 0.0, 1e-9)):
        noise = ConstantNoise(torch.Generator().manual_seed(0))
        with torch.no_grad(), noise:
            moved = torch.std(mark(x.clone(), torch.float32, data=data), 1)
        assert least <= float((moved - x.std(1)).abs().max()) < most


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_are_perturbed_like_the_whole(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)

    def perturbed() -> torch.Tensor:
        noise = Noise(torch.Generator().manual_seed(0))
        noise.dtype = dtype
        with torch.no_grad(), noise:
            return torch.exp(torch.nn.functional.linear(x, w))

    whole = perturbed()
    monkeypatch.setattr("foldproof.rounding.noise.BLOCK", 7)
    assert torch.equal(perturbed(), whole)
    assert not torch.equal(whole, torch.exp(torch.nn.functional.linear(x, w)))


def test_an_exponent_is_not_moved() -> None:
    """The square of a negative number is one; its power of 2.0000001 is none. Other constants move."""
    x = mark(torch.tensor([-2.0, 3.0], dtype=torch.float64), torch.float32, data=True)
    with torch.no_grad(), ConstantNoise(torch.Generator().manual_seed(0)):
        square, moved = x.pow(torch.tensor(2.0)), x * torch.tensor(0.1)
    assert torch.allclose(square, x * x, rtol=1e-14)
    assert not torch.allclose(moved, x * 0.1, rtol=1e-14)


@pytest.mark.parametrize("given", [(0.0, 0.8, 0.1), (0, 1, 0.1), (0.0, 8.0, 1.0), (4.2,), (0.1, 3.1)])
def test_rounding_moves_no_number_of_elements(given: tuple[float, ...]) -> None:
    wanted = torch.arange(*given)
    for seed in range(8):
        for mode in (Noise, ConstantNoise):
            with mode(torch.Generator().manual_seed(seed)):
                found = torch.arange(*given)
            assert found.shape == wanted.shape
            torch.testing.assert_close(found.float(), wanted)
