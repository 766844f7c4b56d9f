"""Operators without a rule are uninterpreted functions of all their operands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from foldproof import fuse, prove
from foldproof.shadow import RULES
from foldproof.shadow.whole import is_read_as_a_whole
from foldproof.torch_internals import quantized_operators
from foldproof.verdict import Kind

aten = torch.ops.aten
quantize = quantized_operators().quantize_per_tensor.default
SQUARE = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
INDEX = torch.tensor([[0, 2, 2, 5, 1, 0]] * 6)

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "an inverse": torch.linalg.inv,
    "a solution": lambda x: torch.linalg.solve(x, x.t() + 1),
    "eigenvectors": lambda x: torch.linalg.eigh(x @ x.t())[1],
    "singular values": lambda x: torch.linalg.svdvals(x),
    "a scatter with a maximum": lambda x: torch.zeros(6, 6).scatter_reduce(1, INDEX, x, "amax"),
    "a scatter with a minimum": lambda x: x.scatter_reduce(1, INDEX, x * 2, "amin", include_self=False),
    "sorted values without repetition": lambda x: torch.unique(x)[:6] + x,
    "a Bessel function": torch.special.i0,
}


class Between(nn.Module):
    """The function between two layers, of which the first can be folded."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.function(self.norm(self.first(x))) * torch.ones(6, 6))
        return y


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_in_the_way_of_no_proof(name: str) -> None:
    model = Between(FUNCTIONS[name]).eval()
    fused = fuse(model, (SQUARE,))
    assert len(fused.rewrites) == 1 and fused.verdict.kind is Kind.PROVED, fused.verdict
    assert fused.verdict.proof is not None
    assert any("as a whole" in name for name in fused.verdict.proof.uninterpreted)


def test_operands_and_attributes_matter() -> None:
    """Of two calls, the same function is assumed where everything but the values is alike."""

    def solve(swap: bool, upper: bool, index: Tensor) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            a, b = (x.t(), x) if swap else (x, x.t())
            made = torch.linalg.solve_triangular(a + 3 * torch.eye(6), b, upper=upper)
            return made + torch.zeros(6, 6).scatter_reduce(1, index, x, "amax")

        return run

    base = solve(False, True, INDEX)
    assert prove(base, solve(False, True, INDEX.clone()), (SQUARE,)).kind is Kind.PROVED
    for other in (solve(True, True, INDEX), solve(False, False, INDEX), solve(False, True, INDEX.flip(1))):
        assert prove(base, other, (SQUARE,)).kind is Kind.REFUTED


@pytest.mark.parametrize("factor", [1.0001, 1.02])
def test_quantized_operands_are_those_of_all_inputs(factor: float) -> None:
    """At these inputs both programs quantize to the same numbers, and at others they do not."""
    x = torch.tensor([[1.1, 2.1], [0.2, -1.9]])

    def quantized(by: float) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.special.i0(quantize(x * by, 0.5, 0, -128, 127, torch.int8))

    assert prove(quantized(1.0), quantized(1.0), (x,)).kind is Kind.PROVED
    assert prove(quantized(1.0), quantized(factor), (x,)).kind not in (Kind.PROVED, Kind.PROVED_WITHIN)


def test_the_places_of_elements_matter() -> None:
    assert prove(torch.linalg.inv, lambda x: torch.linalg.inv(x).t(), (SQUARE,)).kind is Kind.REFUTED
    assert prove(lambda x: torch.linalg.inv(x.t()), torch.linalg.inv, (SQUARE,)).kind is Kind.REFUTED
    assert prove(torch.linalg.inv, lambda x: torch.linalg.inv(x.t().contiguous().t()), (SQUARE,)).kind is Kind.PROVED


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "a scatter into memory": lambda x: torch.as_strided_scatter(x, torch.ones(6), (6,), (1,)),
    "one of prims": lambda x: torch.ops.prims.as_strided_scatter(x, torch.ones(6), (6,), (1,), 0),
    "the factors of a determinant": lambda x: aten._linalg_det(x)[1],
    "the factors of a logarithm of it": lambda x: aten._linalg_slogdet(x)[2],
    "memory itself": lambda x: aten._reshape_alias_copy(x, (6,), (1,)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_strides_matter_to_some(name: str) -> None:
    """Operands that are alike, and lie in memory in another order; at a symmetric matrix nothing tells them apart."""
    function = LAYOUTS[name]
    if name != "memory itself":  # of which a tensor may be a part
        assert prove(lambda x: function(x.t()), lambda x: function(x.mT), (SQUARE,)).kind is Kind.PROVED
    verdict = prove(lambda x: function(x.t()), lambda x: function(x.t().contiguous()), (torch.eye(6) + 1,))
    assert verdict.kind in (Kind.REFUTED, Kind.UNDECIDED), verdict


def test_strides_do_not_matter_to_others() -> None:
    for function in (torch.linalg.det, lambda x: torch.linalg.slogdet(x)[1], torch.linalg.inv, torch.special.i0):
        verdict = prove(lambda x, f=function: f(x.t()), lambda x, f=function: f(x.t().contiguous()), (SQUARE,))
        assert verdict.kind is Kind.PROVED, verdict


def test_random_operators_have_none() -> None:
    verdict = prove(torch._standard_gamma, torch._standard_gamma, (torch.rand(6, 2),))
    assert verdict.kind is Kind.UNDECIDED and "no rule for operator" in verdict.reason, verdict


def test_views_have_none() -> None:
    assert not is_read_as_a_whole(aten.view_as_real.default, (torch.ones(2, dtype=torch.complex64),), {})


def test_the_examples_have_no_rule() -> None:
    for operator in (aten.linalg_inv_ex.default, aten._linalg_eigh.default, aten.special_i0.default):
        assert operator not in RULES


def test_complex_operands_and_results() -> None:
    """Both parts of each operand count, and both parts of a result."""
    z, w = torch.randn(3, 3, dtype=torch.complex64), torch.randn(3, 3, dtype=torch.complex64)
    for function in (torch.linalg.inv, torch.acos):
        verdict = prove(lambda z, f=function: f(z), lambda z, f=function: f(z * 1), (z,))
        assert verdict.kind is Kind.PROVED, verdict
        for other in (lambda z, w: z.conj(), lambda z, w: z.real + w.imag * 1j, lambda z, w: w):
            changed = prove(lambda z, w, f=function: f(z), lambda z, w, f=function, g=other: f(g(z, w)), (z, w))
            assert changed.kind is Kind.REFUTED, changed
        for part in (torch.real, torch.imag, torch.conj):
            changed = prove(lambda z, f=function: f(z), lambda z, f=function, g=part: g(f(z)) + 0j, (z,))
            assert changed.kind is Kind.REFUTED, changed
