"""Piecewise functions: values that comparisons choose, in the algebraic reading of a program.

relu(x), where(x > 0, x, 0) and x·(x > 0) are one function. In this reading, a value that depends on a comparison is a
list of pieces over the line of one *base*: for relu, 0 below x = 0 and x above it. Operators act on the pieces, so that
relu of relu has the pieces of relu. A comparison is a piecewise function with the pieces 0 and 1.

The residue
-----------
A function with pieces f₀, …, fₙ and breaks t₁, …, tₙ, with the values vᵢ there, is the expression

    (f₀ + fₙ)/2 + Σ sᵢ·(fᵢ - fᵢ₋₁)/2 + Σ zᵢ·(vᵢ - (fᵢ₋₁(tᵢ) + fᵢ(tᵢ))/2)

where sᵢ is the sign of x - tᵢ, and zᵢ is 1 where x = tᵢ and 0 elsewhere. The expression is the function for every real
x, breaks included, so that x > 0 and x ≥ 0 stay apart. The sign of e is e·h(e²) with an uninterpreted h, and z is an
uninterpreted function of e²; both are the same for -e, as identities of the real numbers demand. Where a function is
continuous, the last sum is 0, whatever side a comparison gives its break to.

Why it is sound
---------------
Each step replaces a real function by an equal one. Pieces of both programs that are not equal give expressions that
differ for some h and z. fᵢ(tᵢ) is the piece with x replaced by tᵢ, as far as it is known how the piece was computed
from x; what is not known stays as it is, which is the same value at x = tᵢ.

A comparison with nan is false, and so is the opposite one: log(x) > 0 and not log(x) <= 0 differ for x < 0. Values that
may be nan for some inputs (`Residue.undefined`) are therefore compared by value, and not by their pieces. Values that
depend on parameters alone are taken to be defined.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.known import Term, facts, is_nonnegative, is_positive, linear_of, number_of, same, term_of
from foldproof.shadow.undecided import Undecided

Residue = Any
"""A `foldproof.shadow.residue.Residue`, which imports this module."""

_MAX_BREAKS = 6
"""Largest number of breaks; a function with more is a value of its own."""


@dataclass(frozen=True)
class Break:
    """The place ``at`` which a function passes to its next piece, with its value there, and those of both pieces."""

    at: Fraction
    left: Term
    value: Term
    right: Term

    def flipped(self) -> Break:
        """Return the break over the line of the negative base."""
        return Break(-self.at, self.right, self.value, self.left)


@dataclass(frozen=True)
class Piecewise:
    """A function of ``base`` with one piece more than breaks."""

    base: Term
    pieces: tuple[Term, ...]
    breaks: tuple[Break, ...]

    @property
    def places(self) -> list[Fraction]:
        return [one.at for one in self.breaks]

    @property
    def terms(self) -> list[Term]:
        """All values that it names."""
        return [self.base, *self.pieces, *(t for b in self.breaks for t in (b.left, b.value, b.right))]

    def over(self, base: Residue) -> Piecewise | None:
        """Return the function over the line of an equal, or opposite, base; None for another base."""
        own = self.base.atom
        if same(own, base) or own.equals(base):
            return self
        if own.shape == base.shape and (-_bare(own)).equals(base):
            flipped = tuple(one.flipped() for one in reversed(self.breaks))
            return Piecewise(term_of(base), tuple(reversed(self.pieces)), flipped)
        return None


def is_continuous(function: Piecewise) -> bool:
    """Return True if both pieces have the value of the function at each break, as far as it is known."""
    return all(_equal(b.left.atom, b.value.atom) and _equal(b.value.atom, b.right.atom) for b in function.breaks)


def sign(d: Residue) -> Residue:
    """Return the sign of d: -1, 0 or 1."""
    number = number_of(d)
    if number is not None:
        return d.constant((number > 0) - (number < 0)).spread_over(d)
    if is_positive(d):
        return d.constant(1).spread_over(d)
    found: Piecewise | None = facts(d).piecewise
    by_piece = None if found is None else _sign_by_piece(d, found)
    return _sign_of_whole(d) if by_piece is None else by_piece


def compare(d: Residue, accept: Callable[[int], bool]) -> Residue:
    """Return 1 where the sign of d is accepted, else 0."""
    return pointwise(lambda s: s.constant(int(accept(_whole(s)))), sign(d))


def choose(d: Residue, above: Residue, below: Residue, at_zero: Residue) -> Residue:
    """Return ``above`` where d > 0, ``below`` where d < 0, and ``at_zero`` where d = 0."""

    def pick(s: Residue, *choices: Residue) -> Residue:
        return choices[_whole(s)]

    return pointwise(pick, sign(d), at_zero, above, below)


def _whole(x: Residue) -> int:
    number = number_of(x)
    assert number is not None, "a sign has numbers as pieces"
    return int(number)


def where(condition: Residue, x: Residue, y: Residue) -> Residue:
    """Return x where ``condition`` is 1, y where it is 0."""
    extreme = _extreme(condition, x, y)
    if extreme is not None:
        return extreme

    def pick(c: Residue, x: Residue, y: Residue) -> Residue:
        number = number_of(c)
        if number is not None:
            return x if number else y
        return y + (x - y) * c if facts(c).piecewise is None else where(c, x, y)

    return pointwise(pick, condition, x, y)


def _extreme(condition: Residue, x: Residue, y: Residue) -> Residue | None:
    """Return the choice as the larger or smaller one of x and y, if the condition compares them; else None."""
    base, rising, at = _line_of(x - y)
    found: Piecewise | None = facts(condition).piecewise
    found = None if found is None or number_of(x - y) is not None else found.over(base)
    if found is None or found.places != [at]:
        return None
    above = number_of(found.pieces[1].atom)
    if {above, number_of(found.pieces[0].atom)} != {0, 1}:
        return None
    larger: bool = bool(above) == rising
    out: Residue = x.maximum(y) if larger else x.minimum(y)
    return out


def pointwise(function: Callable[..., Residue], *operands: Residue) -> Residue:
    """Return a pointwise function of the operands, by pieces if they have some, in their common shape."""
    out = distribute(function, *operands)
    if out is None and any(facts(x).piecewise for x in operands[1:]):
        out = distribute(function, operands[0], *map(_bare, operands[1:]))  # too many breaks
    return (function(*operands) if out is None else out).spread_over(*operands)


def distribute(function: Callable[..., Residue], *operands: Residue) -> Residue | None:
    """Return a pointwise function of the operands by pieces; None if they have no pieces, or too many."""
    found = [facts(x).piecewise for x in operands]
    base = next((p.base.atom for p in found if p is not None), None)
    if base is None:
        return None
    over = [x if p is None else p.over(base) for x, p in zip(operands, found)]
    if any(p is None for p in over):  # the pieces of one would be multiplied by those of the other
        return None
    places = sorted({t for p in over if isinstance(p, Piecewise) for t in p.places})
    if len(places) > _MAX_BREAKS:
        return None
    starts: list[Fraction | None] = [None, *places]
    pieces = [function(*(_piece_after(x, start) for x in over)) for start in starts]
    breaks = []
    for t in places:
        sides = [_at(x, base, t) for x in over]
        values = [tuple(side[i] for side in sides) for i in range(3)]
        made = {tuple(map(id, v)): function(*v) for v in values}
        breaks.append((t, *(made[tuple(map(id, v))] for v in values)))
    return _assembled(base, pieces, breaks, operands)


def _piece_after(x: Any, start: Fraction | None) -> Residue:
    """Return the piece of ``x`` that begins at ``start``, or before all breaks."""
    if not isinstance(x, Piecewise):
        return x
    return x.pieces[0 if start is None else bisect_right(x.places, start)].atom


def _at(x: Any, base: Residue, t: Fraction) -> tuple[Residue, Residue, Residue]:
    """Return the left piece of ``x`` at base = t, its value, and its right piece."""
    if isinstance(x, Piecewise):
        i = bisect_left(x.places, t)
        if i < len(x.breaks) and x.breaks[i].at == t:
            one = x.breaks[i]
            return one.left.atom, one.value.atom, one.right.atom
        x = x.pieces[i].atom
    there = _replaced(x, base, t)
    return there, there, there


def _replaced(x: Residue, base: Residue, t: Fraction) -> Residue:
    """Return ``x`` with the base replaced by a number, as far as it is known how it depends on it."""
    linear = linear_of(base)
    first = linear.terms[0] if linear.terms else term_of(base)
    if same(first.atom, base):
        return _with(x, base, base.constant(t), {})
    rest = base.constant(t - linear.constant)
    for term in linear.terms[1:]:
        rest = rest - term.atom * base.constant(term.factor)
    return _with(x, first.atom, rest * base.constant(1 / first.factor), {})


def _with(x: Residue, atom: Residue, value: Residue, done: dict[int, Residue]) -> Residue:
    """Return ``x`` with ``value`` in place of ``atom``; ``done`` has the results for parts of it."""
    if same(x, atom):
        return value
    if id(x) not in done:
        done[id(x)] = _rebuilt(x, atom, value, done)
    return done[id(x)]


def _rebuilt(x: Residue, atom: Residue, value: Residue, done: dict[int, Residue]) -> Residue:
    """Return ``x`` computed anew from the parts that contain ``atom``, as far as they are known."""
    linear = facts(x).linear
    if linear is not None:
        terms = [(term, _with(term.atom, atom, value, done)) for term in linear.terms]
        if all(one is term.atom for term, one in terms):
            return x
        out = x.constant(linear.constant)
        for term, one in terms:
            out = out + one * x.constant(term.factor)
        return out
    made = x.origin
    if made is None or not made.holds_for(x):
        return x
    operands = [_with(term.atom, atom, value, done) for term in made.operands]
    if all(one is term.atom for one, term in zip(operands, made.operands)):
        return x
    try:
        return made.function(*operands)
    except Undecided:  # it has no value there, as 1/x has none at 0
        return x


def _assembled(base: Residue, pieces: list[Residue], breaks: list[Any], operands: Sequence[Residue]) -> Residue:
    """Return the residue of a piecewise function, without breaks that are none."""
    for i in reversed(range(len(breaks))):
        if all(_equal(pieces[i], one) for one in (pieces[i + 1], *breaks[i][1:])):
            pieces[i] = _joined(pieces[i], pieces[i + 1])
            del pieces[i + 1], breaks[i]
    if not breaks:
        return pieces[0].spread_over(*operands)
    half = base.constant(Fraction(1, 2))
    out = (_bare(pieces[0]) + _bare(pieces[-1])) * half
    for i, (t, left, value, right) in enumerate(breaks):
        e = _bare(base) - base.constant(t)
        out = out + _sign_of(e) * (_bare(pieces[i + 1]) - _bare(pieces[i])) * half
        if not (_equal(left, value) and _equal(value, right)):
            jump = _bare(value) - (_bare(left) + _bare(right)) * half
            out = out + (e * e).apply("is_zero", lambda square: (square == 0).double()) * jump
    out = out.spread_over(*operands)
    least = [_least_sign(p, base, low, high) for p, low, high in _intervals(pieces, [t for t, *_ in breaks])]
    pieces = [_positive(p) if sign == 1 else p for p, sign in zip(pieces, least)]
    least += [_least_sign(value, base, None, None) for _, _, value, _ in breaks]
    made = tuple(Break(t, *map(term_of, values)) for t, *values in breaks)
    function = Piecewise(term_of(base), tuple(map(term_of, pieces)), made)
    known = [n for n in least if n is not None]
    nonnegative = len(known) == len(least) and min(known) >= 0
    return out.knowing(piecewise=function, nonnegative=nonnegative, positive=nonnegative and min(known) > 0)


def _joined(left: Residue, right: Residue) -> Residue:
    """Return two equal pieces as one, with the facts that both have: others may hold on one side alone."""
    if left is right or facts(left) == facts(right):
        return left
    number = number_of(left)
    if number is not None:
        return left.constant(number).spread_over(left, right)
    out = left.view_as(left.parts)
    nonnegative = is_nonnegative(left) and is_nonnegative(right)
    return out.knowing(nonnegative=nonnegative, positive=is_positive(left) and is_positive(right))


def _positive(piece: Residue) -> Residue:
    """Return a piece with the knowledge that it is positive where it is used."""
    if is_positive(piece):
        return piece
    out = piece.view_as(piece.parts)
    out.known = replace(facts(piece), nonnegative=True, positive=True, writes=piece.cell.writes)
    return out


def _intervals(pieces: Sequence[Any], places: Sequence[Fraction]) -> list[tuple[Any, Fraction | None, Fraction | None]]:
    return list(zip(pieces, [None, *places], [*places, None]))


def _least_sign(piece: Residue, base: Residue, low: Fraction | None, high: Fraction | None) -> int | None:
    """Return 1 for a piece that is positive between the limits, 0 if it may be 0; None if it may be negative."""
    if is_positive(piece):
        return 1
    line = _line(piece, base)
    if line is not None and not (low is None and high is None):
        root, inside = _root_and_point(line, low, high)
        if root is None and line[0] * inside + line[1] > 0:
            return 1
    return 0 if is_nonnegative(piece) else None


def _line(piece: Residue, base: Residue) -> tuple[Fraction, Fraction] | None:
    """Return a and b with piece = a·base + b; None if it is no such function."""
    own, line = linear_of(piece), linear_of(base)
    if not own.terms:
        return Fraction(0), own.constant
    if len(own.terms) != len(line.terms):
        return None
    ratios = set()
    for term in own.terms:
        match = next((other for other in line.terms if same(term.atom, other.atom)), None)
        if match is None:
            return None
        ratios.add(term.factor / match.factor)
    if len(ratios) != 1:
        return None
    ratio = ratios.pop()
    return ratio, own.constant - ratio * line.constant


def _root_and_point(
    line: tuple[Fraction, Fraction], low: Fraction | None, high: Fraction | None
) -> tuple[Fraction | None, Fraction]:
    """Return the root of a line between two limits, if there is one, and a point there on its right-hand side."""
    slope, constant = line
    root = -constant / slope if slope else None
    if root is not None and ((low is not None and root <= low) or (high is not None and root >= high)):
        root = None
    start = root if root is not None else low
    if start is None:
        return root, Fraction(0) if high is None else high - 1
    return root, start + 1 if high is None else (start + high) / 2


def _sign_by_piece(d: Residue, function: Piecewise) -> Residue | None:
    """Return the sign of a piecewise function, if that of each piece is known."""
    base, places = function.base.atom, function.places
    signs: list[int] = []
    breaks: list[Any] = []
    for i, (piece, low, high) in enumerate(_intervals(function.pieces, places)):
        if i:
            value = number_of(sign(function.breaks[i - 1].value.atom))
            if value is None:
                return None
            breaks.append((low, value))
        if is_positive(piece.atom):
            signs.append(1)
            continue
        line = _line(piece.atom, base)
        if line is None:
            return None
        root, point = _root_and_point(line, low, high)
        right = line[0] * point + line[1]
        if root is not None:
            signs.append(-1 if right > 0 else 1)
            breaks.append((root, 0))
        signs.append((right > 0) - (right < 0))
    if len(breaks) > _MAX_BREAKS:
        return None
    return _steps(base, signs, breaks, d)


def _sign_of_whole(d: Residue) -> Residue:
    """Return the sign of a value with the base that is made of its linear form."""
    base, rising, at = _line_of(d)
    below = 1 if is_nonnegative(d) else -1
    signs = [below, 1] if rising else [1, below]
    return _steps(base, signs, [(at, 0)], d)


def _line_of(d: Residue) -> tuple[Residue, bool, Fraction]:
    """Return the base that is made of the linear form of d, whether d rises with it, and the place where d is 0."""
    linear = linear_of(d)
    if len(linear.terms) == 1:
        (term,) = linear.terms
        return term.atom, term.factor > 0, -linear.constant / term.factor
    base = d - d.constant(linear.constant) if linear.constant else d
    content = linear.content
    return base if content == 1 else base * d.constant(1 / content), True, -linear.constant / content


def _steps(base: Residue, signs: Sequence[int], breaks: Sequence[tuple[Fraction, Any]], like: Residue) -> Residue:
    """Return a function whose pieces are numbers."""
    pieces = [base.constant(n) for n in signs]
    made = [(t, pieces[i], base.constant(value), pieces[i + 1]) for i, (t, value) in enumerate(breaks)]
    return _assembled(base, pieces, made, [like])


def _sign_of(e: Residue) -> Residue:
    """Return the sign of e, an odd function: e·h(e²)."""

    def over_root(square: Tensor) -> Tensor:
        return torch.where(square == 0, 0.0, square.rsqrt())

    return e * (e * e).apply("sign", over_root)


def _equal(a: Residue, b: Residue) -> bool:
    one, other = number_of(a), number_of(b)
    if one is not None and other is not None:
        return one == other
    return a is b or bool(a.spread_over(b).equals(b.spread_over(a)))


def _bare(x: Residue) -> Residue:
    """Return the value without its pieces."""
    known = facts(x)
    if known.piecewise is None:
        return x
    out = x.view_as(x.parts)
    out.known = replace(known, piecewise=None)
    return out
