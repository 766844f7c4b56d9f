"""One random draw: the primes, the random numbers, the uninterpreted functions, and the book that is kept of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from foldproof.digest import digest
from foldproof.field import Field, Size, UninterpretedFunction, draw_primes, error_bound, few, primes_needed
from foldproof.shadow.products import Products
from foldproof.torch_internals import OpOverload


class WritesBorrowed(Exception):
    """A program writes to a leaf whose memory was lent to it; it has to be run again on copies."""


@dataclass(frozen=True)
class RoundedParameter:
    """A parameter that became whole numbers: read as exact here, so that it is an approximation with a bound.

    ``real`` is its value before and ``whole`` after, both in float64: real is about scale·(whole − zero).
    ``parts`` are the residues of the whole numbers, unrounded.
    """

    operator: OpOverload
    real: Tensor
    whole: Tensor
    scale: Tensor
    zero: Tensor
    parts: Sequence[Tensor]

    def bound(self, whole: Tensor) -> float:
        """How far whole numbers are from the parameter at this value, in real units; half a step where in range."""
        error = (self.scale * (whole.double() - self.zero) - self.real).abs()
        return max(float(self.scale.abs().max()) / 2, float(error.max()) if error.numel() else 0.0)


@dataclass(frozen=True)
class Semantics:
    """How a draw reads what can be read in more than one way."""

    by_value: bool = False
    """Activations in pieces are no uninterpreted functions but follow the values, which have to be in more than one piece."""
    shift_first: bool = False
    """A softmax takes out the first element that is not masked, instead of the largest by value."""
    within: frozenset[str] = frozenset()
    """Roundings of parameters (as `SamplePoint.take_roundings` of a draw of the same seed and k names them) that are read as
    if they left the parameter as it is."""


class SamplePoint:
    """A random point at which programs are compared: ``k`` primes and everything drawn modulo them.

    Shadows of one draw may meet; shadows of different draws may not. The draw records what a verdict must tell:
    ``uninterpreted`` and ``branch`` operators, ``escapes`` (values that left the tensor world, and whether they depend on the
    program's input), uninterpreted evaluations, and the largest `Size` that was hashed or compared.

    ``reading`` says how to read what can be read in more than one way; ``steps`` tells the roundings that were read as
    if they were none.
    """

    def __init__(self, seed: int, k: int, semantics: Semantics = Semantics()) -> None:
        rng = random.Random(seed)
        self.seed, self.semantics = seed, semantics
        self.fields: Sequence[Field] = [Field(p) for p in draw_primes(k, rng)]
        self.shifted = False
        """A softmax did take one out."""
        self.uninterpreted: dict[str, None] = {}
        self.branch: dict[str, None] = {}
        self.escapes: dict[str, bool] = {}
        self.running = False
        """A program runs, and no pass."""
        self.read: set[str] = set()
        """Names of the whole-number leaves that a program reads."""
        self.beside: set[str] = set()
        """Names of the leaves whose own tensors a program reads, beside those that it is given."""
        self.unregistered: dict[str, None] = {}
        self.steps: list[RoundedParameter] = []
        self._roundings: set[str] = set()
        self._rng, self._salt = rng, rng.getrandbits(64)
        self.infinity = tuple(tuple(float(rng.randrange(f.p) - f.p // 2) for _ in range(2)) for f in self.fields)
        """For each prime, the residues that stand for +inf and -inf."""
        self.products = Products()
        self._functions: dict[str, UninterpretedFunction] = {}
        self._evaluations: Counter[str] = Counter()
        self._numbers: set[float] = set()
        self._degree = 0
        self._bits = 1.0

    @property
    def primes(self) -> tuple[int, ...]:
        return tuple(f.p for f in self.fields)

    def draw_few(self, shape: Sequence[int]) -> Tensor:
        """Independent uniform residues: k rows of ``shape``."""
        return few((len(self.fields), *shape), self._rng)

    def draw_seeds(self) -> list[int]:
        """Seeds of 32 bits, one for each prime."""
        return [self._rng.getrandbits(32) for _ in self.fields]

    def evaluate(
        self, name: str, operands: Sequence[Sequence[Tensor]], real: Callable[..., Tensor], nonzero: bool
    ) -> tuple[Tensor, ...]:
        """Residues of the function ``name`` at operands of k residues each, which broadcast.

        ``real`` is the function itself on float64 tensors; it is what the same rule means over the real numbers.
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

    def note_numbers(self, numbers: Iterable[float]) -> None:
        """Numbers were embedded."""
        self._numbers.update(numbers)

    def take_numbers(self) -> frozenset[float]:
        """The numbers embedded since the last call: when programs differ, their constants may be why."""
        taken = frozenset(self._numbers)
        self._numbers.clear()
        return taken

    def reads_as_exact(self, operands: Sequence[Sequence[Tensor]]) -> bool:
        """Is this rounding (residues of scaled operand, zero point and limits) one to be read as exact?

        It is noted, at any rate.
        """
        parts = [f.canonical(part) for operand in operands for f, part in zip(self.fields, operand)]
        rounding = f"{digest(parts)} {[tuple(operand[0].shape) for operand in operands]}"
        self._roundings.add(rounding)
        return rounding in self.semantics.within

    def take_roundings(self) -> frozenset[str]:
        """The roundings of parameters since the last call."""
        taken = frozenset(self._roundings)
        self._roundings.clear()
        return taken

    def observe(self, size: Size) -> None:
        """Values of this size are hashed or compared."""
        degree, bits = size.difference
        self._degree, self._bits = max(self._degree, degree), max(self._bits, bits)

    @property
    def degree(self) -> int:
        return self._degree

    @property
    def bits(self) -> float:
        return self._bits

    @property
    def evaluations(self) -> int:
        """Elements that uninterpreted functions were applied to."""
        return sum(self._evaluations.values())

    @property
    def _pairs(self) -> int:
        return _pairs(self._evaluations.values())

    @property
    def log2_error(self) -> float:
        """See `foldproof.field.error_bound`."""
        return error_bound(self._degree, self._bits, self._pairs, len(self.fields))

    def primes_needed(self, log2_error: float, evaluations: int = 1) -> int | None:
        """The primes that bring the error below 2^log2_error, with ``evaluations`` times as many uninterpreted evaluations."""
        pairs = _pairs(n * evaluations for n in self._evaluations.values())
        return primes_needed(self._degree, self._bits, pairs, log2_error)


def _pairs(evaluations: Iterable[int]) -> int:
    return sum(n * (n - 1) // 2 for n in evaluations)
