"""Residues of tensors that no operator made: random for inputs and parameters, exact for constants."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from foldproof.field import Size, many
from foldproof.layout import laid_out_like
from foldproof.shadow.constants import Constants
from foldproof.shadow.known import Linear, number_of
from foldproof.shadow.matrices import Matrix
from foldproof.shadow.ondemand import Made, OnDemand
from foldproof.shadow.residue import Residue, embed_number
from foldproof.shadow.sample import SamplePoint
from foldproof.shadow.turns import read_table
from foldproof.shadow.undecided import Undecided
from foldproof.thresholds import MAX_LIMIT_ELEMENTS, MAX_TABLE_ELEMENTS

_SMALL = 1 << 15
"""Largest number of elements of a leaf with stored residues; larger ones may be made on demand."""


def draw_variable(
    point: SamplePoint, like: Tensor, data: bool, lent: bool = False, independent: bool = False
) -> Residue:
    """Draw independent uniform residues, laid out like ``like``; ``data`` marks a dependence on the program's input.

    Elements that share memory share residues, unless they are ``independent``. Infinite elements are no variables: they
    stay infinite. ``lent`` promises that nobody writes to ``like`` or to the residues; large ones are then made on
    demand.
    """
    layout = torch.empty(like.shape, device="meta") if independent else like

    def laid_out(part: Tensor) -> Tensor:
        return laid_out_like(layout, part.to(like.device))

    if like.is_complex():
        return of_pairs(draw_variable(point, torch.view_as_real(like), data, lent, independent))
    if like.numel() <= _SMALL:
        rows = point.draw_few(like.shape)
        return _leaf(point, like, lambda i: laid_out(rows[i]), Size.variable(), data)
    seeds = point.draw_seeds()
    if lent and layout.ndim == 2 and layout.is_contiguous() and (independent or all_finite(like)):
        matrix, meta = Matrix(point.fields, like.shape, seeds), torch.empty(like.shape, device="meta").double()
        made = Made(meta, len(seeds), lambda i: laid_out(matrix.whole(i)), matrix=matrix)
        return Residue(point, OnDemand(made), Size.variable(), data)
    return _leaf(point, like, lambda i: laid_out(many(like.shape, seeds[i])), Size.variable(), data, lent, layout)


def embed_constant(point: SamplePoint, x: Tensor | float | int | bool, lent: bool = False) -> Residue:
    """Return the exact residues of a constant. Infinite elements are marked, and follow the value from there on.

    So is a nan, which may be selected, or left out, and not computed with. ``lent`` has the same meaning as in
    `draw_variable`.
    """
    if not isinstance(x, Tensor):
        if isinstance(x, complex) or not math.isfinite(x):
            return embed_constant(point, torch.tensor(x))
        return embed_number(point, x)
    if x.is_complex() and x.layout is torch.strided:
        return of_pairs(embed_constant(point, torch.view_as_real(x.resolve_conj()), lent))
    if x.layout != torch.strided or x.is_quantized or x.dtype == torch.uint64:
        raise Undecided(f"a constant is of dtype {x.dtype} and layout {x.layout}, which has no residues")
    if x.is_floating_point() and x.numel() <= MAX_LIMIT_ELEMENTS:  # compilers turn numbers into small tensors
        point.note_numbers(n for n in x.detach().flatten().tolist() if math.isfinite(n))

    if point.constants is not None and x.is_floating_point() and x.numel() <= MAX_TABLE_ELEMENTS and all_finite(x):
        table = read_table(point, x)
        if table is not None:
            return table.laid_out_like(x)
        return _as_meant(point, point.constants, x)
    return embed_exactly(point, x, lent)


def embed_exactly(point: SamplePoint, x: Tensor, lent: bool = False) -> Residue:
    """Return the exact residues of a real constant as it is, however the sample point reads constants."""

    def make(i: int) -> Tensor:
        return laid_out_like(x, point.fields[i].embed(x))

    out = _leaf(point, x, make, lambda: _size_of_tensor(x), lent=lent)
    if not all_finite(x) and bool((nan := torch.isnan(x)).any()):
        parts = tuple(torch.where(nan, code, part) for code, part in zip(point.nan, out.parts))
        out = Residue(point, parts, out.size, infinite=True)
    read = point.semantics.algebraic or x.numel() == 1
    if read and x.numel() and all_finite(x) and bool((x == (first := x.flatten()[0])).all()):
        out.knowing(linear=Linear((), Fraction(first.item())))
    return out


def embed_initial(point: SamplePoint, x: Tensor) -> Residue:
    """Return the exact residues of the first value of a tensor that a program is going to write to, mostly as a whole.

    Those of a large one are computed if they are read, and stored once a part of them is written. Nobody writes to
    ``x`` itself.
    """
    if x.is_complex():
        return embed_constant(point, x)
    return embed_exactly(point, x, lent=True).laid_out_like(torch.empty_like(x, device="meta")).copied()


def of_pairs(residue: Residue) -> Residue:
    """Return the residue of a complex tensor, in the memory of that of its real and imaginary parts."""
    return residue.view(torch.view_as_complex)


def _as_meant(point: SamplePoint, constants: Constants, x: Tensor) -> Residue:
    """Return the residues of the numbers that constants are read as."""
    wide = constants.near(x, point.first, x.dtype)
    if x.numel() <= MAX_LIMIT_ELEMENTS:
        each = [embed_number(point, n, x.dtype) for n in wide.flatten().tolist()]
        parts = [torch.stack([e.parts[i] for e in each]).reshape(x.shape) for i in range(len(point.fields))]
        size = functools.reduce(Size.join, [e.size for e in each])
        out = Residue(point, tuple(laid_out_like(x, part.to(x.device)) for part in parts), size)
        numbers = {number_of(e) for e in each}
        number = numbers.pop() if len(numbers) == 1 else None
        return out if number is None else out.knowing(linear=Linear((), number))

    def make(i: int) -> Tensor:
        return laid_out_like(x, point.fields[i].embed(wide))

    return _leaf(point, x, make, _size_of_tensor(wide))


def _leaf(
    point: SamplePoint,
    like: Tensor,
    make: Callable[[int], Tensor],
    size: Size | Callable[[], Size],
    data: bool = False,
    lent: bool = False,
    layout: Tensor | None = None,
) -> Residue:
    k = len(point.fields)
    finite = (layout is not None and layout is not like) or all_finite(like)
    if lent and like.numel() > _SMALL and finite:
        laid_out = like if layout is None else layout
        meta = torch.empty_strided(like.shape, laid_out.stride(), dtype=torch.float64, device="meta")
        return Residue(point, OnDemand(Made(meta, k, make)), size, data)
    made = Residue(point, tuple(make(i) for i in range(k)), size, data)
    return made if finite else mark_infinities(like, made).laid_out_like(like)


def mark_infinities(value: Tensor, residue: Residue) -> Residue:
    """Make infinite elements follow the value (a mask of -inf, say): one random residue stands for each sign."""
    point, infinite = residue.point, torch.isinf(value)
    if not bool(infinite.any()) and not holds_nan(value, residue):
        return Residue(point, residue.parts, residue.size, residue.data).marked_like(residue)
    codes = _codes_of_infinities(value, point)
    parts = tuple(torch.where(infinite, code, part) for code, part in zip(codes, residue.parts))
    out = Residue(point, parts, residue.size, residue.data, infinite=True)
    return out.marked_like(residue)


def _codes_of_infinities(value: Tensor, point: SamplePoint) -> list[Tensor]:
    return [torch.where(value > 0, plus, minus).to(torch.float64) for plus, minus in point.infinity]


def overflows(value: Tensor, residue: Residue) -> bool:
    """Return True if an element is infinite for the values at hand only: its residue stands for no infinity."""
    if value.is_complex() or not bool((found := torch.isinf(value)).any()):  # complex infinities have no residues
        return False
    marked = [part == code for part, code in zip(residue.parts, _codes_of_infinities(value, residue.point))]
    return bool((found & ~torch.stack(marked).all(0)).any())


def is_number(dtype: torch.dtype) -> bool:
    """True for the dtypes of real and complex numbers; those of integers and booleans have other rules."""
    return dtype.is_floating_point or dtype.is_complex


def holds_nan(value: Tensor, residue: Residue) -> bool:
    """Return True if an element is a nan of a constant; others are nan only for the values at hand."""
    if not residue.infinite or not is_number(value.dtype) or value.is_complex():
        return False
    nan = torch.isnan(value)
    for code, part in zip(residue.point.nan, residue.parts):
        nan = nan & (part == code)
    return bool(nan.any())


def all_finite(x: Tensor) -> bool:
    """True if ``x`` holds neither infinities nor nan; a finite sum shows it without a temporary tensor."""
    if x.is_complex() and x.layout is torch.strided:
        x = torch.view_as_real(x.resolve_conj())
    if not x.dtype.is_floating_point:
        return True
    x = x.float() if x.element_size() == 1 else x  # there is no sum of 8-bit floats
    return math.isfinite(x.detach().sum()) or bool(x.isfinite().all())


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
