"""What a verdict holds for, as a value: which inputs and parameters were varied, and which were held.

A claim is made from the record of what a proof, a search or a comparison varied, so that it cannot promise more than
was looked at. Claims are compared by what they hold, and `Claim.__str__` is the one place that puts them into words.
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
    """No point is needed: the two programs are the same text."""
    ALL = "all"
    """A random point over a finite field stands for all values of what was varied."""
    TRIED = "tried"
    """A number of points in floating point."""
    POINT = "point"
    """The one point of the counterexample."""


class Role(str, Enum):
    """The part that a value plays in a program."""

    INPUT = "input"
    PARAMETER = "parameter"
    """Parameters, buffers and constants."""


class Why(str, Enum):
    """The reason why a value was held."""

    CHOSEN = "these values"
    """The programs are equal at these parameter values, or are not known to be at others."""
    INTEGERS = "integers"
    BOOLEANS = "booleans"
    COMPLEX = "complex numbers"
    INFINITE = "infinite elements"
    PLAIN = "no tensor"
    OBJECT = "an object"
    """Something that may hold tensors or arrays of its own."""
    CONSTANT = "a constant"
    OBSERVED = "observed"
    """The scale, zero point or extremes that an observer or a fake quantization holds."""
    UNREGISTERED = "not registered"
    """A tensor that a program holds beside its parameters and buffers."""


@dataclass(frozen=True)
class Held:
    """A value that was the same wherever the programs were compared."""

    name: str
    role: Role
    why: Why


@dataclass(frozen=True)
class Claim:
    """What a verdict holds for.

    Attributes:
        scope: the points at which the programs were compared.
        inputs: names of the inputs that were varied.
        parameters: names of the parameters and buffers that were varied.
        held: the values that were not.
        derived: parameters of the second program that were computed from the first one's, and rounded once.
        choices: operators whose choices the values made (the place of a maximum, an index, a rounding to integers): the
            claim holds where both programs choose as they did at the points that were looked at.
        uncovered: operators of which some outcome was never seen while the programs ran on many inputs.
        differs_elsewhere: whether the programs were seen to differ at other parameters.
        local_bounds: whether the bounds of the approximation steps are for these parameter values only.
        points: how many points were tried, where the scope is TRIED.
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
        """Whether no tensor among the inputs was held."""
        return self.scope in _EXACT and not any(h.role is Role.INPUT and h.why is not Why.PLAIN for h in self.held)

    @property
    def all_parameters(self) -> bool:
        """Whether no parameter was held that could have been varied."""
        return self.scope in _EXACT and not any(h.why is Why.CHOSEN for h in self.held)

    @property
    def is_general(self) -> bool:
        """Whether the claim holds for all inputs and all parameters, whatever choices their values make."""
        limited = self.choices or self.uncovered or self.local_bounds or self.differs_elsewhere
        limited = limited or any(h.why is not Why.PLAIN for h in self.held)
        return self.all_inputs and self.all_parameters and not limited

    def meet(self, other: Claim) -> Claim:
        """The weaker of two claims: what holds for both programs of a pair, each proved of one part."""
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
        """The claim for these parameter values only."""
        names = self.parameters or ("the parameters",)  # a claim of identity names none
        held = tuple(Held(name, Role.PARAMETER, Why.CHOSEN) for name in names)
        return replace(self, parameters=(), held=_distinct((*self.held, *held)), derived=())

    def to_dict(self) -> dict[str, Any]:
        """The claim as plain JSON values, with its words as ``"text"``."""
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
            parts.append("the second program's new parameters are those expressions of them, rounded once")
        if self.local_bounds:
            parts.append("the bounds are for these parameter values")
        parts += self._unseen()
        told = _told([h for h in self.held if h.why is not Why.CHOSEN])
        if told:
            parts.append(f"held at their values: {told}")
        return "; ".join(parts)

    def _tried(self) -> str:
        words = f"{self.points} inputs tried" if self.points > 1 else "the given inputs"
        if not self.parameters:
            words += ", for these parameter values"
        parts = [words, *["at other parameters the programs differ"] * self.differs_elsewhere, *self._unseen()]
        return "; ".join(parts)

    def _unseen(self) -> list[str]:
        return [f"with outcomes that were never seen, of {', '.join(self.uncovered)}"] if self.uncovered else []

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
"""The claim of two programs that are one text: `meet` with it changes nothing."""


def meet(claims: Iterable[Claim]) -> Claim:
    """The weakest of ``claims``; `IDENTITY` for none."""
    weakest = IDENTITY
    for claim in claims:
        weakest = weakest.meet(claim)
    return weakest


_NAMED = 3
"""Held values that are named, of each kind; the rest is counted."""


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
