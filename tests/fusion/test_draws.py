"""Values that differ from run to run are no constants: a weight that depends on one is never folded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import foldproof

aten = torch.ops.aten
COUNT = [0.0]


@torch.library.custom_op("foldproof_draws::noise", mutates_args=())
def noise(x: Tensor) -> Tensor:
    return torch.randn_like(x)


@torch.library.custom_op("foldproof_draws::count", mutates_args=())
def count(x: Tensor) -> Tensor:
    """An operator that reads and changes a global."""
    COUNT[0] += 1
    return torch.full_like(x, COUNT[0])


@torch.library.custom_op("foldproof_draws::pointwise", mutates_args=(), tags=(torch.Tag.pointwise,))
def pointwise(x: Tensor) -> Tensor:
    return x + torch.randn_like(x)


for defined in (noise, count, pointwise):
    defined.register_fake(torch.empty_like)

DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "untagged": noise,
    "state": count,
    "dropout": lambda w: nn.functional.dropout(w, 0.5, training=True),
    "native dropout": lambda w: aten.native_dropout(w, 0.5, None)[0],
    "rrelu": lambda w: nn.functional.rrelu(-w, 0.1, 0.9, training=True),
    "bernoulli": torch.bernoulli,
    "attention": lambda w: nn.functional.scaled_dot_product_attention(w, w, w, dropout_p=0.5),
}


class Drawing(nn.Module):
    """A linear layer whose weight is scaled by a number of each run, and a normalization that could be folded."""

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.norm = nn.Parameter(torch.rand(4, 4)), nn.BatchNorm1d(4)
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(nn.functional.linear(x, self.draw(self.weight)))


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("prove", [True, False])
def test_a_draw_stays_a_draw(name: str, prove: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 4)
    model = Drawing(DRAWS[name]).eval()
    result = foldproof.fuse(torch.export.export(model, (x,)), (x,), prove=prove)
    assert {rewrite.rule for rewrite in result.rewrites} <= {"computed constant"}  # -w, before it is drawn from
    assert any("computed in the graph by" in declined.reason for declined in result.declined)
    first, second = (result.program.module()(x) for _ in range(2))
    assert not torch.equal(first, second)


def test_dropout_in_evaluation_is_no_draw() -> None:
    model = Drawing(lambda w: nn.functional.dropout(w, 0.5, training=False)).eval()
    result = foldproof.fuse(model, (torch.randn(3, 4),))
    assert len(result.rewrites) == 1


def test_draws_are_not_batched() -> None:
    """Two draws are not one of twice the size: the generator gives them in another order."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return pointwise(self.first(x)) * pointwise(self.second(x))

    made = foldproof.fuse(Two(), (torch.randn(3, 4),), passes=["batch_linears"], prove=False).program
    assert sum("pointwise" in str(node.target) for node in made.graph.nodes) == 2
