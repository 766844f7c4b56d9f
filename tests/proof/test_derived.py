"""Parameters that ``derive`` computes: accepted if the second program holds their rounding, and only then."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from foldproof import Kind, prove

X = (torch.randn(16, 6, generator=torch.Generator().manual_seed(1)),)


def network(dtype: torch.dtype) -> nn.Sequential:
    """A linear and a BatchNorm with scales as far apart as trained ones are."""
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(5).eval()
    assert norm.running_mean is not None and norm.running_var is not None
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1900.0, -1.0, 0.3, 0.01, 0.0]))
        norm.bias.normal_()
        norm.running_mean.normal_(3.0)
        norm.running_var.uniform_(0.5, 2.0)
    return nn.Sequential(nn.Linear(6, 5), norm).eval().to(dtype)


def folded(p: Mapping[str, Tensor]) -> dict[str, Tensor]:
    scale = p["1.weight"] * (p["1.running_var"] + 1e-5).rsqrt()
    bias = (p["0.bias"] - p["1.running_mean"]) * scale + p["1.bias"]
    return {"0.weight": p["0.weight"] * scale.unsqueeze(1), "0.bias": bias}


def rewritten(before: nn.Sequential, computed_in: torch.dtype) -> nn.Sequential:
    own = {name: t.detach().to(computed_in) for name, t in before.state_dict().items() if t.is_floating_point()}
    after = nn.Sequential(copy.deepcopy(before[0]), nn.Identity())
    with torch.no_grad():
        for name, value in folded(own).items():
            after.get_parameter(name).copy_(value)
    return after


class Holding(nn.Module):
    """A function of its input and of one parameter."""

    def __init__(self, w: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.w, self.function = nn.Parameter(w, requires_grad=False), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("precisely", [True, False])
def test_rounded_values_are_accepted(dtype: torch.dtype, precisely: bool) -> None:
    """They are rounded once, or each step is, which shows where a bias and a mean cancel."""
    before = network(dtype)
    after = rewritten(before, torch.float64 if precisely else dtype)
    verdict = prove(before, after, (X[0].to(dtype),), derive=folded)
    assert verdict.kind is Kind.PROVED, str(verdict)


def spoilt(after: nn.Sequential, name: str, at: tuple[int, ...], factor: float) -> nn.Sequential:
    after = copy.deepcopy(after)
    with torch.no_grad():
        after.get_parameter(name)[at] *= factor
    return after


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("name", "at", "factor"),
    [("0.weight", (3,), 0.0), ("0.weight", (1,), -1.0), ("0.weight", (2, 2), 1.2), ("0.bias", (3,), 1.5)],
    ids=str,
)
def test_a_wrong_value_among_much_larger_ones_is_none(
    dtype: torch.dtype, name: str, at: tuple[int, ...], factor: float
) -> None:
    before = network(dtype)
    after = spoilt(rewritten(before, torch.float64), name, at, factor)
    assert prove(before, after, (X[0].to(dtype),), derive=folded).kind is not Kind.PROVED


def test_what_is_zero_stays_zero() -> None:
    before = network(torch.float32)
    after = rewritten(before, torch.float64)
    with torch.no_grad():
        after.get_parameter("0.weight")[4, 0] = 1e-6
    assert prove(before, after, X, derive=folded).kind is not Kind.PROVED


def test_terms_that_cancel_are_accepted() -> None:
    """In a large sum of kernels, each step rounded, some elements are small by chance and all error."""
    torch.manual_seed(0)
    before = nn.ModuleDict({"a": nn.Linear(300, 1000, bias=False), "b": nn.Linear(300, 1000, bias=False)})
    with torch.no_grad():
        before["b"].weight.copy_((-before["a"].weight).nextafter(torch.tensor(0.0)))
    x = (torch.randn(2, 300),)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.k = before["a"], before["b"], nn.Parameter(torch.rand(1000, 1) + 0.5)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) * self.k[:, 0] + self.b(x) * self.k[:, 0]

    def merged(p: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"weight": p["a.weight"] * p["k"] + p["b.weight"] * p["k"]}

    two = Two()
    after = nn.Linear(300, 1000, bias=False)
    with torch.no_grad():
        after.weight.copy_(merged(dict(two.named_parameters()))["weight"])
    assert prove(two, after, x, derive=merged).kind is Kind.PROVED
    with torch.no_grad():
        after.weight[5, 7] += 1e-6
    assert prove(two, after, x, derive=merged).kind is not Kind.PROVED


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_derived_parameter_has_the_layout_of_the_one_that_is_held(dtype: torch.dtype) -> None:
    """The second program views it, which the transpose that it is derived as does not allow."""
    turned = Holding(torch.randn(6, 4).to(dtype), lambda x, w: x @ w.t().reshape(2, 12))
    viewed = Holding(turned.w.t().contiguous(), lambda x, w: x @ w.view(2, 12))
    x = torch.randn(3, 2).to(dtype)
    assert prove(turned, viewed, (x,), derive=lambda p: {"w": p["w"].t()}).kind is Kind.PROVED
