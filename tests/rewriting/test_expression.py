"""Expressions: evaluated, compared, written out, and rounded once."""

from __future__ import annotations

import torch
from torch import Tensor

from foldproof.rewriting.expression import Expression, evaluate, rounded


def add(a: Tensor, b: Tensor | float) -> Tensor:
    return a + b


def multiply(a: Tensor, b: Tensor) -> Tensor:
    return a * b


SUM = Expression(add, ("a", 1.5))
PARAMETERS = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}


def test_evaluates_and_names_what_it_reads() -> None:
    product = Expression(multiply, (SUM, "b"))
    assert set(product.reads()) == {"a", "b"}
    assert evaluate({"x": product, "y": SUM}, PARAMETERS.__getitem__)["x"].tolist() == [7.5, 14.0]


def test_common_parts_are_computed_once() -> None:
    calls = []

    def counted(a: Tensor) -> Tensor:
        calls.append(a)
        return a

    part = Expression(counted, ("a",))
    evaluate({"x": Expression(add, (part, 1.0)), "y": Expression(multiply, (part, part))}, PARAMETERS.__getitem__)
    assert len(calls) == 1


def test_equal_where_they_say_the_same() -> None:
    assert Expression(add, ("a", 1.5)) == SUM
    assert Expression(add, ("a", 2.5)) != SUM
    assert Expression(multiply, ("a", 1.5)) != SUM


def test_substitution_writes_constants_out() -> None:
    outer = Expression(multiply, ("a_folded", "b"))
    inner = outer.substitute({"a_folded": SUM})
    assert inner == Expression(multiply, (SUM, "b"))
    assert inner.substitute({"c": SUM}) is inner


def test_rounded_once_to_the_dtype() -> None:
    """(1 + 2^-12)^2 has the digit 2^-24, which float32 has no room for."""
    a, b = torch.tensor([1 + 2.0**-12]), torch.tensor([-1 - 2.0**-11])
    difference = Expression(add, (Expression(multiply, ("a", "a")), "b"))
    assert rounded(difference, {"a": a, "b": b}, torch.float32).item() == 2.0**-24
    assert (a * a + b).item() == 0


def test_rowwise_is_the_same_in_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(300, 7, 31, generator=generator).transpose(1, 2)  # several blocks, the last one shorter
    scale = torch.randn(300, generator=generator)

    def scaled(w: Tensor, s: Tensor) -> Tensor:
        assert w.dtype == s.dtype == torch.float64
        return w * s[:, None, None]

    double = Expression(add, ("s", "s"))
    parameters = {"w": weight, "s": scale}
    whole = rounded(Expression(scaled, ("w", double)), parameters, torch.float32)
    parts = rounded(Expression(scaled, ("w", double), rowwise=True), parameters, torch.float32)
    assert torch.equal(whole, parts)
    assert parts.stride() == weight.stride()
