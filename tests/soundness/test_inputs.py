"""Example inputs are examples: what they have in common by chance is no part of the program."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import FoldproofError, Kind

from .programs import Module, normal

X = normal(3, 4)
Y = X.flip(0)


class Normed(nn.Module):
    """Reads two inputs, of which the second is a parameter in some calls."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.other = nn.Parameter(torch.randn(3, 4))
        with torch.no_grad():
            self.norm.running_mean.normal_()  # type: ignore[union-attr]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.norm(self.linear(x)) - y + 0 * self.other.sum()  # type: ignore[no-any-return]


@pytest.mark.parametrize("keyword", [False, True])
def test_a_fused_program_tells_equal_inputs_apart(keyword: bool) -> None:
    model = Normed().eval()
    given = ((X,), {"y": X}) if keyword else ((X, X), {})
    result = foldproof.fuse(model, *given)  # type: ignore[arg-type]
    assert result.rewrites
    torch.testing.assert_close(
        result.program.module()(X, y=Y) if keyword else result.program.module()(X, Y), model(X, Y)
    )


def test_a_fused_program_tells_an_input_from_a_parameter() -> None:
    model = Normed().eval()
    program = foldproof.fuse(model, (X, model.other)).program.module()
    torch.testing.assert_close(program(X, Y), model(X, Y))


def test_compared_programs_are_given_other_inputs_than_equal_ones() -> None:
    right, wrong = Module(lambda s, x, y: x - y), Module(lambda s, x, y: y - y)
    assert foldproof.compare(right, wrong, (X, X), trials=3, locate=False).kind is Kind.REFUTED
    assert foldproof.compare(right, copy.deepcopy(right), (X, X), trials=3, locate=False).identical
    assert foldproof.prove(right, wrong, (X, X)).kind is Kind.REFUTED


@pytest.mark.parametrize("compiler", ["export", "inductor"])
def test_audited_programs_are_given_other_inputs_than_equal_ones(compiler: str) -> None:
    found = foldproof.audit(Normed().eval(), (X, X), compiler=compiler, locate=False)
    assert found.kind in (Kind.PROVED, Kind.ROUNDING), str(found)


def test_a_list_with_one_tensor_twice() -> None:
    model = Module(lambda s, xs: xs[0] - 2 * xs[1] + s.linear(xs[0]) * s.scale, linear=nn.Linear(4, 4), scale=X[0])
    program = foldproof.fuse(model, ([X, X],)).program.module()
    torch.testing.assert_close(program([X, Y]), model([X, Y]))


def test_a_lazy_module_is_refused_in_one_sentence() -> None:
    for function in (foldproof.prove, foldproof.compare):
        with pytest.raises(FoldproofError, match="weight has no shape yet"):
            function(nn.LazyLinear(3), nn.LazyLinear(3), (X,))
    with pytest.raises(FoldproofError):
        foldproof.fuse(nn.LazyLinear(3), (X,))
