"""Elementary functions by their identities: the algebraic reading of a program.

By default, an elementary function is uninterpreted, so that exp(x - m)/Σexp(x - m) and exp(x)/Σexp(x) differ. In the
algebraic reading, functions are expressions of fewer uninterpreted ones, by identities of the real numbers:

* exp(a·x + b·y) = exp(x)^a·exp(y)^b for halves a and b, exp(log x) = x; sigmoid, tanh, sinh, cosh, expm1 and exp2 are
  expressions of exp
* log(exp x) = x, log √x = log(x)/2, log(1/x) = -log x, log(exp x + exp y) = (x + y)/2 + an even function of x - y
* sin and cos of a·x + b·y by the sums of angles, from t = tan(x/4)
* |x| = √(x²), max, min, relu, clamp and choices by comparison are piecewise functions; see `foldproof.shadow.piecewise`
* odd functions are x·h(x²), even ones h(x²)
* division is exact by values that are positive, and by all others in programs of rational functions

The reading of a value uses the operators that made it (`foldproof.shadow.known`), and each step is an identity, so that
programs that agree in this reading are equal wherever both are defined. An identity that extends the domain of a
function, exp(log x) = x or (√x)² = x, is used only if x has no negative elements for any inputs. What is left are
single points: the poles of tan(x/4), and a divisor of 0 that cancels. A verdict tells them.

A rational function that is not 0 everywhere is 0 at single points only. relu(x) is 0 for all x < 0, √(x²) - x for all
x > 0, and log(x²) - 2·log x wherever it is defined, though their residues are not 0. Divisions by such values are
uninterpreted, because d/d is nan there.

Exact division raises degrees, so that this reading is a second attempt.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from foldproof.digest import digest
from foldproof.shadow import piecewise
from foldproof.shadow.known import Term, facts, is_nonnegative, is_positive, linear_of, plain, term_of
from foldproof.shadow.residue import (
    Residue,
    apply_uninterpreted,
    embed_fraction,
    embed_number,
    log_of_number,
    pointwise,
)

_MAX_HALVES = 16
"""Largest multiple of x/2 whose exponential or sine is read as a power."""


@pointwise
def exp(x: Residue) -> Residue:
    """Return exp(x), a product over the terms of x."""
    linear = linear_of(x)
    factors = [_exp_of(term) for term in linear.terms]
    if linear.number == 0:
        factors.append(embed_number(x.point, 1))
    elif linear.constant:
        factors.append(_uninterpreted("exp", embed_fraction(x.point, linear.constant), torch.exp))
    out = factors[0]
    for factor in factors[1:]:
        out = out * factor
    out = out.spread_over(x)
    return out.map(lambda part: part.clone()).knowing(exponent=term_of(x), nonnegative=True, positive=True)


def _exp_of(term: Term) -> Residue:
    logarithm = facts(term.atom).logarithm
    whole = term.factor.denominator == 1 and abs(term.factor) <= _MAX_HALVES
    if whole and logarithm is not None and is_nonnegative(logarithm.atom):
        return _power(logarithm.atom, int(term.factor))
    halves, x = _halves(term)
    half = _uninterpreted("exp_half", x, lambda t: (t / 2).exp()).knowing(nonnegative=True, positive=True)
    return _power(half, halves)


def _halves(term: Term) -> tuple[int, Residue]:
    """Return n and x with term = n·x/2, where -x has the opposite n and the same x.

    x is a fraction of the term's value: the first one so far of which the term is a whole number of halves.
    """
    value: Residue = term.atom
    if _is_few(2 * term.factor):
        return int(2 * term.factor), value
    units = value.point.units.setdefault(digest(value.parts), [])
    unit = next((one for one in units if _is_few(2 * term.factor / one)), None)
    if unit is None:
        unit = abs(term.factor)
        units.append(unit)
    return int(2 * term.factor / unit), value * embed_fraction(value.point, unit)


def _is_few(halves: Fraction) -> bool:
    return halves.denominator == 1 and abs(halves) <= _MAX_HALVES


def _power(x: Residue, n: int) -> Residue:
    return x.power(n) if n >= 0 else x.power(-n).inverse()


@pointwise
def log(x: Residue) -> Residue:
    """Return log(x), for powers and exponentials by their exponents."""
    known = facts(plain(x))
    if known.exponent is not None:
        of: Residue = known.exponent.atom
        return of.spread_over(x)
    if known.power is not None:
        base, exponent = known.power
        return log(base.atom) * embed_fraction(x.point, exponent)
    if known.root is not None:
        return log(known.root.atom.absolute()) * embed_number(x.point, 2)
    if known.factors:
        one, other = known.factors
        return log(one.atom) + log(other.atom)
    of_sum = _log_of_sum(x)
    if of_sum is not None:
        return of_sum
    out = _uninterpreted("log", x, torch.log).knowing(logarithm=term_of(x))
    return out.defined_if(not x.undefined and (not x.data or is_positive(x)))


def _log_of_sum(x: Residue) -> Residue | None:
    """Return log(exp(a) + exp(b)) = (a + b)/2 + log(2·cosh((a - b)/2)), an even function of a - b; None for others."""
    linear = linear_of(x)
    if any(term.factor != 1 for term in linear.terms) or len(linear.terms) + linear.constant != 2:
        return None
    exponents = [facts(term.atom).exponent for term in linear.terms]
    if linear.constant not in (0, 1) or not exponents or None in exponents:
        return None
    of = [term.atom for term in exponents if term is not None]
    a, b = (*of, embed_number(x.point, 0))[:2]
    apart = a - b
    even = _uninterpreted("log_2_cosh_half", apart * apart, lambda square: (2 * (square.sqrt() / 2).cosh()).log())
    out: Residue = (a + b) * embed_number(x.point, 0.5) + even
    return out.spread_over(x)


@pointwise
def logaddexp(x: Residue, y: Residue) -> Residue:
    """Return log(exp(x) + exp(y))."""
    return log(exp(x) + exp(y))


@pointwise
def hypot(x: Residue, y: Residue) -> Residue:
    """Return √(x² + y²)."""
    return (x * x + y * y).sqrt()


@pointwise
def remainder(x: Residue, y: Residue) -> Residue:
    """Return x - y·floor(x/y)."""
    return x - y * floor(x / y)


@pointwise
def fmod(x: Residue, y: Residue) -> Residue:
    """Return x - y·trunc(x/y)."""
    return x - y * NORMAL_FORMS["trunc"](x / y)


@pointwise
def log1p(x: Residue) -> Residue:
    """Return log(1 + x)."""
    return log(x + embed_number(x.point, 1))


@pointwise
def expm1(x: Residue) -> Residue:
    """Return exp(x) - 1."""
    return exp(x) - embed_number(x.point, 1)


@pointwise
def log_sigmoid(x: Residue) -> Residue:
    """Return -log(1 + exp(-x))."""
    return -log1p(exp(-x))


@pointwise
def exp2(x: Residue) -> Residue:
    """Return exp(x·log 2)."""
    return exp(x * log_of_number(x.point, 2))


@pointwise
def log2(x: Residue) -> Residue:
    """Return log(x)/log(2)."""
    return log(x) / log_of_number(x.point, 2)


@pointwise
def log10(x: Residue) -> Residue:
    """Return log(x)/log(10)."""
    return log(x) / log_of_number(x.point, 10)


@pointwise
def tanh(x: Residue) -> Residue:
    """Return 1 - 2/(1 + exp(2x))."""
    one, two = embed_number(x.point, 1), embed_number(x.point, 2)
    return one - two / (one + exp(x * two))


@pointwise
def sinh(x: Residue) -> Residue:
    """Return (exp(x) - exp(-x))/2."""
    return (exp(x) - exp(-x)) * embed_number(x.point, 0.5)


@pointwise
def cosh(x: Residue) -> Residue:
    """Return (exp(x) + exp(-x))/2."""
    return (exp(x) + exp(-x)) * embed_number(x.point, 0.5)


@pointwise
def cos(x: Residue) -> Residue:
    """Return the real part of exp(i·x)."""
    return _turn(x)[0]


@pointwise
def sin(x: Residue) -> Residue:
    """Return the imaginary part of exp(i·x)."""
    return _turn(x)[1]


@pointwise
def tan(x: Residue) -> Residue:
    """Return sin(x)/cos(x); the cosine is 0 at single points, as no number of a program is exactly π/2."""
    real, imaginary = _turn(x)
    return imaginary * real.exact_inverse()


def _turn(x: Residue) -> tuple[Residue, Residue]:
    """Return cos(x) and sin(x), by the sums of the angles that x is made of."""
    linear = linear_of(x)
    turns = [_turn_of(term) for term in linear.terms]
    if linear.constant or not turns:
        turns.append(_turn_of(term_of(embed_fraction(x.point, linear.constant))))
    real, imaginary = turns[0]
    for one in turns[1:]:
        real, imaginary = _times((real, imaginary), one)
    return real.spread_over(x), imaginary.spread_over(x)


def _turn_of(term: Term) -> tuple[Residue, Residue]:
    halves, x = _halves(term)
    x.point.partial = True
    t = _odd("tan_quarter", lambda u: (u / 4).tan())(x)
    one = embed_number(x.point, 1)
    below = (one + t * t).inverse()
    half = (one - t * t) * below, (t + t) * below
    out = half if halves else (one.spread_over(x), x * embed_number(x.point, 0))
    for _ in range(abs(halves) - 1):
        out = _times(out, half)
    return out if halves >= 0 else (out[0], -out[1])


def _times(a: tuple[Residue, Residue], b: tuple[Residue, Residue]) -> tuple[Residue, Residue]:
    return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


@pointwise
def atan2(y: Residue, x: Residue) -> Residue:
    """Return the angle of x + i·y, which is atan(y/x) for positive x."""
    if is_positive(x):
        return NORMAL_FORMS["atan"](y / x)
    return apply_uninterpreted("atan2", [y, x], torch.atan2)


@pointwise
def erfc(x: Residue) -> Residue:
    """Return 1 - erf(x)."""
    return embed_number(x.point, 1) - _odd("erf", torch.erf)(x)


@pointwise
def ceil(x: Residue) -> Residue:
    """Return -floor(-x)."""
    return -floor(-x)


@pointwise
def floor(x: Residue) -> Residue:
    """Return floor(x), uninterpreted, as a part of other functions."""
    return _uninterpreted("floor", x, torch.floor)


def _odd(name: str, function: Callable[[Tensor], Tensor]) -> Callable[[Residue], Residue]:
    """Return x·h(x²) for an odd function of x."""

    def over_root(square: Tensor) -> Tensor:
        root = square.sqrt()
        return torch.where(square == 0, 0.0, function(root) / root)

    return pointwise(lambda x: x * _uninterpreted(name, x * x, over_root))


def _uninterpreted(name: str, x: Residue, real: Callable[[Tensor], Tensor]) -> Residue:
    return apply_uninterpreted(name, [x], real)


NORMAL_FORMS: dict[str, Callable[[Residue], Residue]] = {
    "ceil": ceil,
    "cos": cos,
    "cosh": cosh,
    "erfc": erfc,
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "floor": floor,
    "log": log,
    "log10": log10,
    "log1p": log1p,
    "log2": log2,
    "log_sigmoid_forward": log_sigmoid,
    "sign": piecewise.sign,
    "sin": sin,
    "sinh": sinh,
    "tan": tan,
    "tanh": tanh,
    **{name: _odd(name, getattr(torch, name)) for name in ("asinh", "atan", "erf", "round", "trunc")},
    **{name: _odd(name, getattr(torch, name)) for name in ("asin", "atanh", "erfinv")},
}
"""Functions of one value without attributes, by name."""

NORMAL_FORMS_OF_TWO: dict[str, Callable[[Residue, Residue], Residue]] = {
    "atan2": atan2,
    "fmod": fmod,
    "hypot": hypot,
    "logaddexp": logaddexp,
    "remainder": remainder,
}
"""Functions of two values, by name."""
