"""Claims: the inputs and parameters that a verdict holds for, as a value.

A claim is made from the record of varied and held values in a proof, a search or a comparison, so that it cannot
promise more than was covered. Claims are compared as values, and only `Claim.__str__` puts them into words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class Scope(str, Enum):
    """The points at which two programs were compared, the strongest first."""

    IDENTITY = "identity"
    """No point: the two programs are the same text."""
    ALL = "all"
    """A random point over a finite field, which stands for all values of the varied inputs and parameters."""
    TRIED = "tried"
    """Points in floating point."""
    POINT = "point"
    """The point of the counterexample alone."""


class Role(str, Enum):
    """The role of a value in a program."""

    INPUT = "input"
    PARAMETER = "parameter"
    """Parameters, buffers and constants."""


class Why(str, Enum):
    """The reason for holding a value."""

    CHOSEN = "these values"
    """The programs are equal at these parameter values, and not known to be equal at others."""
    INTEGERS = "integers"
    BOOLEANS = "booleans"
    INFINITE = "infinite elements"
    PLAIN = "no tensor"
    OBJECT = "an object"
    """An object that may hold tensors or arrays of its own."""
    CONSTANT = "a constant"
    OBSERVED = "observed"
    """The scale, zero point or extremes of an observer or a fake quantization."""
    ATTRIBUTE = "set by a call, of which two in a row were compared"
    """A Python attribute of a module."""
    TABLE = "not from the checkpoint"
    """A buffer that a program computes by itself, such as a table of rotary angles."""
    UNSET = "not set by the conversion"
    """A parameter of a port that keeps its value."""
    UNREGISTERED = "not registered"
    """A tensor of a program that is neither a parameter nor a buffer."""


@dataclass(frozen=True)
class Held:
    """A value that was the same at all points of comparison."""

    name: str
    role: Role
    why: Why


@dataclass(frozen=True)
class Claim:
    """The inputs, parameters and conditions for which a verdict holds.

    Attributes:
        scope: the points at which the programs were compared.
        inputs: names of the inputs that were varied.
        parameters: names of the parameters and buffers that were varied.
        held: the values that were held.
        derived: parameters of the second program that were computed from the first one's, up to rounding.
        choices: operators with choices by value (the place of a maximum, an index, a rounding to integers): the claim
            holds where both programs make the same choices as at the points of comparison.
        uncovered: operators with an outcome that never occurred in runs on many inputs.
        differs_elsewhere: True if the programs differed at other parameters.
        local_bounds: True if bounds of the approximation steps hold for these parameter values only, or were measured
            on the inputs tried.
        points: the number of points, if the scope is TRIED.
        shapes: the shapes of the inputs, one string for each sample of them.
    """

    scope: Scope
    inputs: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    held: tuple[Held, ...] = ()
    derived: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    uncovered: tuple[str, ...] = ()
    differs_elsewhere: bool = False
    local_bounds: bool = False
    points: int = 0
    shapes: tuple[str, ...] = ()

    @property
    def all_inputs(self) -> bool:
        """True if no tensor among the inputs was held."""
        return self.scope in _EXACT and not any(h.role is Role.INPUT and h.why is not Why.PLAIN for h in self.held)

    @property
    def all_parameters(self) -> bool:
        """True if no parameter was held that could have been varied."""
        return self.scope in _EXACT and not any(h.why is Why.CHOSEN for h in self.held)

    @property
    def is_general(self) -> bool:
        """True if the claim holds for all inputs and all parameters, for any choices by value."""
        limited = self.choices or self.uncovered or self.local_bounds or self.differs_elsewhere
        limited = limited or any(h.why is not Why.PLAIN for h in self.held)
        return self.all_inputs and self.all_parameters and not limited

    def meet(self, other: Claim) -> Claim:
        """Return the weaker of two claims: it holds for two programs if each claim holds for one part of them."""
        held = _distinct((*self.held, *other.held))
        names = {h.name for h in held}
        return Claim(
            max(self.scope, other.scope, key=list(Scope).index),
            tuple(n for n in _distinct((*self.inputs, *other.inputs)) if n not in names),
            tuple(n for n in _distinct((*self.parameters, *other.parameters)) if n not in names),
            held,
            _distinct((*self.derived, *other.derived)),
            _distinct((*self.choices, *other.choices)),
            _distinct((*self.uncovered, *other.uncovered)),
            self.differs_elsewhere or other.differs_elsewhere,
            self.local_bounds or other.local_bounds,
            min((c.points for c in (self, other) if c.scope is Scope.TRIED), default=0),
            _distinct((*self.shapes, *other.shapes)),
        )

    def with_parameters_held(self) -> Claim:
        """Return the claim for these parameter values only."""
        names = self.parameters or ("the parameters",)  # a claim of identity names none
        held = tuple(Held(name, Role.PARAMETER, Why.CHOSEN) for name in names)
        return replace(self, parameters=(), held=_distinct((*self.held, *held)), derived=())

    def to_dict(self) -> dict[str, Any]:
        """Return the claim as plain JSON values, with its words as ``"text"``."""
        held = [{"name": h.name, "role": h.role.value, "why": h.why.value} for h in self.held]
        out: dict[str, Any] = {"scope": self.scope.value, "text": str(self), "is_general": self.is_general}
        for name in ("inputs", "parameters", "derived", "choices", "uncovered", "shapes"):
            out[name] = list(getattr(self, name))
        flags = {"differs_elsewhere": self.differs_elsewhere}
        return out | flags | {"held": held, "local_bounds": self.local_bounds, "points": self.points}

    def __str__(self) -> str:
        if self.scope is Scope.POINT:
            return "the counterexample below"
        if self.scope is Scope.TRIED:
            return self._tried()
        parts = [self._subject()]
        if self.derived:
            parts.append("the second program's new parameters are those expressions of them, up to rounding")
        if self.local_bounds:
            parts.append("the bounds are for these parameter values")
        parts += self._unseen()
        told = _told([h for h in self.held if h.why is not Why.CHOSEN])
        if told:
            parts.append(f"held at their values: {told}")
        return "; ".join(parts)

    def _tried(self) -> str:
        words = (
            f"{self.points} inputs{' of these sizes' * (len(self.shapes) < 2)} tried"
            if self.points > 1
            else "the given inputs"
        )
        if not self.parameters:
            words += ", for these parameter values"
        parts = [words, *["at other parameters the programs differ"] * self.differs_elsewhere, *self._unseen()]
        return "; ".join(parts)

    def _unseen(self) -> list[str]:
        return [f"some outcomes of {', '.join(self.uncovered)} were never seen"] if self.uncovered else []

    def _subject(self) -> str:
        held = [h for h in self.held if h.role is Role.INPUT and h.why is not Why.PLAIN]
        inputs = "all inputs" if not held else "all other inputs" if self.inputs else "the given inputs"
        if not self.all_parameters:
            words = f"{inputs}, for these parameter values"
        elif self.parameters or self.scope is Scope.IDENTITY:
            words = f"{inputs} and all parameters"
        else:
            words = inputs
        return words + SAME_CHOICES * bool(self.choices)


_EXACT = (Scope.IDENTITY, Scope.ALL)

SAME_CHOICES = ", where they make the same choices"

IDENTITY = Claim(Scope.IDENTITY)
"""The claim of two programs with the same text, the neutral element of `meet`."""


def meet(claims: Iterable[Claim]) -> Claim:
    """Return the weakest of ``claims``; `IDENTITY` for none."""
    weakest = IDENTITY
    for claim in claims:
        weakest = weakest.meet(claim)
    return weakest


_NAMED = 3
"""Largest number of held values of one kind that are named; the rest is counted."""


def _told(held: Sequence[Held]) -> str:
    counts = Counter(h.why for h in held)
    parts = []
    for why, count in counts.items():
        names = [h.name for h in held if h.why is why]
        more = f" and {count - _NAMED} more" if count > _NAMED else ""
        parts.append(f"{', '.join(names[:_NAMED])}{more} ({why.value})")
    return ", ".join(parts)


def _distinct(xs: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(xs))
