"""Channels that are cut out wrongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import export

from foldproof.fusion import dead_channels as rule
from foldproof.fusion import examples
from foldproof.fusion.examples import functional
from mutants.mutant import Mutant, Patch, Program, around, decomposed, nothing, patch


def _example(name: str) -> Program:
    [one] = [e for e in (*examples.dead_fires, *examples.dead_declines) if e.name == name]
    return _exported(one.make)


def _exported(make: Callable[[], Any]) -> Program:
    made: list[Any] = []

    def program() -> Any:
        if not made:
            model, inputs = make()
            made.append((export(model, inputs), inputs))
        return made[0]

    return program


def _softened() -> Any:
    model, inputs = functional(
        ((2, 6, 7, 8),),
        lambda m, x: m.b(m.a(x).softmax(-1)),
        a=lambda: nn.Conv2d(6, 6, 1),
        b=lambda: nn.Conv2d(6, 6, 1),
    )()
    with torch.no_grad():
        model.a.weight[[1, 4]] = 0
    return model, inputs


numbers = _example("numbers other than 0")
core_numbers = decomposed(numbers)
without_biases = _example("without biases")
linears = _example("linears")
core_linears = decomposed(linears)
limits = _example("limits on both sides")
flattened = _example("pooled and flattened")
averaged = _example("averaged")
depthwise = _example("several channels of each one")
joined = _example("joined with others")
readers = _example("two readers")
groups = _example("groups")
padded = _example("zeros are padded beside another number")
padded_average = _example("an average that counts its padding")
softened = _exported(_softened)


def rows(wrong: Callable[[Tensor], Tensor]) -> Patch:
    """Other rows are kept."""
    return around(rule, "take_rows", lambda original, x, at: wrong(original(x, at)))


def columns(wrong: Callable[[Tensor], Tensor]) -> Patch:
    """Other columns are kept, or add to the bias."""
    return around(rule, "take_inputs", lambda original, *a: wrong(original(*a)))


def added(wrong: Callable[[Tensor], Tensor]) -> Patch:
    """The numbers add something else to the bias."""
    return around(rule, "convolve_constant", lambda original, *a: wrong(original(*a)))


def held(wrong: Callable[[Tensor], Tensor]) -> Patch:
    """The channels are taken for other numbers."""
    return around(rule, "_biases", lambda original, *a: wrong(original(*a)))


def dead(wrong: Callable[[Tensor], Tensor]) -> Patch:
    """Other channels are taken for dead."""
    return around(rule, "find_dead", lambda original, *a: wrong(original(*a)))


def one_more(found: Tensor) -> Tensor:
    return found | (torch.arange(len(found)) == 2)


def shifted(original: Any, reader: Any, read: Any) -> Any:
    found = original(reader, read)
    return found and replace(found, places=tuple(place - 1 for place in found.places))


unchanged = patch(rule, "_through_pointwise", lambda reader, read: next(iter(read.values())))
"""Functions of each element leave the numbers as they are."""
anything = patch(rule._Walk, "_require_zeros", nothing)
"""Numbers other than 0 go where zeros are padded."""

MUTANTS: dict[str, Mutant] = {
    name: Mutant(program, patches, ("dead_channels",))
    for name, (program, *patches) in {
        # which channels
        "one that is not dead": (numbers, dead(one_more)),
        "one that is not dead, in core ATen": (core_numbers, dead(one_more)),
        "one that is not dead, of linears": (linears, dead(one_more)),
        "the next ones": (numbers, dead(lambda found: found.roll(1))),
        "the first ones of each group": (groups, dead(lambda found: torch.arange(6) % 3 == 0)),
        # what stays
        "rows backwards": (numbers, rows(lambda x: x.flip(0))),
        "rows backwards, without biases": (without_biases, rows(lambda x: x.flip(0))),
        "rows backwards, of linears": (linears, rows(lambda x: x.flip(0))),
        "rows backwards, in core ATen": (core_linears, rows(lambda x: x.flip(0))),
        "rows backwards, of a depthwise convolution": (depthwise, rows(lambda x: x.flip(0))),
        "columns backwards": (numbers, columns(lambda x: x.flip(1))),
        "columns backwards, in core ATen": (core_numbers, columns(lambda x: x.flip(1))),
        "columns backwards, of linears": (linears, columns(lambda x: x.flip(1))),
        "columns backwards, of two readers": (readers, columns(lambda x: x.flip(1))),
        "columns of the other group": (groups, columns(lambda x: x.roll(3, 0))),
        "columns of the next place": (flattened, columns(lambda x: x.roll(1, 1))),
        # what is added
        "nothing is added": (numbers, added(torch.zeros_like)),
        "nothing is added, of linears": (linears, added(torch.zeros_like)),
        "nothing is added, in core ATen": (core_linears, added(torch.zeros_like)),
        "added twice": (numbers, added(lambda x: x * 2)),
        "subtracted": (limits, added(torch.neg)),
        "added to other channels": (readers, added(lambda x: x.flip(0))),
        "added to the channels of the other group": (groups, added(lambda x: x.roll(3))),
        "what a depthwise convolution makes of it is left out": (depthwise, held(torch.zeros_like)),
        # the numbers
        "numbers of other channels": (numbers, held(lambda x: x.flip(0))),
        "negative numbers": (linears, held(torch.neg)),
        "zeros": (averaged, held(torch.zeros_like)),
        "numbers before the rectifier": (numbers, unchanged),
        "numbers before the rectifier, in core ATen": (core_numbers, unchanged),
        "numbers before a function of them": (linears, unchanged),
        "numbers beyond the limits": (limits, unchanged),
        # the way
        "zeros are padded beside them": (padded, anything),
        "zeros are averaged with them": (padded_average, anything),
        "joined at the place before": (joined, around(rule, "_through_joining", shifted)),
        "shown at the place before": (flattened, around(rule, "_through_views", shifted)),
        "a softmax is taken for a function of each element": (softened, patch(rule, "is_pointwise", lambda _: True)),
    }.items()
}  # fmt: skip
