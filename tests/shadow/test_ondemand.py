"""Large leaves that are lent: their residues are made anew whenever they are asked for, and are the same each time."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof.shadow import SamplePoint, Shadow, WritesBorrowed, draw_variable, embed_constant
from foldproof.shadow.ondemand import OnDemand

LARGE = (200, 301)


def lent(point: SamplePoint, value: Tensor, vary: bool = True) -> Shadow:
    residue = draw_variable(point, value, data=False, lent=True) if vary else embed_constant(point, value, lent=True)
    assert isinstance(residue.parts, OnDemand)
    return Shadow(value, residue)


def parts(x: Shadow) -> list[Tensor]:
    return [p.clone() for p in x.residue.parts]


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(p, q) for p, q in zip(a, b))


@pytest.mark.parametrize("vary", [True, False])
def test_the_same_each_time_and_through_views(vary: bool) -> None:
    point = SamplePoint(seed=0, k=3)
    x = lent(point, torch.randn(LARGE), vary)
    kept = parts(x)
    assert equal(kept, parts(x)) and not torch.equal(kept[0], kept[1])
    view = x.t()[3:]
    assert isinstance(view.residue.parts, OnDemand) and view.residue.shape == view.shape
    assert equal([p.t()[3:] for p in kept], parts(view))
    added = parts(x + 1)
    assert all(int((f.canonical(a - 1 - k) != 0).sum()) == 0 for f, a, k in zip(point.fields, added, kept))


def test_strides_are_those_of_the_value() -> None:
    value = torch.randn(LARGE).t()
    x = lent(SamplePoint(seed=0, k=2), value)
    assert all(p.stride() == value.stride() for p in x.residue.parts)
    assert x.t().view(-1).residue.shape == (value.numel(),)


def test_a_copy_of_a_leaf_stays_what_it_is() -> None:
    x = lent(SamplePoint(seed=0, k=2), torch.randn(LARGE))
    for made in (copy.deepcopy(x), nn.Parameter(x, requires_grad=False), x.clone()):
        assert equal(parts(x), parts(made))  # type: ignore[arg-type]


def test_nothing_writes_to_it() -> None:
    x = lent(SamplePoint(seed=0, k=2), torch.randn(LARGE))
    for target in (x, x[2:], x.detach(), copy.deepcopy(x)):
        with pytest.raises(WritesBorrowed):
            target.add_(1)
        with pytest.raises(WritesBorrowed):
            target.data = torch.zeros(LARGE)
    x.clone().add_(1)


def test_infinite_elements_are_kept() -> None:
    value = torch.randn(LARGE)
    value[3, 4] = torch.inf
    residue = draw_variable(SamplePoint(seed=0, k=2), value, data=False, lent=True)
    assert residue.infinite and isinstance(residue.parts, tuple)


class Writes(nn.Module):
    """Adds to a large buffer, and reads it."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(LARGE))
        self.weight = nn.Parameter(torch.randn(LARGE))
        self.twice = twice

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(x)
        if self.twice:
            self.seen.add_(x)
        return self.seen @ self.weight.t()


def test_programs_that_write_to_a_large_leaf() -> None:
    torch.manual_seed(0)
    once = Writes(False)
    again, twice = copy.deepcopy(once), copy.deepcopy(once)
    twice.twice = True
    x = (torch.randn(LARGE),)
    assert foldproof.prove(once, again, x).kind is foldproof.Kind.PROVED
    assert foldproof.prove(once, twice, x).kind is foldproof.Kind.REFUTED
    assert not bool(once.seen.any())


def test_products_with_a_leaf_are_those_that_would_be_made_anew() -> None:
    """Each of these twice, on one draw: what was kept must be told apart from what only looks alike."""
    generator = torch.Generator().manual_seed(0)
    point = SamplePoint(seed=0, k=2)
    w = lent(point, torch.randn(256, 256, generator=generator))
    kernel = lent(point, torch.randn(64, 64, 3, 3, generator=generator))
    other = lent(point, w.value.clone())
    eager_w, eager_kernel, eager_other = (x.clone() for x in (w, kernel, other))
    value = torch.randn(4, 256, generator=generator)
    x, y = (Shadow(value, draw_variable(point, value, data=True)) for _ in range(2))
    pixels = torch.randn(1, 64, 6, 6, generator=generator)
    z = Shadow(pixels, draw_variable(point, pixels, data=True))
    conv = nn.functional.conv2d
    cases = [
        (lambda m, k, o: x @ m),
        (lambda m, k, o: x @ m.t()),
        (lambda m, k, o: y @ m),
        (lambda m, k, o: x @ o),
        (lambda m, k, o: x[:2] @ m),
        (lambda m, k, o: x.view(2, 2, 256) @ m),
        (lambda m, k, o: x @ m.view(2, 128, 256).transpose(0, 1).reshape(256, 256)),
        (lambda m, k, o: torch.addmm(y[0], x, m)),
        (lambda m, k, o: conv(z, k)),
        (lambda m, k, o: conv(z, k, padding=1)),
        (lambda m, k, o: conv(z, k, padding=1, stride=2)),
        (lambda m, k, o: conv(z, k, padding=2, dilation=2)),
        (lambda m, k, o: conv(z, k.flip(-1), padding=1)),
        (lambda m, k, o: nn.functional.conv_transpose2d(z, k)),
    ]
    for _ in range(2):
        for case in cases:
            made = case(w, kernel, other)
            assert equal(parts(made), parts(case(eager_w, eager_kernel, eager_other)))
            made.zero_()  # which no other product may see


def test_a_product_is_formed_once_for_two_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3))
    x = torch.randn(1, 64, 6, 6)
    program = torch.export.export(model, (x,))
    made = 0
    make = OnDemand.__getitem__

    def counted(self: OnDemand, i: int) -> Tensor:
        nonlocal made
        made += 1
        part: Tensor = make(self, i)
        return part

    monkeypatch.setattr(OnDemand, "__getitem__", counted)
    verdict = foldproof.prove(program, program.run_decompositions(), (x,))
    assert verdict.proof is not None
    assert made == 2 * (verdict.proof.k + 1)  # of both weights, for the scout's prime and those of the proof


def test_matrices_are_not_drawn_for_a_few_products(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
    x = torch.randn(4, 256)
    program = torch.export.export(model, (x,))
    monkeypatch.setattr(OnDemand, "__getitem__", None)
    assert foldproof.prove(program, program.run_decompositions(), (x,)).kind is foldproof.Kind.PROVED
