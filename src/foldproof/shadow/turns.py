"""Cosines and sines of fractions of a full turn, the coefficients of Fourier transforms.

cos(2π·j/n) is one number for each reduced fraction j/n, whatever transform it belongs to: equal angles, and angles that
differ by a symmetry of the cosine, have equal numbers up to the sign. Those that are 0, ±1/2 or ±1 are these. There are
two readings of the others:

* of a name, like that of the cosine of any number: nothing else is assumed. It holds modulo any prime.
* as algebraic numbers, where a proof needs their relations, as that of a transform and its inverse does. A sample point
  with `Semantics.turn` = N draws primes p = ±1 modulo N only. Modulo these, c = cos(2π/N) exists: the numbers w of
  w^N = 1 lie in the field, or in its extension of degree 2 where they have norm 1, and (w + 1/w)/2 lies in the field in
  either case. The Chebyshev polynomial T_j gives cos(2π·j/N) = T_j(c), and N is a multiple of 4, so that sines are
  cosines. For a w of order N this is a homomorphism of rings, from the sums of products of such cosines: different
  numbers stay different but for primes that divide their norm. It takes the place of their size, and is at most φ(N)/2
  times as long (`SamplePoint`).

A square root of n is in that ring if 4n divides N: √n is half the sum of cos(2π·k²/4n) over k < 4n (Gauss).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from foldproof.field import Size, chebyshev
from foldproof.shadow.residue import Residue, apply_uninterpreted, embed_fraction, embed_number
from foldproof.shadow.sample import SamplePoint
from foldproof.thresholds import MAX_CONSTANT_ROUNDINGS

NAME = "cosine of a turn"
NAMES = (NAME, "rsqrt of a length")
"""Uninterpreted functions of numbers that stand for coefficients."""

_SHORTEST = 2
"""Smallest number of elements of a table; a single number is read by itself."""

_KNOWN = {Fraction(0): Fraction(1), Fraction(1, 6): Fraction(1, 2), Fraction(1, 4): Fraction(0)}
"""The cosines of fractions of the first quarter that are fractions themselves (Niven's theorem: no others are)."""


def reflected(turn: Fraction) -> tuple[int, Fraction]:
    """Return the sign of the cosine of a fraction of a turn, and the fraction of the first quarter with its size."""
    turn = turn % 1
    turn = min(turn, 1 - turn)
    return (1, turn) if turn <= Fraction(1, 4) else (-1, Fraction(1, 2) - turn)


def cosines(point: SamplePoint, turns: Sequence[Fraction]) -> Residue:
    """Return the residues of the cosines of fractions of a turn, a vector."""
    found = [reflected(turn) for turn in turns]
    each = {turn: i for i, turn in enumerate(dict.fromkeys(turn for _, turn in found))}
    table = _table(point, list(each))
    signs = torch.tensor([float(sign) for sign, _ in found], dtype=torch.float64)
    at = torch.tensor([each[turn] for _, turn in found])
    return Residue(point, tuple(part[at] * signs for part in table.parts), table.size)


def sines(point: SamplePoint, turns: Sequence[Fraction]) -> Residue:
    """Return the residues of the sines of fractions of a turn, a vector."""
    return cosines(point, [Fraction(1, 4) - turn for turn in turns])


def _table(point: SamplePoint, turns: Sequence[Fraction]) -> Residue:
    """Return the residues of the cosines of different fractions of the first quarter."""
    whole = point.semantics.turn
    numbers = [embed_fraction(point, _KNOWN.get(turn, turn)) for turn in turns]
    parts = [torch.stack([n.parts[i] for n in numbers]) for i in range(len(point.fields))]
    size = functools.reduce(
        Size.join, (n.size for turn, n in zip(turns, numbers) if turn in _KNOWN), Size.constant(0, 0)
    )
    named = torch.tensor([turn not in _KNOWN and not (whole and (turn * whole).denominator == 1) for turn in turns])
    algebraic = [i for i, turn in enumerate(turns) if turn not in _KNOWN and not named[i]]
    if algebraic:
        size = size.join(Size.constant(-1, 0.0))  # twice such a cosine is an algebraic integer
        for part, field in zip(parts, point.fields):
            of = chebyshev(field.p, whole)
            values = [float(of[int(turns[i] * whole)]) for i in algebraic]
            part[algebraic] = field.reduce(torch.tensor(values, dtype=torch.float64))
    if bool(named.any()):
        size = size.join(Size.variable())
        names = point.evaluate(NAME, [parts], lambda x: torch.cos(2 * math.pi * x), False)
        parts = [torch.where(named, name, part) for name, part in zip(names, parts)]
    return Residue(point, tuple(parts), size)


def inverse_root(point: SamplePoint, n: int) -> Residue:
    """Return 1/√n, of a whole number, in the reading of the sample point."""
    root, whole = math.isqrt(n), point.semantics.turn
    if root * root == n:
        return embed_fraction(point, Fraction(1, root))
    if whole and whole % (4 * n) == 0:
        squares = [Fraction(k * k % (4 * n), 4 * n) for k in range(4 * n)]
        total = cosines(point, squares).sum()
        inverse = total * embed_fraction(point, Fraction(1, 2 * n))
        return Residue(
            point, inverse.parts, Size.constant(0, math.log2(n) / 2) * embed_fraction(point, Fraction(1, n)).size
        )
    if point.constants is not None:
        return embed_number(point, n**-0.5)
    point.note_numbers([n**-0.5])
    return apply_uninterpreted(NAMES[1], [embed_fraction(point, Fraction(n))], torch.rsqrt, nonzero=True)


def read_table(point: SamplePoint, x: Tensor) -> Residue | None:
    """Return the residues of a table of rounded cosines, all times 1, 1/n or 1/√n; None for any other constant.

    The reading and its bound are recorded.
    """
    wide = x.detach().double().flatten()
    if point.constants is None or wide.numel() < _SHORTEST:
        return None
    for n in sorted(point.semantics.lengths):
        scales: tuple[tuple[float, Residue | None], ...] = (1.0, None), (1 / n, embed_fraction(point, Fraction(1, n)))
        for scale, factor in (*scales, (n**-0.5, inverse_root(point, n))):
            # Angles of up to n turns are rounded before their cosines; neighbours near 1 are this far apart.
            rounding, apart = torch.finfo(x.dtype).eps, (math.pi / (2 * n)) ** 2 / 2
            reach = min((MAX_CONSTANT_ROUNDINGS + 2 * math.pi * n) * rounding, apart / 4) * scale
            if float(wide.abs().max()) > scale + reach:
                continue
            steps = torch.acos((wide / scale).clamp(-1, 1)) * (4 * n / (2 * math.pi))
            at = steps.round()
            error = (torch.cos(at * (2 * math.pi / (4 * n))) * scale - wide).abs()
            if bool((error <= reach).all()):
                told = f"a constant of shape {tuple(x.shape)} is read as cosines of fractions of a turn"
                bound = float(error.max()) + scale * torch.finfo(torch.float64).eps
                point.constants.changes[told] = max(bound, point.constants.changes.get(told, 0.0))
                table = cosines(point, [Fraction(j, 4 * n) for j in range(4 * n)])
                table = table if factor is None else table * factor
                return table.map(lambda part, at=at: part[at.long() % (4 * n)].reshape(x.shape))
    return None
