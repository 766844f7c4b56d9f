"""Affines that go where they may not, or are forgotten on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.fx import Node

from foldproof.fusion import plan
from foldproof.fusion.affine import Affine
from foldproof.fusion.affines import Match
from foldproof.fusion.examples import chain, functional
from foldproof.fusion.plan import Planner, _Queue
from foldproof.rewriting import editor
from foldproof.rewriting.editor import GraphEditor
from foldproof.rewriting.vectors import number
from mutants.mutant import (
    Mutant,
    Patch,
    around,
    decomposed,
    exported,
    flipped,
    mutant,
    nothing,
    patch,
    unscaled,
    unshifted,
)

_norm, _norm2 = partial(nn.BatchNorm1d, 6), partial(nn.BatchNorm2d, 6)
_conv = partial(nn.Conv2d, 3, 6, 3)
_linear, _reader = partial(nn.Linear, 3, 6), partial(nn.Linear, 6, 3)
_image = (2, 3, 7, 8)
_vector = partial(torch.randn, 6)

conv = exported(chain(_image, _conv, _norm2))
core_conv = decomposed(conv)
two_readers = exported(functional((_image,), lambda m, x: m.n(y := m.a(x)) + y, a=_conv, n=_norm2))
also_output = exported(functional((_image,), lambda m, x: (m.n(y := m.a(x)), y), a=_conv, n=_norm2))
core_also_output = decomposed(also_output)
half_read = exported(
    functional((_image,), lambda m, x: (y := m.a(x), m.n(y[:, :6]).relu()), a=partial(nn.Conv2d, 3, 9, 3), n=_norm2)
)
read_behind_a_view = exported(
    functional(((2, 5, 3),), lambda m, x: (m.n(y := m.a(x).flatten(0, 1)), y.tanh()), a=_linear, n=_norm)
)
sum_read = exported(
    functional(((4, 3),), lambda m, x: (m.n(y := m.a(x) + m.b(x)), y.tanh()), a=_linear, b=_linear, n=_norm)
)
term_read = exported(
    functional(((4, 3),), lambda m, x: (m.n((y := m.a(x)) + m.b(x)), y.tanh()), a=_linear, b=_linear, n=_norm)
)
shared = exported(functional(((4, 3),), lambda m, x: m.n((y := m.a(x)) + y.flip(1)), a=_linear, n=_norm))
in_line = exported(chain((4, 6), _norm, _reader))
two_readers_before = exported(functional(((4, 6),), lambda m, x: (m.a(y := m.n(x)), y.relu()), a=_reader, n=_norm))
output_before = exported(functional(((4, 6),), lambda m, x: (m.a(y := m.n(x)), y), a=_reader, n=_norm))
two_linears_before = exported(
    functional(((4, 6),), lambda m, x: (m.a(y := m.n(x)), m.b(y)), a=_reader, b=_reader, n=_norm)
)
moved_and_read = exported(
    functional(((2, 6, 5),), lambda m, x: (m.a(y := m.n(x).transpose(1, 2)), y.relu()), a=_reader, n=_norm)
)
meeting = exported(functional(((4, 6),), lambda m, x: m.a((y := x + m.k).flip(0) + y.flip(1)), a=_reader, k=_vector))
with_constant = exported(
    functional(
        ((2, 5, 3),),
        lambda m, x: m.n(torch.cat([m.k.expand(2, -1, -1), m.a(x)], 1).transpose(1, 2)),
        a=_linear,
        k=partial(torch.randn, 1, 1, 6),
        n=_norm,
    )
)
constant_last = exported(
    functional(
        ((2, 6),),
        lambda m, x: m.n(torch.cat([m.a(x), m.k])),
        a=partial(nn.Linear, 6, 6),
        k=partial(torch.randn, 2, 6),
        n=_norm,
    )
)
constant_added = exported(
    functional(
        ((2, 5, 3),), lambda m, x: m.n((m.a(x) + m.k).transpose(1, 2)), a=_linear, k=partial(torch.randn, 5, 6), n=_norm
    )
)
normalised_weight = exported(
    functional(
        (_image,),
        lambda m, x: nn.functional.conv2d(
            x, nn.functional.batch_norm(m.w.view(1, 6, 27), None, None, training=True).view(6, 3, 3, 3)
        ),
        w=partial(torch.randn, 6, 3, 3, 3),
    )
)
two_normalisations = exported(
    functional(
        (_image,), lambda m, x: m.n(m.a(x)) * m.o(m.a(x)), a=_conv, n=_norm2, o=partial(nn.BatchNorm2d, 6, eps=2)
    )
)
largest = exported(
    functional(
        (_image,), lambda m, x: nn.functional.max_pool2d(m.a(x), 2) * m.k, a=_conv, k=lambda: torch.rand(6, 1, 1) + 0.5
    )
)


def demands(wrong: Callable[[Any], Any]) -> Patch:
    """The affine that is asked of the producers is another one than that of the match."""
    return around(Planner, "plan_up", lambda original, self, match, side: original(self, wrong(match), side))


def carried(wrong: Callable[[Any], Any]) -> Patch:
    return around(Planner, "plan_down", lambda original, self, match: original(self, wrong(match)))


class OtherSite(Match):
    """A match whose affine is said to be another one."""

    def __init__(self, match: Match, wrong: Callable[[Affine], Affine]) -> None:
        super().__init__(match.steps)
        object.__setattr__(self, "_wrong", wrong)

    @property
    def affine(self) -> Affine:
        found: Affine = self._wrong(Match(self.steps).affine)  # type: ignore[attr-defined]
        return found


def said(wrong: Callable[[Affine], Affine]) -> Callable[[Match], Match]:
    return lambda match: OtherSite(match, wrong)


def first_reader(original: Any, self: Planner, node: Node) -> list[Node]:
    return original(self, node)[:1]  # type: ignore[no-any-return]


def only_linear_readers(original: Any, self: Planner, node: Node) -> list[Node]:
    return [reader for reader in original(self, node) if reader.op == "call_function" and "relu" not in reader.name]


def any_demand(self: Planner, plan: Any, node: Node, demanded: Any) -> Affine:
    return next(iter(demanded.values()))


def backwards(original: Any, self: _Queue, key: Any) -> None:
    original(self, lambda node: -key(node))


def edits(wrong: Callable[[list[Any]], list[Any]]) -> Patch:
    """Some of the changes are forgotten."""

    def planned(original: Any, self: Planner, match: Match) -> Any:
        found = original(self, match)
        found.edits = wrong(found.edits)
        return found

    return around(Planner, "plan", planned)


def constant_edits(wrong: Callable[[Affine], Affine]) -> Patch:
    return around(
        Planner,
        "_plan_constant",
        lambda original, self, node, affine, reader: original(self, node, wrong(affine), reader),
    )


def unchanged(original: Any, self: Planner, node: Node, affine: Affine, reader: Node) -> Any:
    edit = original(self, node, affine, reader)
    return replace(edit, install=nothing)


def first_draft(original: Any, self: GraphEditor, wanted: Any) -> Any:
    """Treat constants of equal names as one constant."""
    made = self.__dict__.setdefault("made", {})
    return made.setdefault(wanted.base, original(self, wanted))


def careless(original: Any, *arguments: Any) -> Any:
    return original(*arguments) * 1.01


def doubled(affine: Affine) -> Affine:
    return replace(affine, scale=number(2))


no_reader_guard = patch(Planner, "_join_demands", any_demand)

MUTANTS: dict[str, Mutant] = {
    # readers, on the way up
    "two readers": mutant(two_readers, no_reader_guard),
    "an output": mutant(also_output, no_reader_guard),
    "an output in core ATen": mutant(core_also_output, no_reader_guard),
    "half of it is read": mutant(half_read, no_reader_guard),
    "it is read behind a view": mutant(read_behind_a_view, no_reader_guard),
    "a sum is read": mutant(sum_read, no_reader_guard),
    "a term of a sum is read": mutant(term_read, no_reader_guard),
    "one reader is seen": mutant(two_readers, around(Planner, "_list_readers", first_reader)),
    "readers need different scales": mutant(shared, no_reader_guard),
    # readers, on the way down
    "a reader is forgotten": mutant(two_readers_before, around(Planner, "_list_readers", only_linear_readers)),
    "the output is forgotten": mutant(output_before, around(Planner, "_list_readers", only_linear_readers)),
    "the second reader is forgotten": mutant(two_linears_before, around(Planner, "_list_readers", first_reader)),
    "a reader of what is moved is forgotten": mutant(
        moved_and_read, around(Planner, "_list_readers", only_linear_readers)
    ),
    "in the wrong order": mutant(meeting, around(_Queue, "__init__", backwards)),
    # demands
    "the shift is not asked for": mutant(conv, demands(said(unshifted))),
    "the scale is not asked for": mutant(conv, demands(said(unscaled))),
    "asked for in reverse": mutant(conv, demands(said(flipped))),
    "asked for in reverse in core ATen": mutant(core_conv, demands(said(flipped))),
    "the shift is not carried": mutant(in_line, carried(said(unshifted))),
    "the scale is not carried": mutant(in_line, carried(said(unscaled))),
    "carried in reverse": mutant(in_line, carried(said(flipped))),
    "the first change only": mutant(two_linears_before, edits(lambda found: found[:1])),
    "the last change only": mutant(two_linears_before, edits(lambda found: found[1:])),
    "a change without its shift": mutant(
        conv, edits(lambda found: [replace(edit, wanted=edit.wanted[:1]) for edit in found])
    ),
    # constants among the operands
    "a constant is not shifted": mutant(with_constant, constant_edits(unshifted)),
    "a constant is not scaled": mutant(with_constant, constant_edits(unscaled)),
    "a constant in reverse": mutant(with_constant, constant_edits(flipped)),
    "an added constant is not scaled": mutant(constant_added, constant_edits(unscaled)),
    "a constant stays as it was": mutant(with_constant, around(Planner, "_plan_constant", unchanged)),
    "another operand is replaced": mutant(constant_last, patch(plan, "_find_places", lambda reader, node: {0})),
    "all operands are replaced": mutant(constant_last, patch(plan, "_find_places", lambda reader, node: {0, 1})),
    "a normalised weight is scaled": mutant(
        normalised_weight,
        around(
            Planner, "_plan_constant", lambda original, self, node, a, reader: original(self, node, doubled(a), reader)
        ),
    ),
    # constants that are not what was proved
    "constants are evaluated carelessly": mutant(conv, around(editor, "rounded", careless)),
    "constants of one name are one": mutant(two_normalisations, around(GraphEditor, "draft", first_draft)),
}
