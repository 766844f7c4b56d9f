"""Models without weights, on the meta device or with fake tensors: proved for all parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from foldproof import prove
from foldproof.errors import FoldproofError
from foldproof.verdict import Kind


class Block(nn.Module):
    def __init__(self, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.embedding = nn.Embedding(500, 400)
        self.norm = nn.LayerNorm(400)
        self.up, self.down = nn.Linear(400, 600), nn.Linear(600, 400, bias=False)
        self.head = nn.Linear(400, 400, bias=False)
        self._change = change

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x + self.down(self._change(F.silu(self.up(self.norm(x)))))
        mask = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool, device=tokens.device).tril()
        scores = (x @ x.transpose(1, 2) / 20).masked_fill(~mask, float("-inf"))
        return self.head(scores.softmax(-1) @ x)


TOKENS = torch.tensor([[3, 1, 499, 3, 77]])


def exported() -> torch.export.ExportedProgram:
    with torch.device("meta"):
        return torch.export.export(Block().eval(), (TOKENS.to("meta"),))


def test_a_model_on_meta_is_proved_equal_to_its_decomposition() -> None:
    program = exported()
    verdict = prove(program, program.run_decompositions(), (TOKENS,))
    assert verdict.kind is Kind.PROVED, verdict
    assert any("without values" in note for note in verdict.notes)


def test_a_model_of_fake_tensors_is_proved() -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = Block().eval()
    other = copy.deepcopy(model)
    assert prove(model, other, (TOKENS,)).kind is Kind.PROVED


def test_modules_on_meta_share_parameters_by_name() -> None:
    with torch.device("meta"):
        before, same = Block().eval(), Block().eval()
        changed = Block(lambda x: x * 1.01).eval()
    assert prove(before, same, (TOKENS,)).kind is Kind.PROVED
    verdict = prove(before, changed, (TOKENS,))
    assert verdict.kind is Kind.REFUTED and verdict.counterexample is not None, verdict


@pytest.mark.parametrize(
    "use",
    [
        lambda x, w: x @ w.t(),
        lambda x, w: x @ w.flip(0),
        lambda x, w: x @ w.roll(1, 0).roll(17, 1),
        lambda x, w: x @ (w + w.t()) / 2,
        lambda x, w: x.roll(1, -1) @ w,
    ],
)
def test_drawn_values_have_no_symmetry(use: Callable[[Tensor, Tensor], Tensor]) -> None:
    """A matrix of drawn values repeats numbers; no program may be taken for another because of that."""

    class Model(nn.Module):
        def __init__(self, use: Callable[[Tensor, Tensor], Tensor]) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.empty(400, 400, device="meta"))
            self._use = use

        def forward(self, x: Tensor) -> Tensor:
            return self._use(x, self.w)

    verdict = prove(Model(lambda x, w: x @ w), Model(use), (torch.randn(3, 400),))
    assert verdict.kind is Kind.REFUTED, verdict


def test_tied_weights_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self, tied: bool) -> None:
            super().__init__()
            self.a = nn.Linear(400, 400, bias=False, device="meta")
            self.b = nn.Linear(400, 400, bias=False, device="meta")
            if tied:
                self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) - self.b(x)

    x = torch.randn(3, 400)
    assert prove(Tied(True), lambda x: x * 0, (x,)).kind is Kind.PROVED
    assert prove(Tied(False), lambda x: x * 0, (x,)).kind is Kind.REFUTED


def test_integers_without_values_are_refused() -> None:
    program = exported()
    with pytest.raises(FoldproofError, match="an input holds torch.int64 and has no values"):
        prove(program, program, (TOKENS.to("meta"),))
    model = nn.Linear(3, 3, device="meta")
    model.register_buffer("table", torch.zeros(3, dtype=torch.int64, device="meta"))
    with pytest.raises(FoldproofError, match="table holds torch.int64"):
        prove(model, model, (torch.randn(2, 3),))


def test_a_weight_of_the_second_program_alone_is_refused() -> None:
    after = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, device="meta"))
    with pytest.raises(FoldproofError, match="only the second program has 1.weight"):
        prove(nn.Sequential(nn.Linear(4, 4)), after, (torch.randn(2, 4),))


def test_a_weight_used_from_both_sides() -> None:
    """The rows of an embedding that are looked up are those that logits are computed with."""

    class Model(nn.Module):
        def __init__(self, other: bool) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.empty(500, 400, device="meta"))
            self._other = other

        def forward(self, tokens: Tensor) -> Tensor:
            x = F.embedding(tokens, self.table)
            logits = x @ self.table.t()
            return (x * x).sum(-1) if self._other else logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)

    assert prove(Model(False), Model(True), (TOKENS,)).kind is Kind.PROVED


Products = Callable[[Tensor, Tensor, Tensor], Tensor]

SAME: dict[str, tuple[Products, Products]] = {
    "an association": (lambda x, w, v: (x @ w) @ v, lambda x, w, v: x @ (w @ v)),
    "a sum": (lambda x, w, v: x @ (w + v), lambda x, w, v: x @ w + x @ v),
    "a square": (lambda x, w, v: x @ w @ w, lambda x, w, v: x @ (w @ w)),
    "one weight twice": (lambda x, w, v: F.relu(x @ w) @ w, lambda x, w, v: F.relu((2 * x) @ w / 2) @ w),
    "dependent rows": (lambda x, w, v: (x[:1] + 2 * x[1:2]) @ w, lambda x, w, v: x[:1] @ w + 2 * (x[1:2] @ w)),
    "rows of a product": (lambda x, w, v: w[[1, 5]] @ w.t(), lambda x, w, v: (w @ w.t())[[1, 5]]),
    "a Gram matrix": (lambda x, w, v: (x @ w) @ (x @ w).t(), lambda x, w, v: x @ (w @ w.t()) @ x.t()),
    "a tied table": (
        lambda x, w, v: F.embedding(torch.tensor([3, 4]), w) @ w.t(),
        lambda x, w, v: (w @ w.t())[[3, 4]],
    ),
}
OTHER: dict[str, tuple[Products, Products]] = {
    "the other side": (lambda x, w, v: x @ w @ w.t(), lambda x, w, v: x @ w.t() @ w),
    "an order": (lambda x, w, v: x @ w @ v, lambda x, w, v: x @ v @ w),
    "two weights": (lambda x, w, v: F.relu(x @ w) @ w, lambda x, w, v: F.relu(x @ w) @ v),
    "another combination": (lambda x, w, v: (x[:1] + 2 * x[1:2]) @ w, lambda x, w, v: x[:1] @ w + 2.001 * (x[1:2] @ w)),
    "rows of another product": (lambda x, w, v: w[[1, 5]] @ w.t(), lambda x, w, v: (w.t() @ w)[[1, 5]]),
    "another Gram matrix": (lambda x, w, v: (x @ w) @ (x @ w).t(), lambda x, w, v: x @ (w.t() @ w) @ x.t()),
}


class OfTwoMatrices(nn.Module):
    """A function of two large matrices, which are drawn as far as it looks at them."""

    def __init__(self, use: Products) -> None:
        super().__init__()
        self.w, self.v = (nn.Parameter(torch.empty(400, 400, device="meta")) for _ in range(2))
        self._use = use

    def forward(self, x: Tensor) -> Tensor:
        return self._use(x, self.w, self.v)


@pytest.mark.parametrize("name", [*SAME, *OTHER])
def test_matrices_are_one_matrix_in_all_products(name: str) -> None:
    before, after = (OfTwoMatrices(use) for use in (SAME | OTHER)[name])
    verdict = prove(before, after, (torch.randn(3, 400),))
    assert verdict.kind is (Kind.PROVED if name in SAME else Kind.REFUTED), verdict


class Shared(nn.Module):
    """A matrix and a parameter that is a view of it."""

    def __init__(self, view: Callable[[Tensor], Tensor], use: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.e = nn.Parameter(torch.empty(32, 32))
        self.h = nn.Parameter(view(self.e.detach()))
        self._use = use

    def forward(self, x: Tensor) -> Tensor:
        return self._use(x, self.e, self.h)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda e: e.t(),
    "a part": lambda e: e[:16],
    "in another shape": lambda e: e.view(16, 64),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_of_one_storage_are_not_taken_apart(name: str) -> None:
    """A difference of independent matrices is no difference of these, and a write to one changes the other."""
    view, x = VIEWS[name], torch.randn(2, 32)
    with torch.device("meta"):
        stored, computed = (
            Shared(view, use) for use in (lambda x, e, h: x.sum() * h, lambda x, e, h: x.sum() * view(e))
        )
        doubled = Shared(view, lambda x, e, h: x.sum() * h * 2 - x.sum() * h)
        written = Shared(view, lambda x, e, h: x.sum() * e.detach().add_(1).sum() + h)
    verdict = prove(stored, computed, (x,))
    assert verdict.kind is Kind.UNDECIDED and "share memory" in verdict.reason, verdict
    assert prove(stored, doubled, (x,)).kind is Kind.PROVED
    assert prove(written, lambda x: written(x), (x,)).kind is Kind.UNDECIDED


def test_one_place_under_two_names_is_one_variable() -> None:
    with torch.device("meta"):
        twice = Shared(lambda e: e, lambda x, e, h: x @ e - x @ h)
    assert prove(twice, lambda x: x * 0, (torch.randn(2, 32),)).kind is Kind.PROVED


class With(nn.Module):
    def __init__(self, shape: tuple[int, ...], use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(shape, device="meta"))
        self._use = use

    def forward(self, x: Tensor) -> Tensor:
        return self._use(x, self.w)


Use = Callable[[Tensor, Tensor], Tensor]
IMAGE = torch.randn(1, 96, 5, 5)
SYMMETRIES: dict[str, tuple[tuple[int, ...], Tensor, Use, Use]] = {
    "channels": ((96, 96, 3, 3), IMAGE, F.conv2d, lambda x, w: F.conv2d(x, w.transpose(0, 1))),
    "rows": ((96, 96, 3, 3), IMAGE, F.conv2d, lambda x, w: F.conv2d(x, w.mT)),
    "experts": (
        (48, 48, 40),
        torch.randn(2, 48),
        lambda x, w: torch.einsum("bi,eio->beo", x, w),
        lambda x, w: torch.einsum("bi,ieo->beo", x, w),
    ),
    "slices": (
        (64, 64, 40),
        torch.randn(2, 63),
        lambda x, w: torch.einsum("bi,eio->beo", x, w[1:, :-1]),
        lambda x, w: torch.einsum("bi,eio->beo", x, w[:-1, 1:]),
    ),
}


@pytest.mark.parametrize("name", SYMMETRIES)
def test_drawn_values_of_more_dimensions_have_no_symmetry(name: str) -> None:
    shape, x, use, other = SYMMETRIES[name]
    assert prove(With(shape, use), With(shape, other), (x,)).kind is Kind.REFUTED
    assert prove(With(shape, use), With(shape, lambda x, w: use(x, w * 2) / 2), (x,)).kind is Kind.PROVED


SIGNS: dict[str, tuple[Use, Use]] = {
    "relu": (lambda x, b: x * b.relu(), lambda x, b: x * b),
    "abs": (lambda x, b: x * b.abs(), lambda x, b: x * b),
    "clamp": (lambda x, b: x * b.clamp(min=0), lambda x, b: x * b),
    "a root": (lambda x, b: x * (b * b).sqrt(), lambda x, b: x * b),
    "a choice": (lambda x, b: torch.where(b > 0, x, -x), lambda x, b: x * 1.0),
    "a branch": (lambda x, b: x if b.sum() > 0 else -x, lambda x, b: x * 1.0),
}


@pytest.mark.parametrize("shape", [(8,), ()])
@pytest.mark.parametrize("name", SIGNS)
def test_parameters_without_values_have_either_sign(name: str, shape: tuple[int, ...]) -> None:
    use, other = SIGNS[name]
    verdict = prove(With(shape, use), With(shape, other), (torch.randn(3, 8),))
    assert verdict.kind is Kind.REFUTED, verdict
    again = prove(With(shape, use), With(shape, lambda x, w: use(x, w) * 2 / 2), (torch.randn(3, 8),))
    assert again.kind is Kind.PROVED, again


def test_variances_without_values_stay_positive() -> None:
    model = nn.Sequential(nn.BatchNorm1d(8, device="meta")).eval()

    def by_hand(x: Tensor) -> Tensor:
        norm = model[0]
        y: Tensor = (x - norm.running_mean) / (norm.running_var.abs() + norm.eps).sqrt() * norm.weight + norm.bias
        return y

    assert prove(model, by_hand, (torch.randn(3, 8),)).kind is not Kind.REFUTED
