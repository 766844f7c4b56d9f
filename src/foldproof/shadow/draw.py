"""One random draw: the primes, the residues of the leaves, the opaque functions, and the book that is kept of them."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._ops import OpOverload

from foldproof.digest import digest
from foldproof.field import Field, OpaqueFunction, Size, draw_primes, error_bound, few, many, primes_needed
from foldproof.shadow.ondemand import OnDemand
from foldproof.shadow.products import Products
from foldproof.shadow.residue import Residue, laid_out_like
from foldproof.shadow.undecided import Undecided


class WritesBorrowed(Exception):
    """A program writes to a leaf whose memory was lent to it; it has to be run again on copies."""


_SMALL = 1 << 15  # elements of a leaf whose residues are kept in any case

_ROOTS = {"rsqrt", "sqrt", "reciprocal"}  # what weights are scaled by: exact inverses of these are wanted


@dataclass(frozen=True)
class Step:
    """A parameter that became whole numbers: read as exact here, so that it is an approximation with a bound.

    ``real`` is its value before and ``whole`` after, both in float64: real is about scale·(whole − zero).
    ``residue`` is that of the whole numbers, unrounded.
    """

    operator: OpOverload
    real: Tensor
    whole: Tensor
    scale: Tensor
    zero: Tensor
    residue: Residue

    def bound(self, whole: Tensor) -> float:
        """How far whole numbers are from the parameter at this value, in real units; half a step where in range."""
        error = (self.scale * (whole.double() - self.zero) - self.real).abs()
        return max(float(self.scale.abs().max()) / 2, float(error.max()) if error.numel() else 0.0)


@dataclass(frozen=True)
class Reading:
    """How a draw reads what can be read in more than one way."""

    by_value: bool = False
    """Activations in pieces are no opaque functions but follow the values, which have to be in more than one piece."""
    shift_first: bool = False
    """A softmax takes out the first element that is not masked, instead of the largest by value."""
    within: frozenset[str] = frozenset()
    """Roundings of parameters (as `Draw.take_roundings` of a draw of the same seed and k names them) that are read as
    if they left the parameter as it is."""


_FEW = 16
"""A tensor of so few numbers may hold a limit or a divisor."""


class Draw:
    """A random point at which programs are compared: ``k`` primes and everything drawn modulo them.

    Shadows of one draw may meet; shadows of different draws may not. The draw records what a verdict must tell:
    ``opaque`` and ``branch`` operators, ``escapes`` (values that left the tensor world, and whether they depend on the
    program's input), opaque evaluations, and the largest `Size` that was hashed or compared.

    ``reading`` says how to read what can be read in more than one way; ``steps`` tells the roundings that were read as
    if they were none.
    """

    def __init__(self, seed: int, k: int, reading: Reading = Reading()) -> None:
        rng = random.Random(seed)
        self.seed, self.reading = seed, reading
        self.fields: Sequence[Field] = [Field(p) for p in draw_primes(k, rng)]
        self.shifted = False
        """A softmax did take one out."""
        self.opaque: dict[str, None] = {}
        self.branch: dict[str, None] = {}
        self.escapes: dict[str, bool] = {}
        self.held: dict[str, None] = {}
        self.steps: list[Step] = []
        self._roundings: set[str] = set()
        self._rng, self._salt = rng, rng.getrandbits(64)
        self._infinity = tuple(tuple(float(rng.randrange(f.p) - f.p // 2) for _ in range(2)) for f in self.fields)
        self.products = Products()
        self._functions: dict[str, OpaqueFunction] = {}
        self._evaluations: Counter[str] = Counter()
        self._numbers: set[float] = set()
        self._degree = 0
        self._bits = 1.0

    @property
    def primes(self) -> tuple[int, ...]:
        return tuple(f.p for f in self.fields)

    def variable(self, like: Tensor, data: bool, lent: bool = False) -> Residue:
        """Independent uniform residues, laid out like ``like``; ``data`` marks what depends on the program's input.

        Elements that share memory share residues. Infinite elements are no variables: they stay what they are.
        ``lent`` says that nobody will write to ``like`` or to the residues; large ones are then made on demand.
        """
        k = len(self.fields)
        if like.numel() <= _SMALL:
            rows = few((k, *like.shape), self._rng).to(like.device)
            return self._leaf(like, lambda i: laid_out_like(like, rows[i]), Size.variable(), data)
        seeds = [self._rng.getrandbits(32) for _ in range(k)]

        def make(i: int) -> Tensor:
            return laid_out_like(like, many(like.shape, seeds[i]).to(like.device))

        return self._leaf(like, make, Size.variable(), data, lent)

    def _leaf(
        self, like: Tensor, make: Callable[[int], Tensor], size: Size, data: bool = False, lent: bool = False
    ) -> Residue:
        k = len(self.fields)
        if lent and like.numel() > _SMALL and all_finite(like):
            meta = torch.empty_strided(like.shape, like.stride(), dtype=torch.float64, device="meta")
            return Residue(self, OnDemand(meta, k, make), size, data)
        made = Residue(self, tuple(make(i) for i in range(k)), size, data)
        return made if all_finite(like) else self.mark_infinities(like, made).laid_out_like(like)

    def constant(self, x: Tensor | float | int | bool, lent: bool = False) -> Residue:
        """The exact residues of a constant. Infinities are marked, and follow the value from there on.

        ``lent`` is as for `variable`.

        Raises:
            Undecided: the constant holds a nan, or is complex.
        """
        if not isinstance(x, Tensor):
            if isinstance(x, complex) or not math.isfinite(x):
                return self.constant(torch.tensor(x))
            self._numbers.add(float(x))
            device_free = [torch.tensor(float(f.number(x)), dtype=torch.float64) for f in self.fields]
            return Residue(self, tuple(f.reduce(t) for f, t in zip(self.fields, device_free)), _size_of_number(x))
        if x.dtype.is_complex:
            raise Undecided("complex numbers have no residues")
        if x.layout != torch.strided or x.is_quantized or x.dtype == torch.uint64:
            raise Undecided(f"a constant is of dtype {x.dtype} and layout {x.layout}, which has no residues")
        if not all_finite(x) and bool(torch.isnan(x).any()):
            raise Undecided("a constant is nan")
        if x.is_floating_point() and x.numel() <= _FEW:  # numbers, made tensors by compilers
            self._numbers.update(n for n in x.detach().flatten().tolist() if math.isfinite(n))

        def make(i: int) -> Tensor:
            return laid_out_like(x, self.fields[i].embed(x))

        return self._leaf(x, make, _size_of_tensor(x), lent=lent)

    def mark_infinities(self, value: Tensor, residue: Residue) -> Residue:
        """Let infinite elements follow the value (a mask of -inf, say): one random residue stands for each sign."""
        infinite = torch.isinf(value)
        if not bool(infinite.any()):
            return Residue(self, residue.parts, residue.size, residue.data)
        positive = value > 0
        codes = (torch.where(positive, plus, minus).to(torch.float64) for plus, minus in self._infinity)
        parts = tuple(torch.where(infinite, code, part) for code, part in zip(codes, residue.parts))
        return Residue(self, parts, residue.size, residue.data, infinite=True)

    def apply_opaque(
        self, name: str, operands: Sequence[Residue], real: Callable[..., Tensor], nonzero: bool = False
    ) -> Residue:
        """The opaque function ``name`` (operator, attributes and dtype) of ``operands``, which broadcast.

        ``real`` is the function itself on float64 tensors; it is what the same rule means over the real numbers.
        """
        out = self._evaluate(name, [tuple(o.parts) for o in operands], real, nonzero)
        self._evaluations[name] += out[0].numel()
        self.opaque.setdefault(name.split("(")[0])
        for operand in operands:
            self.observe(operand.size)
        data = name not in _ROOTS or any(o.data for o in operands)
        return Residue(self, out, Size.variable(), data)

    def _evaluate(
        self, name: str, operands: Sequence[Sequence[Tensor]], real: Callable[..., Tensor], nonzero: bool
    ) -> tuple[Tensor, ...]:
        """Residues of the function ``name`` at operands of k residues each, which broadcast."""
        if name not in self._functions:
            self._functions[name] = OpaqueFunction(self._salt, name, self.fields, nonzero)
        return self._functions[name](operands)

    def take_numbers(self) -> frozenset[float]:
        """The numbers embedded since the last call: when programs differ, their constants may be why."""
        taken = frozenset(self._numbers)
        self._numbers.clear()
        return taken

    def reads_as_exact(self, operands: Sequence[Residue]) -> bool:
        """Is this rounding (scaled operand, zero point and limits) one to be read as exact? It is noted, at any rate.

        Only what is computed of parameters ever is: how far a rounding moves data has no bound, for it may be cut off.
        """
        if any(operand.data for operand in operands):
            return False
        parts = [f.canonical(part) for operand in operands for f, part in zip(self.fields, operand.parts)]
        rounding = f"{digest(parts)} {[tuple(operand.shape) for operand in operands]}"
        self._roundings.add(rounding)
        return rounding in self.reading.within

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
        """Elements that opaque functions were applied to."""
        return sum(self._evaluations.values())

    @property
    def _pairs(self) -> int:
        return _pairs(self._evaluations.values())

    @property
    def log2_error(self) -> float:
        """See `foldproof.field.error_bound`; to take out first elements is a second attempt: the chance doubles."""
        attempts = int(self.reading.shift_first)
        return error_bound(self._degree, self._bits, self._pairs, len(self.fields)) + attempts

    def primes_needed(self, evaluations: int = 1) -> int | None:
        """How many primes would bring the error below 2^-40, with so many times as many opaque evaluations."""
        pairs = _pairs(n * evaluations for n in self._evaluations.values())
        return primes_needed(self._degree, self._bits, pairs, -41.0 if self.shifted else -40.0)


def _pairs(evaluations: Iterable[int]) -> int:
    return sum(n * (n - 1) // 2 for n in evaluations)


def all_finite(x: Tensor) -> bool:
    """Whether ``x`` holds neither infinities nor nan: in one pass that makes no tensor, if its sum is finite, too."""
    if not x.dtype.is_floating_point:
        return True
    x = x.float() if x.element_size() == 1 else x  # of which there are no sums
    return math.isfinite(x.detach().sum()) or bool(x.isfinite().all())


def _size_of_number(x: int | float) -> Size:
    if x == 0:
        return Size.constant(0, 0.0)
    if isinstance(x, int):
        return Size.constant(0, math.log2(abs(x)))
    _, denominator = x.as_integer_ratio()
    return Size.constant(1 - denominator.bit_length(), math.log2(abs(x)))


_MANTISSA = {torch.float64: 53, torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}


def _size_of_tensor(x: Tensor) -> Size:
    if x.dtype == torch.bool or not x.numel():
        return Size.constant(0, 0.0)
    if not x.dtype.is_floating_point:
        return Size.constant(0, 64.0)
    wide = x.to(torch.float64)
    _, exponent = torch.frexp(wide)
    exponent = exponent[(wide != 0) & torch.isfinite(wide)]
    if not exponent.numel():
        return Size.constant(0, 0.0)
    mantissa = _MANTISSA.get(x.dtype, 53)
    return Size.constant(int(exponent.min()) - mantissa, float(exponent.max()))
