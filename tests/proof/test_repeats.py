"""Layers that repeat: one proof for all, and none where one layer does not stand for the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.graph.repeats import find_repeats

N = 4
WIDTH = 6


class Layer(nn.Module):
    """A layer with some parameters and buffers, of which a step uses what it likes."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.scale = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.bias: Tensor
        self.place: Tensor
        self.register_buffer("bias", torch.rand(WIDTH))
        self.register_buffer("place", torch.tensor(index % 3))


Step = Callable[[Layer, Tensor, Tensor], Tensor]
"""A layer as a function of its own parameters, its input, and the input of the net."""


def block(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
    normal = h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-5)
    return h + layer.down(torch.tanh(layer.up(normal * layer.scale) * 0.5)) * layer.bias


def same_block(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
    normal = h * torch.rsqrt((h * h).sum(-1, keepdim=True) / WIDTH + 1e-5)
    up = torch.addmm(layer.up.bias, layer.scale * normal, layer.up.weight.t())
    return layer.bias * torch.addmm(layer.down.bias, torch.tanh(up * 0.5), layer.down.weight.t()) + h


class Net(nn.Module):
    def __init__(self, layers: nn.ModuleList, steps: list[Step], behind: Callable[[Tensor], Any] = torch.sin) -> None:
        super().__init__()
        self.layers, self.steps, self.behind = layers, steps, behind

    def forward(self, x: Tensor) -> Any:
        h = x.cos()
        for step, layer in zip(self.steps, self.layers):
            h = step(layer, h, x)
        return self.behind(h)


def layers(n: int = N) -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList([Layer(i) for i in range(n)])


def exported(net: nn.Module) -> torch.export.ExportedProgram:
    return torch.export.export(net, (torch.randn(3, WIDTH),))


def proved(before: nn.Module, after: nn.Module) -> foldproof.Verdict:
    return foldproof.prove(exported(before), exported(after), (torch.randn(3, WIDTH),))


def is_told(verdict: foldproof.Verdict) -> bool:
    return any("layers are the same function" in note for note in verdict.notes)


def judged(first: Step, second: Step, change: Callable[[nn.ModuleList], Any] | None = None) -> foldproof.Verdict:
    shared = layers()
    if change is not None:
        change(shared)
    return proved(Net(shared, [first] * N), Net(shared, [second] * N))


def test_one_layer_is_proved_for_all() -> None:
    verdict = judged(block, same_block)
    assert verdict.kind is Kind.PROVED and is_told(verdict)
    assert verdict.claim is not None and verdict.claim.all_parameters
    assert len(verdict.claim.parameters) == 6 * N
    assert any(note.startswith(f"{N} layers") for note in verdict.notes)


def test_it_takes_no_more_functions_for_more_layers() -> None:
    few, many = (proved(Net(s := layers(n), [block] * n), Net(s, [same_block] * n)).proof for n in (3, 24))
    assert few is not None and many is not None
    assert few.evaluations == many.evaluations and few.degree == many.degree


@pytest.mark.parametrize("at", range(N))
def test_one_other_layer_is_refuted(at: int) -> None:
    shared = layers()

    def wrong(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return same_block(layer, h * 1.01, x)

    steps = [wrong if i == at else same_block for i in range(N)]
    verdict = proved(Net(shared, [block] * N), Net(shared, steps))
    assert verdict.kind is Kind.REFUTED and not is_told(verdict)


def test_all_other_layers_are_refuted() -> None:
    assert judged(block, lambda layer, h, x: same_block(layer, h, x) + layer.bias / 64).kind is Kind.REFUTED


def test_another_end_is_refuted() -> None:
    shared = layers()
    verdict = proved(Net(shared, [block] * N), Net(shared, [same_block] * N, torch.tanh))
    assert verdict.kind is Kind.REFUTED


def test_swapped_layers_are_refuted() -> None:
    shared = layers()
    order = nn.ModuleList([shared[i] for i in (0, 2, 1, 3)])
    verdict = proved(Net(shared, [block] * N), Net(order, [same_block] * N))
    assert verdict.kind is Kind.REFUTED and not is_told(verdict)


def test_leaves_that_are_tied_in_the_first_layer_alone() -> None:
    def tie(shared: nn.ModuleList) -> None:
        shared[0].down.weight = shared[0].up.weight

    def other(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return h + torch.tanh(h @ layer.up.weight) @ layer.up.weight * 0.5 * layer.scale

    def one(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return h + torch.tanh(h @ layer.up.weight) @ layer.down.weight * 0.5 * layer.scale

    assert judged(one, other, tie).kind is Kind.REFUTED


def test_leaves_that_are_tied_in_later_layers_alone() -> None:
    def tie(shared: nn.ModuleList) -> None:
        for layer in shared[1:]:
            layer.down.weight = layer.up.weight

    assert judged(block, same_block, tie).kind is Kind.PROVED


def test_values_from_before_that_are_bound_to_the_first_layer() -> None:
    """The first layer alone divides by its own scale."""
    shared = layers()

    class Bound(Net):
        def forward(self, x: Tensor) -> Any:
            own = self.layers[0].scale * 1.0
            h = x.cos()
            for step, layer in zip(self.steps, self.layers):
                h = step(layer, h, own)
            return h

    def quotient(layer: Layer, h: Tensor, own: Tensor) -> Tensor:
        return block(layer, h / own * layer.scale, own)

    def nothing(layer: Layer, h: Tensor, own: Tensor) -> Tensor:
        return block(layer, h * own / own, own)

    verdict = proved(Bound(shared, [quotient] * N), Bound(shared, [nothing] * N))
    assert verdict.kind is Kind.REFUTED


def test_whole_numbers_of_the_first_layer_alone() -> None:
    def by_buffer(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return block(layer, h + layer.bias[layer.place], x)

    def by_number(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return block(layer, h + layer.bias[torch.zeros((), dtype=torch.int64)], x)

    assert judged(by_buffer, by_number).kind is Kind.REFUTED


def test_infinities_of_later_layers_alone() -> None:
    def mask(shared: nn.ModuleList) -> None:
        shared[1].bias[2] = -torch.inf

    def masked(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return block(layer, h, x).nan_to_num(0.0, 0.0, 0.0) + torch.exp(layer.bias)

    def limited(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return block(layer, h, x).nan_to_num(0.0, 0.0, 0.0) + torch.exp(layer.bias.clamp(min=-3))

    assert judged(masked, limited, mask).kind is not Kind.PROVED


def test_values_that_later_layers_leave_undefined() -> None:
    """The first layer is given cosines, and all others logarithms, which are a nan for some inputs: relu keeps it."""

    class Adding(Net):
        def forward(self, x: Tensor) -> Any:
            h = total = x.cos()
            for step, layer in zip(self.steps, self.layers):
                total = total + step(layer, h, x)
                h = (h * layer.scale).log() + layer.bias
            return total

    def chosen(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return torch.where(h > 0, h, 0.0)

    shared = layers()
    found = proved(Adding(shared, [lambda layer, h, x: h.relu()] * N), Adding(shared, [chosen] * N))
    assert found.kind is not Kind.PROVED or found.follows_choices, str(found)


def test_values_that_later_layers_leave_infinite_for_some_parameters() -> None:
    """A logarithm of a scale is -inf for 0: the scores of the next layer may be -inf, and those of the first not."""

    def other(layer: Layer, h: Tensor) -> Tensor:
        return layer.down(torch.tanh(layer.up(h) * 0.5)) * layer.bias + layer.scale.log()

    def guarded(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        first = other(layer, h)  # parts are cut behind it
        scores = h @ layer.up.weight.t()
        return first + torch.where(scores == -torch.inf, 0.0, scores)

    def plain(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return other(layer, h) + h @ layer.up.weight.t()

    found = judged(guarded, plain)
    assert found.kind is not Kind.PROVED or found.follows_choices, str(found)


def choosing(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
    return torch.where(layer.bias.sum() > 0, block(layer, h, x), h)


def test_choices_of_the_first_layer_alone() -> None:
    def negative(shared: nn.ModuleList) -> None:
        shared[2].bias.neg_()

    assert judged(choosing, block, negative).kind is Kind.REFUTED


def test_choices_that_all_layers_make() -> None:
    def same(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return torch.where(layer.bias.sum() > 0, same_block(layer, h, x), h)

    verdict = judged(choosing, same)
    assert verdict.kind is Kind.PROVED


def test_the_largest_of_each_layer_is_hidden() -> None:
    def largest(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return block(layer, h, x) + (h + layer.bias).amax(-1, keepdim=True)

    def first(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        place = torch.zeros((3, 1), dtype=torch.int64)
        return block(layer, h, x) + (h + layer.bias).gather(-1, place)

    assert judged(largest, first).kind is Kind.REFUTED


def test_a_result_in_between_is_an_output() -> None:
    shared = layers()

    class Returning(Net):
        def forward(self, x: Tensor) -> Any:
            h, kept = x.cos(), []
            for step, layer in zip(self.steps, self.layers):
                h = step(layer, h, x)
                kept.append(h)
            return kept

    verdict = proved(Returning(shared, [block] * N), Returning(shared, [same_block] * N))
    assert verdict.kind is Kind.PROVED and not is_told(verdict)
    last = [block] * (N - 1) + [lambda layer, h, x: block(layer, h, x) * 1.01]
    assert proved(Returning(shared, [block] * N), Returning(shared, last)).kind is Kind.REFUTED


def test_two_values_pass_on() -> None:
    class Two(Net):
        def forward(self, x: Tensor) -> Any:
            h, g = x.cos(), x.sin()
            for step, layer in zip(self.steps, self.layers):
                h, g = step(layer, h, g), step(layer, g, h)
            return h - g

    shared = layers()
    assert is_told(proved(Two(shared, [block] * N), Two(shared, [same_block] * N)))

    class Crossed(Net):
        def forward(self, x: Tensor) -> Any:
            h, g = x.cos(), x.sin()
            for step, layer in zip(self.steps, self.layers):
                g, h = step(layer, h, g), step(layer, g, h)
            return h - g

    def odd(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return block(layer, h, x)

    three = [odd] * 3
    assert proved(Two(shared, three), Crossed(shared, three)).kind is Kind.REFUTED


def test_random_numbers_are_of_each_layer() -> None:
    def dropped(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return nn.functional.dropout(block(layer, h, x), 0.5, training=True)

    assert not is_told(judged(dropped, dropped))


def test_writes_are_of_each_layer() -> None:
    def counting(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        layer.bias.add_(1)
        return block(layer, h, x)

    assert not is_told(judged(counting, counting))


def test_parts_of_a_graph() -> None:
    [ways] = find_repeats(exported(Net(layers(), [block] * N)).graph)
    for found in ways:
        assert len({len(part) for part in found.parts}) == 1 and 2 <= len(found.parts) <= N
        assert len(found.carried) == len(found.given) == 1
        targets = [[node.target for node in part] for part in found.parts]
        assert all(one == targets[0] for one in targets)
    assert max(len(found.parts) for found in ways) == N


def test_a_graph_without_repeats() -> None:
    assert find_repeats(exported(Net(layers(1), [block])).graph) == []


# Members of classes that an attack found.


def test_whole_numbers_that_pass_on() -> None:
    """The first layer multiplies 2 by 2, and others do not square."""

    class Loop(Net):
        def forward(self, x: Tensor) -> Any:
            h, i = x.cos(), torch.full((1,), 2)
            for step, layer in zip(self.steps, self.layers):
                h, i = step(layer, h, i), step(None, i, i)  # type: ignore[arg-type]
            return h

    def by(number: Callable[[Tensor], Tensor]) -> Step:
        def step(layer: Layer | None, h: Tensor, i: Tensor) -> Tensor:
            return number(h) % 15 if layer is None else block(layer, h, i) * layer.bias.index_select(0, i % WIDTH)

        return step

    shared = layers()
    verdict = proved(Loop(shared, [by(lambda i: i * 2)] * N), Loop(shared, [by(lambda i: i * i)] * N))
    assert verdict.kind is not Kind.PROVED or not is_told(verdict)


@pytest.mark.parametrize(
    "choose",
    [
        lambda h: nn.functional.max_pool1d(h[None], WIDTH)[0],
        lambda h: torch.msort(h)[-1:],
        lambda h: torch.linalg.vector_norm(h, torch.inf, -1, keepdim=True),
    ],
)
def test_operators_that_choose_under_another_name(choose: Callable[[Tensor], Tensor]) -> None:
    def chosen(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return block(layer, h, x) + choose(h + layer.bias)

    def same(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return same_block(layer, h, x) + choose(h + layer.bias)

    verdict = judged(chosen, same)
    assert verdict.kind is Kind.PROVED
    assert verdict.claim is not None and (not is_told(verdict) or not verdict.claim.choices)


def test_constants_with_other_strides() -> None:
    """Equal content, which `as_strided` reads in another order in later layers."""

    def turned(shared: nn.ModuleList) -> None:
        square = torch.randn(WIDTH, WIDTH)
        for i, layer in enumerate(shared):
            layer.square = square.clone() if i < 2 else square.t().contiguous().t()

    def strided(layer: Any, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(h @ layer.square.as_strided((WIDTH, WIDTH), (WIDTH, 1)) * layer.scale)

    def plain(layer: Any, h: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(h @ layer.square * layer.scale)

    assert judged(strided, plain, turned).kind is Kind.REFUTED


def test_an_end_that_reads_a_layer() -> None:
    shared = layers()

    class End(Net):
        def forward(self, x: Tensor) -> Any:
            h = super().forward(x)
            return h * self.layers[self.at].scale  # type: ignore[operator, index]

    def ending(at: int) -> nn.Module:
        net = End(shared, [block] * N)
        net.at = at  # type: ignore[assignment]
        return net

    assert proved(ending(0), ending(N - 1)).kind is Kind.REFUTED
    assert proved(ending(1), ending(1)).kind is Kind.PROVED


def test_a_place_that_an_output_shows() -> None:
    """The second program returns the place that the first one finds behind one layer."""
    shared = layers()
    found = int(block(shared[0], torch.zeros(1, WIDTH).cos(), torch.zeros(1)).argmax())

    class Ending(Net):
        def forward(self, x: Tensor) -> Any:
            h = super().forward(x)
            return h, (h.argmax(-1) if self.finds else h.argmax(-1) * 0 + found)  # type: ignore[union-attr]

    def ending(finds: bool) -> nn.Module:
        net = Ending(shared, [block] * N)
        net.finds = finds  # type: ignore[assignment]
        return net

    assert proved(ending(True), ending(False)).kind is Kind.REFUTED
    verdict = proved(ending(True), ending(True))
    assert verdict.kind is Kind.PROVED and not is_told(verdict)


def test_memory_that_nobody_wrote_is_not_shared() -> None:
    def step(layer: Layer, h: Tensor, x: Tensor) -> Tensor:
        return block(layer, h, x) + torch.empty(WIDTH) - torch.empty(WIDTH)

    shared = layers()
    first, second = (torch.fx.symbolic_trace(Net(shared, [one] * N)) for one in (step, block))
    assert foldproof.prove(first, second, (torch.randn(3, WIDTH),)).kind is not Kind.PROVED
