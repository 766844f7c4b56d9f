"""`compare` with references whose exported programs are not what they compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind


class Asking(nn.Module):
    """Computes something else while it is compiled, or exported."""

    def __init__(self, compiled: Callable[[Tensor], Tensor], eager: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear, self.compiled, self.eager = nn.Linear(4, 4), compiled, eager

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.compiled(y) if torch.compiler.is_compiling() else self.eager(y)


OTHERS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "a factor": (lambda y: y * 2, lambda y: y * 3),
    "a little": (lambda y: y, lambda y: y * (1 + 1e-4)),
    "one element": (lambda y: y, lambda y: torch.cat([y[:, :1] + 1e-3, y[:, 1:]], 1)),
    "integers": (lambda y: (y > 0).long(), lambda y: (y > 0.01).long()),
    "a comparison": (lambda y: y > 0, lambda y: y > -1),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_what_is_compiled_is_another_function(name: str, backend: str) -> None:
    torch.manual_seed(0)
    model = Asking(*OTHERS[name]).eval()
    found = foldproof.compare(model, backend, (torch.randn(64, 4),), trials=4)
    assert found.kind is Kind.REFUTED, found.verdict


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_called_is_right(name: str) -> None:
    torch.manual_seed(0)
    model = Asking(*OTHERS[name]).eval()
    weight, bias = model.linear.weight, model.linear.bias

    def right(x: Tensor) -> Tensor:
        return model.eager(x @ weight.t() + bias)

    found = foldproof.compare(model, right, (torch.randn(64, 4),), trials=4)
    assert found.kind is not Kind.REFUTED, found.verdict


def test_a_module_that_can_be_neither_exported_nor_recorded_as_it_is() -> None:
    """Its numbers have no float64 result, and what is compiled agrees with its export alone."""

    class Unrecorded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if torch.compiler.is_compiling() else torch.from_numpy(x.numpy() * 3)

    found = foldproof.compare(Unrecorded(), "eager", (torch.randn(8),), trials=2)
    assert found.kind is Kind.UNDECIDED and "can't be recorded" in found.verdict.reason
