"""Candidates that compute in another precision on purpose: what explains them, and what is accepted."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from foldproof import Kind, compare
from foldproof.errors import FoldproofError


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4)).eval()


class Copy(nn.Module):
    """A copy in another dtype, which takes and gives float32."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype, self.model = dtype, model().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x.to(self.dtype))
        return out.float()


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = model()

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = self.model(x)
        return out


def dynamic() -> Callable[[Tensor], Tensor]:
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model()), {nn.Linear})
    return lambda x: quantized(x)


def integer_weights() -> nn.Module:
    made = model()
    with torch.no_grad():
        for weight in (made[0].weight, made[2].weight, made[4].weight):
            step = weight.abs().amax(1, keepdim=True) / 127  # type: ignore[operator,union-attr]
            weight.copy_((weight / step).round() * step)  # type: ignore[operator,union-attr]
    return made


CANDIDATES: dict[str, tuple[str, Callable[[], Callable[..., Tensor]]]] = {
    "bfloat16 copy": ("bfloat16", lambda: Copy(torch.bfloat16)),
    "float16 copy": ("float16", lambda: Copy(torch.float16)),
    "autocast": ("bfloat16", Autocast),
    "dynamic int8": ("int8", dynamic),
    "int8 weights": ("int8", integer_weights),
}


@pytest.mark.parametrize("name", CANDIDATES)
def test_the_precision_is_named_and_accepted(name: str) -> None:
    precision, make = CANDIDATES[name]
    x = torch.randn(4, 64)
    found = compare(model(), make(), (x,), trials=4)
    assert found.kind is Kind.REFUTED
    assert "explained if computed in" in found.verdict.reason and precision in found.verdict.reason
    assert compare(model(), make(), (x,), trials=4, precision=precision).kind is Kind.ROUNDING


@pytest.mark.parametrize("precision", ["tf32", "float16", "bfloat16", "int8"])
def test_a_wrong_bias_is_beyond_every_precision(precision: str) -> None:
    wrong = model()
    with torch.no_grad():
        wrong[2].bias[0] += 2  # type: ignore[index,operator,union-attr]
    x = torch.randn(4, 64)
    assert compare(model(), wrong, (x,), trials=4, precision=precision).kind is Kind.REFUTED
    assert "explained" not in compare(model(), wrong, (x,), trials=4).verdict.reason


def test_a_finer_precision_does_not_accept_a_coarser_one() -> None:
    assert (
        compare(model(), Copy(torch.bfloat16), (torch.randn(4, 64),), trials=4, precision="tf32").kind is Kind.REFUTED
    )


@pytest.mark.parametrize(("dtype", "name"), [(torch.bfloat16, "bfloat16"), (torch.float16, "float16")])
def test_a_copy_in_half_precision_takes_the_same_inputs(dtype: torch.dtype, name: str) -> None:
    x = torch.randn(4, 64)
    found = compare(model(), model().to(dtype), (x,), trials=3)
    assert found.kind is Kind.REFUTED and f"--precision {name} accepts" in found.verdict.reason
    assert compare(model(), model().to(dtype), (x,), trials=3, precision=name).kind is Kind.ROUNDING
    assert compare(model().to(dtype), model(), (x.to(dtype),), trials=3, precision=name).kind is not Kind.REFUTED


def test_what_is_no_precision_is_told() -> None:
    with pytest.raises(FoldproofError, match="no precision; give a floating-point dtype, or one of: tf32"):
        compare(model(), model(), (torch.randn(4, 64),), precision="half a dozen")
