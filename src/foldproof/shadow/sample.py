"""Sample points: random primes and numbers, uninterpreted functions, and a record of what a proof depends on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from foldproof.digest import digest
from foldproof.field import (
    PRIMES,
    Field,
    Size,
    UninterpretedFunction,
    degree_of,
    draw_primes,
    error_bound,
    few,
    many,
    primes_needed,
    primes_with_turns,
)
from foldproof.shadow.constants import Constants, primes_with_roots
from foldproof.shadow.products import Products
from foldproof.shadow.shared import SharedFacts
from foldproof.thresholds import MAX_UNCUT_BITS, MAX_UNCUT_DEGREE
from foldproof.torch_internals import OpOverload, storage_id, tree_iter


class WritesBorrowed(Exception):
    """A program writes to a leaf whose memory was lent to it; it has to run again on copies."""


@dataclass(frozen=True)
class RoundedParameter:
    """A parameter that became whole numbers, read as exact: an approximation with a bound.

    ``real`` is its value before and ``whole`` after, both in float64: real is approximately scale·(whole − zero).
    ``parts`` are the residues of the whole numbers, without rounding.
    """

    operator: OpOverload
    real: Tensor
    whole: Tensor
    scale: Tensor
    zero: Tensor
    parts: Sequence[Tensor]

    def bound(self, whole: Tensor) -> float:
        """Return the largest error of whole numbers as the parameter, in real units; half a step where in range."""
        error = (self.scale * (whole.double() - self.zero) - self.real).abs()
        return max(float(self.scale.abs().max()) / 2, float(error.max()) if error.numel() else 0.0)


class Choices(Enum):
    """Readings of operators that choose elements by value."""

    BY_VALUE = "by value"
    """The choice is the one of the values at hand, and the claim is for inputs that make the same."""
    WHOLE = "whole"
    """The chosen numbers are one uninterpreted function of all operands, and a comparison of a and b is one of a - b;
    chosen indices are those at hand."""
    UNREAD = "unread"
    """The same, but indices limit the claim only if a function or an output takes them: the programs are graphs."""


@dataclass(frozen=True)
class Semantics:
    """The choices among valid interpretations of an operator."""

    by_value: bool = False
    """Make piecewise activations follow the values, which have to lie in more than one piece."""
    numbers: bool = False
    """Let maxima and minima choose among elements that are numbers, whatever the inputs are; see
    `foldproof.shadow.call.Call.find_numbers`."""
    shift_first: bool = False
    """Shift a softmax by the first element that is not masked, instead of the largest by value."""
    algebraic: bool = False
    """Read elementary functions by their identities, and divide exactly; see `foldproof.shadow.normal_forms`."""
    pieces: bool = False
    """Apply elementary functions to each piece of a choice, so that exp(min(x, 0)) is min(exp(x), 1). Without it,
    exp(x - m) cancels exp(m), whatever m is."""
    rational: bool = False
    """True if the programs are rational functions, so that divisors of data vanish at single points only."""
    choices: Choices = Choices.BY_VALUE
    """The reading of operators that choose by value: the largest, the pooled, the sorted."""
    constants: frozenset[int] | None = None
    """Radicands of roots; if given, constants are read as in `foldproof.shadow.constants`."""
    turn: int = 0
    """A multiple of 4: cosines of its fractions of a turn are read as algebraic numbers; see `turns`."""
    lengths: frozenset[int] = frozenset()
    """Lengths n of Fourier transforms: tables of cos(2π·j/4n), scaled or not, are read as these numbers."""
    whole: bool = False
    """Read arithmetic that makes real numbers of whole ones exactly, which float32 rounds: of images in uint8, say."""
    within: frozenset[str] = frozenset()
    """Roundings of parameters that are read as the identity.

    They are named as in `SamplePoint.take_roundings` of a sample point with the same seed and k.
    """


class _Counted(dict[str, Any]):
    """A dict that counts the times that something was put into it."""

    count = 0

    def __setitem__(self, key: str, value: Any) -> None:
        self.count += 1
        super().__setitem__(key, value)

    def setdefault(self, key: str, default: Any = None) -> Any:
        self.count += 1
        return super().setdefault(key, default)


class SamplePoint:
    """A random point at which programs are compared: ``k`` primes and everything drawn modulo them.

    Shadows of one sample point may meet; shadows of different ones may not. It records the premises of a verdict:
    ``uninterpreted`` and ``branch`` operators, ``escapes`` (places where a value was read out of a tensor, and True
    where it depends on the program's input), uninterpreted evaluations, and the largest `Size` hashed or compared.

    ``semantics`` chooses among valid interpretations of operators; ``steps`` lists the roundings read as exact.
    """

    def __init__(self, seed: int, k: int, semantics: Semantics = Semantics()) -> None:
        rng = random.Random(seed)
        self.seed, self.semantics = seed, semantics
        radicands = semantics.constants or frozenset()
        pool = primes_with_roots(PRIMES, radicands) if radicands else PRIMES
        self._pool = primes_with_turns(pool, semantics.turn) if semantics.turn else pool
        self.fields: Sequence[Field] = [Field(p) for p in draw_primes(k, rng, self._pool)]
        self.constants = Constants(radicands) if semantics.constants is not None else None
        """Readings of constants, if they may be read as other numbers."""
        self.first = True
        """False while the second program runs."""
        self.extension = 4 ** len(radicands) * (degree_of(semantics.turn) if semantics.turn else 1)
        """Degree of the number field that constants are read in, by which the norms of coefficients are longer."""
        self.lengths: set[int] = set()
        """Lengths of Fourier transforms."""
        self.shifted = False
        """True after a softmax has been shifted."""
        self.casts_whole = False
        """True after whole numbers have become real ones."""
        self.uninterpreted: dict[str, None] = {}
        self.branch: dict[str, None] = _Counted()
        self.limits: set[float] = set()
        """Values that programs computed and compared others with."""
        self.compared: dict[str, None] = {}
        """Comparisons that are read as functions."""
        self.asked: dict[str, None] = {}
        """Questions for infinities and nan that are read as functions, and limit a claim as choices do."""
        self.chosen: dict[int, tuple[str, Tensor]] = {}
        """Indices that an operator chose by value, by the memory of each, and the operator's name."""
        self.jumping: dict[str, None] = {}
        """Operators of the algebraic reading whose results jump."""
        self.escapes: dict[str, bool] = _Counted()
        self.draws = 0
        """Number of draws of random numbers."""
        self.tosses: dict[str, None] = {}
        """Comparisons of random numbers."""
        self.settled = 0
        """The number of results without residues that are the same for all inputs, although they are read from values.
        Places of random maxima are none, even where these are read as functions."""
        self.lucky: dict[str, None] = {}
        """Operators that choose by value, where the values depend on random numbers."""
        self.running = False
        """True while a program runs, and False while a pass does."""
        self.visit: Callable[[Any], Any] | None = None
        """The function that sees and may replace each computed residue; see `foldproof.shadow.cuts`."""
        self.tests = 0
        """Number of comparisons besides those of results, each of at most the same chance of error."""
        self.read: set[str] = set()
        """Names of the whole-number leaves that a program reads."""
        self.beside: set[str] = set()
        """Names of the leaves whose own tensors a program reads, instead of the tensors that it is given."""
        self.partial = False
        """True after a step that does not hold at single points, as where a divisor is 0."""
        self.unregistered: dict[str, None] = {}
        self.steps: list[RoundedParameter] = []
        self._roundings: set[str] = set()
        self._rng, self._salt = rng, rng.getrandbits(64)
        self.infinity = tuple(tuple(float(rng.randrange(f.p) - f.p // 2) for _ in range(2)) for f in self.fields)
        """For each prime, the residues that stand for +inf and -inf."""
        self.nan = tuple(float(rng.randrange(f.p) - f.p // 2) for f in self.fields)
        """For each prime, the residue that stands for a nan among the constants."""
        self.products = Products()
        self.facts = SharedFacts()
        self.units: dict[str, list[Fraction]] = {}
        """Fractions of a value, by its residues, that exponentials are powers of; see `normal_forms`."""
        self._functions: dict[str, UninterpretedFunction] = {}
        self._coefficients: dict[int, list[Tensor]] = {}
        self._evaluations: Counter[str] = Counter()
        self._numbers: set[float] = set()
        self._dtypes: set[torch.dtype] = set()
        self._degree = 0
        self._bits = 1.0

    @property
    def primes(self) -> tuple[int, ...]:
        return tuple(f.p for f in self.fields)

    @property
    def choices_made(self) -> int:
        """The number of choices by value so far, repeated ones too."""
        assert isinstance(self.branch, _Counted) and isinstance(self.escapes, _Counted)
        return self.branch.count + self.escapes.count

    def note_decided(self, name: str) -> None:
        """Record that the operator of this name follows the values of comparisons, which are choices then, too."""
        for one in (name, *self.compared):
            self.branch.setdefault(one)

    def note_chosen(self, arguments: Any) -> None:
        """Record a choice by value for each of the chosen indices among ``arguments``."""
        if self.chosen:
            for x in tree_iter(arguments):
                if isinstance(x, Tensor) and x.layout is torch.strided and storage_id(x) in self.chosen:
                    self.branch.setdefault(self.chosen[storage_id(x)][0])

    def draw_few(self, shape: Sequence[int]) -> Tensor:
        """Draw independent uniform residues: k rows of ``shape``."""
        return few((len(self.fields), *shape), self._rng)

    def draw_seeds(self) -> list[int]:
        """Draw 32-bit seeds, one for each prime."""
        return [self._rng.getrandbits(32) for _ in self.fields]

    def evaluate(
        self, name: str, operands: Sequence[Sequence[Tensor]], real: Callable[..., Tensor], nonzero: bool
    ) -> tuple[Tensor, ...]:
        """Return the residues of the function ``name`` at operands of k residues each, which broadcast.

        ``real`` is the function on float64 tensors, the meaning of the same rule over the real numbers.
        """
        out = self._evaluate(name, operands, real, nonzero)
        self._evaluations[name] += out[0].numel()
        self.uninterpreted.setdefault(name.split("(")[0])
        return out

    def _evaluate(
        self, name: str, operands: Sequence[Sequence[Tensor]], real: Callable[..., Tensor], nonzero: bool
    ) -> tuple[Tensor, ...]:
        if name not in self._functions:
            self._functions[name] = UninterpretedFunction(self._salt, name, self.fields, nonzero)
        return self._functions[name](operands)

    def coefficients(self, n: int) -> list[Tensor]:
        """Return n random residues for each prime, the same in every call."""
        if n not in self._coefficients:
            rng = random.Random(f"{self.seed} coefficients {n}")
            self._coefficients[n] = [many((n,), rng.getrandbits(32)) for _ in self.fields]
        return self._coefficients[n]

    def note_numbers(self, numbers: Iterable[float]) -> None:
        """Record numbers that were embedded."""
        self._numbers.update(numbers)

    def take_numbers(self) -> frozenset[float]:
        """Return the numbers embedded since the last call: differing constants may explain differing programs."""
        taken = frozenset(self._numbers)
        self._numbers.clear()
        return taken

    def note_dtype(self, dtype: torch.dtype) -> None:
        """Record the dtype of a result of a program or pass."""
        if dtype.is_floating_point or dtype.is_complex:
            self._dtypes.add(dtype.to_real())

    def take_dtypes(self) -> frozenset[torch.dtype]:
        """Return the floating-point dtypes of results since the last call: residues do not show them."""
        taken = frozenset(self._dtypes)
        self._dtypes.clear()
        return taken

    def reads_as_exact(self, operands: Sequence[Sequence[Tensor]]) -> bool:
        """True if this rounding (residues of scaled operand, zero point and limits) is to be read as exact.

        The rounding is recorded in either case.
        """
        parts = [f.canonical(part) for operand in operands for f, part in zip(self.fields, operand)]
        rounding = f"{digest(parts)} {[tuple(operand[0].shape) for operand in operands]}"
        self._roundings.add(rounding)
        return rounding in self.semantics.within

    def take_roundings(self) -> frozenset[str]:
        """Return the roundings of parameters since the last call."""
        taken = frozenset(self._roundings)
        self._roundings.clear()
        return taken

    def observe(self, size: Size) -> None:
        """Record that values of this size are hashed or compared."""
        degree, bits = size.difference
        self._degree, self._bits = max(self._degree, degree), max(self._bits, bits * self.extension)

    @property
    def degree(self) -> int:
        return self._degree

    @property
    def bits(self) -> float:
        return self._bits

    @property
    def evaluations(self) -> int:
        """Number of elements that uninterpreted functions were applied to."""
        return sum(self._evaluations.values())

    @property
    def _pairs(self) -> int:
        return _pairs(self._evaluations.values()) + self.tests

    @property
    def log2_error(self) -> float:
        """log2 of the probability of a wrong PROVED, see `foldproof.field.error_bound`."""
        return error_bound(self._degree, self._bits, self._pairs, len(self.fields), len(self._pool))

    def primes_needed(self, log2_error: float, evaluations: int = 1) -> int | None:
        """Return the smallest number of primes that brings the error below 2^log2_error.

        ``evaluations`` multiplies the number of uninterpreted evaluations so far.
        """
        pairs = _pairs(n * evaluations for n in self._evaluations.values()) + self.tests
        return primes_needed(self._degree, self._bits, pairs, log2_error, len(self._pool))

    def primes_needed_with_cuts(self, log2_error: float) -> int | None:
        """Return the number of primes that is likely to be enough if values are cut, before they are."""
        return primes_needed(MAX_UNCUT_DEGREE, MAX_UNCUT_BITS, self._pairs, log2_error, len(self._pool))


def _pairs(evaluations: Iterable[int]) -> int:
    return sum(n * (n - 1) // 2 for n in evaluations)
