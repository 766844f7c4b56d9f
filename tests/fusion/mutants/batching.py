"""Operators that are joined wrongly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.fusion.batching import members, rule, whole
from foldproof.fusion.examples import functional
from foldproof.fusion.result import Speed
from mutants.mutant import Mutant, Patch, Program, around, decomposed, exported, patch

always = patch(rule, "require_faster", lambda before, after, inputs, *, bitwise: Speed(2, 1, "no machine"))
"""Skip the measurement, whose result depends on the machine."""

_six = partial(nn.Linear, 8, 6)
_matrix = partial(torch.randn, 8, 6)
_conv = partial(nn.Conv2d, 3, 6, 3)


def _pair(function: Callable[..., Any], shape: tuple[int, ...] = (4, 8), **parts: Any) -> Program:
    return exported(functional((shape,), function, **parts))


pair = _pair(lambda m, x: m.a(x).relu() - m.b(x), a=_six, b=_six)
core_pair = decomposed(pair)
in_3d = _pair(lambda m, x: m.a(x).relu() - m.b(x), (2, 6, 8), a=_six, b=_six)
core_in_3d = decomposed(in_3d)
otherwise_scaled = _pair(lambda m, x: (m.a(x) * 2).sum(0) - (m.b(x) * 3).tanh(), a=_six, b=_six)
towers = exported(functional(((4, 8), (4, 8)), lambda m, x, y: (a := m.a(x), a.relu() - m.b(y))[1], a=_six, b=_six))
core_towers = decomposed(towers)
square_towers = exported(
    functional(
        ((6, 6), (6, 6)),
        lambda m, x, y: (a := m.a(x), a.relu() - m.b(y))[1],
        a=partial(nn.Linear, 6, 6),
        b=partial(nn.Linear, 6, 6),
    )
)
softened = _pair(lambda m, x: m.a(x).softmax(-1).sum(0) - m.b(x).softmax(-1).tanh(), a=_six, b=_six)
three = _pair(lambda m, x: m.a(x).relu() - m.b(x) * m.c(x), a=_six, b=_six, c=_six)
uneven = _pair(lambda m, x: m.a(x).relu().sum() - m.b(x), a=partial(nn.Linear, 8, 4), b=_six)
biased_first = _pair(lambda m, x: m.a(x).relu() - m.b(x), a=_six, b=partial(_six, bias=False))
biased_last = _pair(lambda m, x: m.a(x).relu() - m.b(x), a=partial(_six, bias=False), b=_six)
square = _pair(lambda m, x: m.a(x).relu() - m.b(x), (6, 6), a=partial(nn.Linear, 6, 6), b=partial(nn.Linear, 6, 6))
matmul = _pair(lambda m, x: (x @ m.v).relu() - x @ m.w, v=_matrix, w=_matrix)
products = _pair(
    lambda m, x: torch.addmm(m.b, x, m.v, alpha=2).relu() - torch.addmm(m.b, x, m.w, alpha=3),
    v=_matrix,
    w=_matrix,
    b=partial(torch.randn, 6),
)
scaled = _pair(
    lambda m, x: torch.addmm(m.b, x, m.v, alpha=2, beta=3).relu() - torch.addmm(m.b, x, m.w, alpha=2, beta=3),
    v=_matrix,
    w=_matrix,
    b=partial(torch.randn, 6),
)
convolutions = _pair(lambda m, x: m.a(x).relu() - m.b(x), (2, 3, 7, 8), a=_conv, b=_conv)
strides = _pair(
    lambda m, x: m.a(x).relu() - m.b(x),
    (2, 3, 7, 8),
    a=partial(_conv, padding=1),
    b=partial(_conv, padding=2, dilation=2),
)
groups = _pair(
    lambda m, x: m.a(x).relu() - m.b(x),
    (2, 4, 7, 8),
    a=partial(nn.Conv2d, 4, 6, 3, groups=2),
    b=partial(nn.Conv2d, 4, 6, 3, groups=2),
)
two_inputs = exported(functional(((4, 8), (4, 8)), lambda m, x, y: m.a(x).relu() - m.b(y), a=_six, b=_six))
two_views = _pair(lambda m, x: m.a(x.view(8, 8)).relu() - m.b(x.t()), (8, 8), a=_six, b=_six)


def joined(wrong: Callable[..., Tensor]) -> Patch:
    """Join weights in a wrong way."""
    return around(whole, "concatenate", lambda original, axis, *weights: wrong(axis, weights))


def places(wrong: Callable[[list[tuple[int, int, int]]], list[tuple[int, int, int]]]) -> Patch:
    """Take wrong parts of the whole."""

    def broken(original: Any, self: Any, group: Any) -> None:
        original(self, group)
        self.places = wrong(self.places)

    return around(whole.Concatenated, "__init__", broken)


def biases(wrong: Callable[[list[Any]], list[Any]]) -> Patch:
    return around(whole, "joined", lambda original, vectors, counts, neutral: original(wrong(vectors), counts, neutral))


def one_off(found: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    [first, (axis, start, end)] = found
    return [first, (axis, start - 1, end - 1)]


def kinds(wrong: Any) -> Patch:
    """Treat different operators as equal."""
    return around(
        members, "read_member", lambda original, node: (m := original(node)) and replace(m, kind=wrong(m.kind))
    )


def factorless(original: Any, node: Any, given: dict[str, Any]) -> Any:
    found = original(node, given)
    return replace(found, called=lambda *operands: (*found.called(*operands)[:2], {}))


def grouped(original: Any, node: Any, given: dict[str, Any]) -> Any:
    found = original(node, given | {"groups": 1})
    return found and replace(found, called=lambda x, w, b: (node.target, (x, w, b, *node.args[3:]), {}))


MUTANTS: dict[str, Mutant] = {
    name: Mutant(program, (always, *patches), ("batch_linears",))
    for name, (program, *patches) in {
        # weights
        "weights in another order": (pair, joined(lambda axis, ws: torch.cat(ws[::-1], axis))),
        "weights in another order in core ATen": (core_pair, joined(lambda axis, ws: torch.cat(ws[::-1], axis))),
        "weights in another order in 3-D": (in_3d, joined(lambda axis, ws: torch.cat(ws[::-1], axis))),
        "weights in another order in core ATen in 3-D": (
            core_in_3d,
            joined(lambda axis, ws: torch.cat(ws[::-1], axis)),
        ),
        "two of three exchanged": (three, joined(lambda axis, ws: torch.cat([ws[0], ws[2], ws[1]], axis))),
        "the first for all": (three, joined(lambda axis, ws: torch.cat([ws[0]] * 3, axis))),
        "rows between rows": (pair, joined(lambda axis, ws: torch.stack(ws, axis + 1).flatten(0, 1))),
        "a weight transposed": (square, joined(lambda axis, ws: torch.cat([ws[0].t(), ws[1]], axis))),
        "of a matmul, in another order": (matmul, joined(lambda axis, ws: torch.cat(ws[::-1], axis))),
        "of convolutions, in another order": (convolutions, joined(lambda axis, ws: torch.cat(ws[::-1], axis))),
        "a mirrored kernel": (convolutions, joined(lambda axis, ws: torch.cat([ws[0], ws[1].flip(-1)], axis))),
        "a weight negated": (pair, joined(lambda axis, ws: torch.cat([ws[0], -ws[1]], axis))),
        # parts
        "parts exchanged": (pair, places(lambda found: found[::-1])),
        "parts exchanged in 3-D": (core_in_3d, places(lambda found: found[::-1])),
        "one off": (pair, places(one_off)),
        "one off, of uneven sizes": (uneven, places(one_off)),
        "the first part for both": (pair, places(lambda found: [found[0]] * 2)),
        # biases
        "biases in another order": (pair, biases(lambda found: found[::-1])),
        "biases in another order in core ATen": (core_pair, biases(lambda found: found[::-1])),
        "the last bias lost": (pair, biases(lambda found: [found[0], None])),
        "the first bias lost": (pair, biases(lambda found: [None, found[1]])),
        "all biases lost": (pair, biases(lambda found: [None, None])),
        "no bias where the last has none": (biased_first, biases(lambda found: [None, None])),
        "no bias where the first has none": (biased_last, biases(lambda found: [None, None])),
        "a bias of the other": (biased_last, biases(lambda found: [found[1], found[1]])),
        # common pointwise operators
        "another factor": (
            otherwise_scaled,
            patch(rule, "_find_tails", lambda group, constants: [[m.node, next(iter(m.node.users))] for m in group]),
        ),
        "a softmax of the whole": (softened, patch(rule, "_is_pointwise", lambda node: node.op == "call_function")),
        # stacked
        "stacked in another order": (towers, around(whole, "stack", lambda original, *ws: original(*ws[::-1]))),
        "stacked in another order in core ATen": (
            core_towers,
            around(whole, "stack", lambda original, *ws: original(*ws[::-1])),
        ),
        "matrices transposed": (
            square_towers,
            around(whole, "stack", lambda original, *ws: original(*ws).transpose(1, 2)),
        ),
        "a layer of the other": (
            towers,
            around(whole.Stacked, "part", lambda original, self, whole, i: original(self, whole, 1 - i)),
        ),
        "inputs exchanged": (
            towers,
            around(whole.Stacked, "apply", lambda original, self, f, xs, *a: original(self, f, xs[::-1], *a)),
        ),
        "biases of the other": (towers, biases(lambda found: found[::-1])),
        "biases lost": (towers, biases(lambda found: [None, None])),
        # guards
        "another alpha": (products, kinds(lambda kind: "addmm")),
        "alpha and beta lost": (
            scaled,
            patch(members, "_KNOWN", members._KNOWN | {"addmm": partial(factorless, members._read_product)}),
        ),
        "another geometry": (strides, kinds(lambda kind: "convolution")),
        "groups": (groups, around(members, "_read_convolution", grouped)),
        "two inputs": (two_inputs, patch(members, "_make_key", lambda x: 0)),
        "two views": (two_views, patch(members, "_make_key", lambda x: 0)),
    }.items()
}
