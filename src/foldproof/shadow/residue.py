"""Residues of tensors, with the bounds that determine how reliable a comparison of them is."""

from __future__ import annotations

import copy
import functools
import itertools
import math
import operator
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from foldproof.field import BALANCED_TERMS, EXACT_TERMS, Size
from foldproof.layout import laid_out_like
from foldproof.shadow import piecewise
from foldproof.shadow.known import (
    NOTHING,
    Known,
    Linear,
    Origin,
    Term,
    all_nonnegative,
    facts,
    is_masked,
    is_negated,
    is_nonnegative,
    is_positive,
    linear_of,
    number_of,
    plain,
    same,
    scale_of,
    term_of,
)
from foldproof.shadow.ondemand import Made, OnDemand, in_memory, rearranged
from foldproof.shadow.sample import SamplePoint
from foldproof.shadow.undecided import Undecided

Map = Callable[..., Tensor]

_ROOTS = {"rsqrt", "sqrt", "reciprocal"}  # what weights are scaled by: exact inverses of these are wanted

# Functions with a value for every real number; of all others, results may be nan.
_TOTAL = {"abs", "asinh", "atan", "atan2", "ceil", "copysign", "cos", "cosh", "erf", "erfc", "exp", "exp2", "exp_half"}
_TOTAL |= {"expm1", "floor", "heaviside", "hypot", "identity", "is_zero", "largest", "log_2_cosh_half", "logaddexp"}
_TOTAL |= {"eq", "ge", "gt", "isinf", "isnan", "le", "lt", "ne"}
_TOTAL |= {"logaddexp2", "maximum", "member", "round", "sign", "sin", "sinc", "sinh", "tan_quarter", "tanh", "trunc"}


_POSITIVE = {"exp", "exp2"}

_serials = itertools.count()


Combine = Callable[..., "Linear | None"]


def pointwise(function: Callable[..., Residue], combine: Combine | None = None) -> Callable[..., Residue]:
    """Make a function act on the pieces of piecewise operands, and record what its results are made of.

    ``combine`` returns the linear form of a sum or product, if it is linear; other functions act on pieces only where
    the sample point asks for it. All this happens in the algebraic reading alone, and for finite operands.
    """

    @functools.wraps(function)
    def applied(*operands: Residue) -> Residue:
        if not all(x.is_algebraic for x in operands):
            return function(*operands)
        start = next(_serials)
        by_piece: Residue | None = None
        if combine is not None or operands[0].point.semantics.pieces:
            by_piece = piecewise.distribute(applied, *operands)
        out = function(*operands) if by_piece is None else by_piece
        if out.serial < start:  # it is an earlier value, as x is for 1/(1/x)
            return out
        if combine is not None and number_of(out) is None and (linear := combine(*operands)) is not None:
            out.known = replace(facts(out), linear=linear, writes=out.cell.writes)
        if by_piece is None:
            out.origin = Origin.of(applied, operands, out)
        return out

    return applied


def _linear(combine: Combine) -> Callable[[Callable[..., Residue]], Callable[..., Residue]]:
    return functools.partial(pointwise, combine=combine)


def _product_of_linear(x: Residue, y: Residue) -> Linear | None:
    for one, number in ((x, number_of(y)), (y, number_of(x))):
        if number is not None:
            return linear_of(one).times(number)
    return None


class Cell:
    """Bookkeeping shared by a tensor and its views, so that a write through one updates all."""

    __slots__ = (
        *("_size", "borrowed", "contracted", "data", "held", "infinite", "partial"),
        *("random", "undefined", "writes"),
    )

    def __init__(self, size: Size | Callable[[], Size], data: bool, infinite: bool) -> None:
        self._size, self.data, self.infinite = size, data, infinite
        self.writes = 0
        self.borrowed = False
        """True if the memory must not be written to, because it belongs to someone else."""
        self.held = False
        """True if it is the memory of a program's tensor, to which the program may write."""
        self.undefined = False
        """True if elements may be nan for some inputs, as logarithms of data are."""
        self.random = False
        """True if elements depend on random numbers."""
        self.contracted = False
        """True if elements are made of parameters and sums of products alone: none is an element of an input or a
        buffer, which may be infinite on purpose."""
        self.partial = False
        """True if elements may be nan or infinite for some inputs or parameters, as reciprocals of parameters are."""

    @property
    def size(self) -> Size:
        """The size of the elements; that of a large constant is computed when it is asked for."""
        if not isinstance(self._size, Size):
            self._size = self._size()
        return self._size

    @size.setter
    def size(self, size: Size) -> None:
        self._size = size

    @property
    def size_when_asked(self) -> Size | Callable[[], Size]:
        """The size, or the function that computes it."""
        return self._size


class Residue:
    """The residues of one tensor: ``parts[i]`` is a float64 tensor of its shape, modulo the sample point's i-th prime.

    Rules use the methods below and never see a prime. ``data`` is True if the tensor depends on the program's input, or
    has been through a matrix product or convolution: integer inputs carry no residues, and this is the sign of
    activations behind an embedding of tokens. ``infinite`` is True if some elements of the value are infinite on
    purpose (a mask); they have no residue.
    """

    __slots__ = ("cell", "known", "label", "origin", "parts", "point", "serial")

    def __init__(
        self,
        point: SamplePoint,
        parts: Sequence[Tensor],
        size: Size | Callable[[], Size],
        data: bool = False,
        infinite: bool = False,
    ) -> None:
        self.point, self.parts, self.cell = point, parts, Cell(size, data, infinite)
        self.serial = next(_serials)
        self.known: Known | None = None
        """Facts besides the residues, in the algebraic reading."""
        self.origin: Origin | None = None
        """The pointwise function and the operands that it was computed from, in the algebraic reading."""
        self.label: tuple[str, int] | None = None
        """A name of its elements in the algebraic reading, and the number of writes when it got it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Residue:
        """Return a copy at the same sample point; copies of residues that share memory share memory, too."""
        if isinstance(self.parts, OnDemand) and not self.parts.is_writable:  # so that sharing it is safe
            return self
        out = self.view_as(copy.deepcopy(self.parts, memo))
        copied = Cell(self.size, self.data, self.infinite)
        copied.undefined, copied.random = self.undefined, self.cell.random
        copied.contracted, copied.partial = self.cell.contracted, self.cell.partial
        out.cell = memo.setdefault(id(self.cell), copied)
        return out

    @property
    def size(self) -> Size:
        return self.cell.size

    @property
    def data(self) -> bool:
        return self.cell.data

    @property
    def infinite(self) -> bool:
        return self.cell.infinite

    @property
    def undefined(self) -> bool:
        """True if some elements may be nan for some inputs. Comparisons give nan a side, which residues do not show."""
        return self.cell.undefined

    @property
    def real(self) -> bool:
        """True if every element is a real number for all inputs and parameters, because no infinity gets into it."""
        return self.masked_real and not self.infinite

    @property
    def masked_real(self) -> bool:
        """True if the same elements are infinite for all inputs and parameters, because only constants are.

        A product with an infinity has a sign of its own, and is recorded as a choice by value.
        """
        return self.cell.contracted and self.sure

    @property
    def sure(self) -> bool:
        """True if every element has a value for all inputs and parameters."""
        return not self.undefined and not self.cell.partial

    @property
    def varies(self) -> bool:
        """True if it depends on inputs, parameters or uninterpreted functions; otherwise it is a number."""
        return self.size.difference[0] > 0

    @property
    def borrowed(self) -> bool:
        """True if the memory must not be written to, or does not exist."""
        return self.cell.borrowed or (isinstance(self.parts, OnDemand) and not self.parts.is_writable)

    @property
    def layout(self) -> Tensor:
        """A tensor of the shape and strides of the parts, in as much memory, whose elements have no meaning."""
        return self.parts.like if isinstance(self.parts, OnDemand) else self.parts[0]

    @property
    def shape(self) -> torch.Size:
        return self.layout.shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return self.shape.numel()

    def _with(self, parts: Sequence[Tensor], size: Size, *others: Residue) -> Residue:
        data = self.data or any(o.data for o in others)
        infinite = self.infinite or any(o.infinite for o in others)
        out = Residue(self.point, parts if isinstance(parts, OnDemand) else tuple(parts), size, data, infinite)
        out.cell.undefined = self.undefined or any(o.undefined for o in others)
        out.cell.partial = any(o.cell.partial for o in (self, *others))
        out.cell.contracted = any(o.varies for o in (self, *others)) and all(
            o.cell.contracted or not o.varies for o in (self, *others)
        )
        return out

    def _pointwise(self, function: Map, other: Residue) -> Sequence[Tensor]:
        """Return the parts of a function of both; those of a large leaf and a smaller tensor are computed on demand.

        A fold multiplies every weight by a vector, and each product is read once.
        """
        for large, small in ((self, other), (other, self)):
            kept = small.parts
            if isinstance(large.parts, OnDemand) and isinstance(kept, tuple) and 8 * small.numel() <= large.numel():
                leaf, own = large.parts.constant(), [part.clone() for part in kept]  # a program may write to both

                def make(i: int, leaf: OnDemand = leaf, own: list[Tensor] = own, first: bool = large is self) -> Tensor:
                    return self.point.fields[i].reduce_(function(*((leaf[i], own[i]) if first else (own[i], leaf[i]))))

                meta = function(leaf.like, own[0].to("meta"))
                if meta.shape == leaf.like.shape:
                    return OnDemand(Made(meta, len(own), make, computed=True))
        return self._reduced(_each(function, self, other))

    def _reduced(self, made: Iterable[Tensor]) -> list[Tensor]:
        """Reduce, in place, intermediate results that nobody else holds."""
        return [f.reduce_(p) for f, p in zip(self.point.fields, made)]

    def write(self, source: Residue) -> None:
        """Write the elements of ``source``, which broadcast, into this tensor, which may be a part of another one."""
        if isinstance(self.parts, OnDemand):
            self.parts.write(source.parts)
        else:
            for to, part in zip(self.parts, source.parts):
                to.copy_(part)
        self._note_write(source)

    def _note_write(self, source: Residue) -> None:
        cell = self.cell
        cell.writes += 1
        if _fills_its_memory(self.layout):  # nothing is left of the old elements
            cell.size, cell.data, cell.infinite = source.size, source.data, source.infinite
            cell.undefined, cell.contracted = source.undefined, source.cell.contracted
            cell.partial = source.cell.partial
        else:
            cell.size = cell.size.join(source.size)
            cell.data, cell.infinite = cell.data or source.data, cell.infinite or source.infinite
            cell.undefined = cell.undefined or source.undefined
            cell.contracted = cell.contracted and source.cell.contracted
            cell.partial = cell.partial or source.cell.partial

    def copied(self) -> Residue:
        """Return a copy in memory of its own, with the facts that hold now."""
        parts = self.parts
        own = in_memory(parts) if isinstance(parts, OnDemand) else tuple(part.clone() for part in parts)
        out = Residue(self.point, own, self.cell.size_when_asked, self.data, self.infinite)
        out.marked_like(self)
        known = facts(self)
        out.known = None if known is NOTHING else replace(known, writes=0)
        return out

    # Selecting and rearranging: every element of the result is an element of self (or 0).

    def map(self, function: Map, *others: Residue, result: Tensor | None = None) -> Residue:
        """Apply a function that only selects and rearranges elements (of self and of ``others``).

        With the ``result`` of the same on values, that of large leaves is made on demand.
        """
        size = self.size
        for other in others:
            size = size.join(other.size)
        operands = (self, *others)
        if result is not None and _stays_on_demand(operands, result):
            parts: Sequence[Tensor] = in_memory(rearranged([x.parts for x in operands], function, result))
        else:
            parts = [*_each(function, *operands)]
        out = self._with(parts, size, *others)
        if self.is_algebraic:
            if not others and isinstance(self.parts, tuple) and _share_memory(self.parts[0], out.parts[0]):
                out.cell = self.cell  # facts about either end with a write to the other
            linear = None if others else self._arranged(lambda atom: atom.map(function), out)
            out.knowing(nonnegative=all_nonnegative((self, *others)), linear=linear)
        else:
            out.signed(all_nonnegative((self, *others)), False)  # some functions put in zeros
        masked = any(facts(x).masked for x in operands) and all(map(is_masked, operands)) and not out.infinite
        return out.knowing_also(masked=True) if masked else out

    def view(self, function: Map) -> Residue:
        """Apply a function that returns a view; source and view share their bookkeeping."""
        parts = self.parts
        out = self.view_as(parts.view(function) if isinstance(parts, OnDemand) else [function(p) for p in parts])
        if self.is_algebraic and same(self, out):  # autograd detaches what it saves
            out.known, out.origin = self.known, self.origin
        elif self.is_algebraic and (linear := self._arranged(lambda atom: atom.view(function), out)) is not None:
            out.knowing(linear=linear, nonnegative=is_nonnegative(self), positive=is_positive(self))
        else:
            out.signed(is_nonnegative(self), is_positive(self))
        return out.knowing_also(masked=True) if facts(self).masked else out

    def _arranged(self, arrange: Callable[[Residue], Residue], out: Residue) -> Linear | None:
        """Return the linear form of ``out``, which has elements of this one; None for one of several values.

        It is compared with ``out``, because an arrangement may put in zeros. Views of dense tensors always exist.
        """
        linear = facts(self).linear
        if linear is None or len(linear.terms) > 1 or any(term.factor == 1 for term in linear.terms):
            return None
        terms = tuple(
            term_of(arrange(term.atom.spread_over(self).map(Tensor.contiguous)), term.factor) for term in linear.terms
        )
        self.point.tests += 1
        for i, field in enumerate(self.point.fields):
            expected = self.constant(linear.constant).parts[i]
            for term in terms:
                expected = expected + field.reduce(term.atom.parts[i] * self.constant(term.factor).parts[i])
            if not bool((out.parts[i] == field.reduce(expected)).all()):
                return None
        return Linear(terms, linear.constant)

    def view_as(self, parts: Sequence[Tensor]) -> Residue:
        """Return the residue of a view, given the views of the parts."""
        out = Residue(self.point, parts if isinstance(parts, OnDemand) else tuple(parts), lambda: self.size)
        out.cell = self.cell
        return out

    def views(self, function: Callable[[Tensor], Sequence[Tensor]], count: int) -> list[Residue]:
        """Apply a function that returns ``count`` views, as `view`."""
        if isinstance(self.parts, OnDemand):
            return [self.view(lambda part, j=j: function(part)[j]) for j in range(count)]
        return [self.view_as(parts) for parts in zip(*map(function, self.parts))]

    def reshape(self, *shape: int) -> Residue:
        return self.map(lambda x: x.reshape(shape))

    def channels(self, ndim: int, axis: int = 1) -> Residue:
        """Return a vector as a tensor of ``ndim`` dimensions, along ``axis``."""
        return self.reshape(*(-1 if d == axis else 1 for d in range(ndim)))

    def laid_out_like(self, value: Tensor) -> Residue:
        """Return the residue with the strides of ``value``, so that both have the same legal views."""
        parts = self.parts
        if isinstance(parts, OnDemand):
            laid_out: Sequence[Tensor] = parts.laid_out_like(value)
        else:
            laid_out = tuple(laid_out_like(value, p) for p in parts)
        out = self.view_as(laid_out)
        out.known, out.origin = self.known, self.origin
        return out

    # Arithmetic.

    @_linear(lambda x, y: linear_of(x).plus(linear_of(y)))
    def __add__(self, other: Residue) -> Residue:
        out = self._with(self._pointwise(torch.add, other), self.size + other.size, other)
        return out.signed(all_nonnegative((self, other)), is_positive(self) or is_positive(other))

    @_linear(lambda x, y: linear_of(x).plus(linear_of(y), -1))
    def __sub__(self, other: Residue) -> Residue:
        if self.is_algebraic and other.is_algebraic and number_of(other) is None and is_negated(other):
            total: Residue = self + plain(-other)
            return total
        return self._with(self._pointwise(torch.sub, other), self.size + other.size, other)

    @_linear(lambda x: linear_of(x).times(Fraction(-1)))
    def __neg__(self) -> Residue:
        return self._with([-p for p in self.parts], self.size)

    @_linear(_product_of_linear)
    def __mul__(self, other: Residue) -> Residue:
        if self.is_algebraic and other.is_algebraic:
            for one, x in ((self, other), (other, self)):
                if number_of(x) is None and is_negated(one):
                    return -(x * -one)
        out = self._with(self._pointwise(torch.mul, other), self.size * other.size, other)
        if self.is_algebraic and other.is_algebraic:
            return self._known_product(other, out)
        # A variance has a sign in every reading, so that its root has a value for all inputs.
        nonnegative = all_nonnegative((self, other)) or same(self, other)
        return out.signed(nonnegative, is_positive(self) and is_positive(other))

    @property
    def is_complex(self) -> bool:
        """True if it is that of a complex tensor: the real and imaginary parts of ``parts`` are residues."""
        return self.layout.is_complex()

    @property
    def is_algebraic(self) -> bool:
        """True if it is to be read algebraically: it is real and finite, and the sample point asks for it."""
        return self.point.semantics.algebraic and not self.infinite and not self.is_complex

    def defined_if(self, defined: bool) -> Residue:
        """Return the residue, which was just computed, as one that has values for all inputs if ``defined`` is true."""
        self.cell.undefined = not defined
        return self

    def sure_if(self, sure: bool) -> Residue:
        """Return the residue, which was just computed, as one that is `sure` or is not."""
        self.cell.partial = not sure
        return self.defined_if(sure)

    def _total_where(self, operand: Residue, total: bool) -> Residue:
        """Return the residue, a function of ``operand``, as one that has a value wherever that does, if ``total``."""
        self.cell.partial = operand.cell.partial if total else self.cell.partial
        return self.defined_if(total and not operand.undefined)

    def marked_like(self, other: Residue) -> Residue:
        """Return the residue, which was just made, with the marks and the sign of another one for the same elements."""
        self.cell.undefined, self.cell.contracted = other.cell.undefined, other.cell.contracted
        self.cell.partial = other.cell.partial
        return self if facts(self) is not NOTHING else self.signed(is_nonnegative(other), is_positive(other))

    def knowing(self, **known: Any) -> Residue:
        """Return the residue, which was just computed, with facts about it; see `Known`."""
        self.known = Known(**known, writes=self.cell.writes)
        return self

    def signed(self, nonnegative: bool, positive: bool) -> Residue:
        """Return the residue, which was just computed, as one without negative elements, if it is finite."""
        if nonnegative and not self.infinite and not self.is_complex:
            self.known = Known(nonnegative=True, positive=positive, writes=self.cell.writes)
        return self

    def knowing_also(self, **known: Any) -> Residue:
        """Return the residue, which was just computed, with further facts about it."""
        self.known = replace(facts(self), **known, writes=self.cell.writes)
        return self

    def equals(self, other: Residue) -> bool:
        """Return True if both are the same value at this sample point, and so, but for a small chance, everywhere."""
        if same(self, other):
            return True
        if self.shape != other.shape:
            return False
        self.point.tests += 1
        return all(torch.equal(p, q) for p, q in zip(self.parts, other.parts))

    def _known_product(self, other: Residue, out: Residue) -> Residue:
        """Return the product ``out`` of two residues in its normal form."""
        for one, number in ((self, number_of(other)), (other, number_of(self))):
            if number == 1 and one.shape == out.shape and facts(one) is not NOTHING:
                out.known = replace(facts(one), writes=out.cell.writes)
                return out
            if number is not None:
                nonnegative, positive = number >= 0 and is_nonnegative(one), number > 0 and is_positive(one)
                return out.knowing(nonnegative=nonnegative, positive=positive)
        a, b = facts(self), facts(other)
        if a.power and b.power and a.power[1] == b.power[1] and a.power[0].atom.equals(b.power[0].atom):
            base: Residue = a.power[0].atom  # a root of it, times the same root
            exponent = 2 * a.power[1]
            if abs(exponent) == 1 and base.shape == out.shape and is_nonnegative(base):
                return base if exponent == 1 else base.inverse()
        if a.exponent and b.exponent:
            return out.knowing(exponent=term_of(a.exponent.atom + b.exponent.atom), nonnegative=True, positive=True)
        if all_nonnegative((self, other)):
            positive = is_positive(self) and is_positive(other)
            root = term_of(self) if same(self, other) else None
            factors = (term_of(self), term_of(other))
            return out.knowing(nonnegative=True, positive=positive, factors=factors, root=root)
        square = self.equals(other)
        return out.knowing(nonnegative=square, root=term_of(self) if square else None)

    def affine(self, scale: Residue, shift: Residue) -> Residue:
        """Return self · scale + shift, reduced once."""
        if self.is_algebraic:
            return self * scale + shift
        parts = _each(torch.addcmul, shift, self, scale)
        return self._with(self._reduced(parts), self.size * scale.size + shift.size, scale, shift)

    def total(self, function: Map, terms: int) -> Residue:
        """Apply a linear function whose outputs each sum at most ``terms`` elements with coefficients ±1."""
        # The function may return its argument, which must not be reduced in place.
        parts = [f.reduce(function(p)) for f, p in zip(self.point.fields, self.parts)]
        return self._with(parts, self.size.total(terms))

    def sum(self, dims: Sequence[int] | None = None, keepdim: bool = False) -> Residue:
        dims = list(range(self.ndim)) if not dims else list(dims)
        terms = _terms(self.shape, dims)
        out = self.total(lambda x: x.sum(dims, keepdim), terms)
        positive = is_positive(self) and self.numel() > 0
        if facts(self).masked:
            # No sum may be of masked elements alone.
            positive = bool((self.parts[0] != 0).to(torch.float64).sum(dims).all())
        out.signed(is_nonnegative(self), positive)
        root = facts(self).root if terms == 1 else None
        return out if root is None else out.knowing_also(root=term_of(root.atom.sum(dims, keepdim)))

    def mean(self, dims: Sequence[int] | None = None, keepdim: bool = False) -> Residue:
        dims = list(range(self.ndim)) if not dims else list(dims)
        return self.sum(dims, keepdim) / embed_number(self.point, _terms(self.shape, dims))

    def bilinear(
        self, other: Residue, function: Map, terms: int, plus: Residue | None = None, name: Hashable = None
    ) -> Residue:
        """Apply a function linear in self and in ``other``, whose outputs each sum at most ``terms`` products.

        ``plus`` is added before the only reduction. ``name`` identifies the function with its attributes; with a name,
        products with a large leaf are looked up among earlier ones.
        """
        if terms > EXACT_TERMS:
            raise ValueError(f"{terms} products do not add up exactly; split the sum")
        scaled = scale_of(other) if self.is_algebraic and other.is_algebraic else None
        if scaled is not None:  # so that x·(3·w) is three times x·w, as what comes after it may need to know
            product: Residue = self.bilinear(scaled[1], function, terms, None, name) * self.constant(scaled[0])
            return product if plus is None else product + plus
        size = (self.size * other.size).total(terms)

        def multiply(then: Residue | None) -> list[Tensor]:
            made = _each(function, self, other)
            made = made if then is None else map(Tensor.add_, made, then.parts)
            return self._reduced(self._reduced(made) if terms > BALANCED_TERMS else made)

        leaf = other.parts.constant() if name is not None and isinstance(other.parts, OnDemand) else None
        if leaf is not None and leaf.is_leaf:
            parts = self.point.products(name, self.parts, leaf, lambda: multiply(None))
            parts = parts if plus is None else self._reduced(map(torch.add, parts, plus.parts))
        else:
            parts = multiply(plus)
        out = self._with(parts, size, other) if plus is None else self._with(parts, size + plus.size, other, plus)
        out.cell.data = True
        out.cell.contracted = self._is_mixed_with(other) and (plus is None or plus.cell.contracted or not plus.varies)
        return out

    def _is_mixed_with(self, other: Residue) -> bool:
        """Return True if a sum of products of both is no element of either: a constant may select elements."""
        return self.varies and other.varies

    def matmul(self, other: Residue, plus: Residue | None = None) -> Residue:
        """Return the matrix product over self's last dimension and ``other``'s last but one (as `torch.matmul`)."""
        terms = self.shape[-1]
        drawn = self._drawn_product(other, terms)
        if drawn is not None:
            return drawn if plus is None else drawn + plus
        if terms <= EXACT_TERMS:
            return self.bilinear(other, torch.matmul, terms, plus, "matmul")
        dim = -2 if other.ndim > 1 else 0
        pieces = [
            self.map(lambda x: x.narrow(-1, i, n)).matmul(other.map(lambda x: x.narrow(dim, i, n)))
            for i, n in _chunks(terms, EXACT_TERMS)
        ]
        return add_all([*pieces, *([] if plus is None else [plus])])

    def _drawn_product(self, other: Residue, terms: int) -> Residue | None:
        """Return the product with a random matrix that need not be drawn; None for others."""
        seen = other.parts.matrix if isinstance(other.parts, OnDemand) and isinstance(self.parts, tuple) else None
        parts = None if seen is None else seen[0].times(self.parts, seen[1])
        if parts is None:
            return None
        out = self._with(parts, (self.size * other.size).total(terms), other)
        out.cell.data = True
        out.cell.contracted = self._is_mixed_with(other)
        return out

    def rows(self, at: Tensor, select: Map) -> Residue:
        """Return the rows of a matrix at some indices, which ``select`` picks from its parts."""
        seen = self.parts.matrix if isinstance(self.parts, OnDemand) else None
        parts = seen[0].lookup(at) if seen is not None and not seen[1] else None
        return self.map(lambda part: select(part, at)) if parts is None else self._with(parts, self.size)

    @pointwise
    def inverse(self) -> Residue:
        """Return 1/x, exact for parameters and constants, uninterpreted for a divisor that depends on the input.

        An exact inverse of data would raise the degree of the compared polynomials with every division, and with it the
        probability of error. Little is lost: no rewrite in use cancels one data-dependent divisor against another.

        Raises:
            Undecided: an element is infinite, or 0 for any parameters (0 modulo every prime).
        """
        semantics = self.point.semantics
        scaled = scale_of(self) if self.is_algebraic else None
        if scaled is not None:  # so that 1/(2·√x) is half of 1/√x
            number, value = scaled
            inverse: Residue = value.inverse()
            return inverse * embed_fraction(self.point, 1 / number)
        exact = semantics.algebraic and (semantics.rational or is_positive(self))
        if self.data and not exact:
            out = apply_uninterpreted("reciprocal", [self], torch.reciprocal, nonzero=True)
            return out._total_where(self, is_positive(self)).signed(is_positive(self), is_positive(self))
        return self.exact_inverse()

    def exact_inverse(self) -> Residue:
        """Return 1/x in the field, for x that is 0 at single points at most; raises as `inverse` does."""
        defined = not self.undefined and (not self.data or is_positive(self))
        if self.is_algebraic and (power := facts(self).power) is not None:
            base: Residue = power[0].atom
            exponent = power[1]
            self.point.partial = True
            return base if exponent == -1 else base.rsqrt() if exponent > 0 else base.sqrt()
        self.point.partial |= self.data
        if self.infinite:
            raise Undecided("a divisor is infinite")
        # Modulo one prime alone, which tells sizes only, one of a million elements is 0 by chance.
        if len(self.parts) > 1 and bool(functools.reduce(torch.mul, [p == 0 for p in self.parts]).any()):
            raise Undecided("a divisor is zero")
        parts = [f.inverse(p) for f, p in zip(self.point.fields, self.parts)]
        out = self._with(parts, self.size.inverse(self._number())).defined_if(defined)
        out.cell.partial |= self.varies and not is_positive(self)
        return self._known_inverse(out) if self.is_algebraic else out.signed(is_positive(self), is_positive(self))

    def _known_inverse(self, out: Residue) -> Residue:
        known, number = facts(self), number_of(self)
        if number:
            return out.knowing(linear=Linear((), 1 / number), nonnegative=number > 0, positive=number > 0)
        exponential = None if known.exponent is None else term_of(-known.exponent.atom)
        return out.knowing(
            power=(term_of(self), Fraction(-1)),
            nonnegative=is_nonnegative(self),
            positive=is_positive(self),
            exponent=exponential,
        )

    def _number(self) -> tuple[float, ...] | None:
        """Return the number that all elements, or the only element, are equal to; None if there is none."""
        if self.numel() == 0 or (self.numel() > 1 and self.varies):
            return None
        first = [p.flatten()[0] for p in self.parts]
        return tuple(map(float, first)) if all(bool((p == f).all()) for p, f in zip(self.parts, first)) else None

    def __truediv__(self, other: Residue) -> Residue:
        return self * other.inverse()

    @pointwise
    def rsqrt(self) -> Residue:
        """Return 1/sqrt(x), uninterpreted; tied to `sqrt` by rsqrt = 1/sqrt."""
        if self.is_algebraic:
            if (known := facts(plain(self)).root) is not None:
                size: Residue = known.atom.absolute()
                return size.inverse()
            out = apply_uninterpreted("rsqrt", [self], torch.rsqrt, nonzero=True)._total_where(self, is_positive(self))
            out.defined_if(not self.undefined and (not self.data or is_positive(self)))
            return out.knowing(power=(term_of(self), Fraction(-1, 2)), nonnegative=True, positive=True)
        if self.data:
            return self.sqrt().inverse()
        out = apply_uninterpreted("rsqrt", [self], torch.rsqrt, nonzero=True)
        if is_positive(self):  # a variance that is a parameter may be negative
            out._total_where(self, True)
        return out.signed(True, True)

    @pointwise
    def sqrt(self) -> Residue:
        """Return sqrt(x), uninterpreted.

        Without data it is the reciprocal of `rsqrt`, so that BatchNorm's scale needs no denominator.
        """
        if self.is_algebraic:
            if (known := facts(plain(self)).root) is not None:
                size: Residue = known.atom.absolute()
                return size
            # √x = x·(1/√x), so that √x/x is 1/√x. The product is 0 at 0, whatever 1/√0 is.
            root = apply_uninterpreted("rsqrt", [self], lambda t: torch.where(t == 0, 0.0, t.rsqrt()), nonzero=True)
            out = (self * root).defined_if(not self.undefined and (not self.data or is_nonnegative(self)))
            return out.knowing(power=(term_of(self), Fraction(1, 2)), nonnegative=True, positive=is_positive(self))
        if self.data:
            out = apply_uninterpreted("sqrt", [self], torch.sqrt, nonzero=True)
            return out._total_where(self, is_nonnegative(self)).signed(True, is_positive(self))
        return self.rsqrt().inverse()

    def power(self, exponent: int) -> Residue:
        """Return ``x ** exponent`` for a whole exponent >= 0."""
        result, square = embed_number(self.point, 1).map(lambda x: x.expand(self.shape)), self
        if self.point.semantics.algebraic:
            result.knowing(linear=Linear((), Fraction(1)))
        while exponent:
            result = result * square if exponent & 1 else result
            exponent >>= 1
            square = square * square if exponent else square
        return result

    def maximum(self, other: Residue) -> Residue:
        """Return max(x, y), uninterpreted and symmetric: its arguments x + y and x * y determine the unordered pair."""
        if self.is_algebraic and other.is_algebraic:
            return self._known_maximum(other)
        return self.any_maximum(other)

    def any_maximum(self, other: Residue) -> Residue:
        """Return max(x, y) without its pieces."""
        zero = other.numel() == 1 and not any(bool(p) for p in other.parts)
        total, product = (self, other) if zero else (self + other, self * other)
        out = apply_uninterpreted("maximum", [total, product], lambda *_: torch.maximum(self.parts[0], other.parts[0]))
        nonnegative = is_nonnegative(self) or is_nonnegative(other)
        return out.signed(nonnegative, is_positive(self) or is_positive(other))

    def minimum(self, other: Residue) -> Residue:
        """min(x, y) = -max(-x, -y)."""
        return -(-self).maximum(-other)

    def _known_maximum(self, other: Residue) -> Residue:
        """Return x or y by the sign of x - y, and of more than two values a symmetric function of them."""
        for x, zero in ((self, other), (other, self)):
            shifted = _shifted_maximum(x) if number_of(zero) == 0 else None
            if shifted is not None:  # max(max(a, b) - c, 0) = max(a, b, c) - c
                largest, shift = shifted
                return (largest.maximum(shift) - shift).knowing_also(nonnegative=True)
        terms: list[Term] = []
        for term in [term for x in (plain(self), plain(other)) for term in facts(x).largest or (term_of(x),)]:
            if not any(term.atom.equals(one.atom) for one in terms):
                terms.append(term)
        numbers = number_of(self) is not None or number_of(other) is not None
        if len(terms) > 2 and not numbers:
            return largest_of([term.atom for term in terms])
        out: Residue = piecewise.choose(self - other, self, other, self)
        if numbers or facts(out).piecewise is None:
            return out
        # Without its pieces: exp(x - m) of each piece would not cancel exp(m) where maxima of other values meet it.
        nonnegative = is_nonnegative(self) or is_nonnegative(other)
        return out.knowing(largest=tuple(terms), nonnegative=nonnegative)

    def absolute(self) -> Residue:
        """Return |x|, the square root of x²; in the algebraic reading, both are x or -x by the sign of x."""
        if not self.is_algebraic:
            return (self * self).sqrt()
        if is_nonnegative(self):
            return self
        out: Residue = piecewise.choose(self, self, -self, embed_number(self.point, 0))
        return out

    def constant(self, number: Fraction | int) -> Residue:
        """Return the residue of a number at the same sample point."""
        return embed_fraction(self.point, Fraction(number))

    def apply(self, name: str, real: Callable[[Tensor], Tensor]) -> Residue:
        """Apply the uninterpreted function ``name``; see `apply_uninterpreted`."""
        return apply_uninterpreted(name, [self], real)

    def spread_over(self, *others: Residue) -> Residue:
        """Return the residue with the shape that it has with ``others``."""
        shape = torch.broadcast_shapes(self.shape, *(o.shape for o in others))
        if self.shape == shape:
            return self
        out, number = self.map(lambda part: part.expand(shape)), number_of(self)
        return out if number is None else out.knowing(linear=Linear((), number))


def largest_of(values: Sequence[Residue]) -> Residue:
    """Return the largest of more than two values.

    It is their mean, and an uninterpreted function of their distances to it in any order: of the product of all
    (t - distance) at one random t, which is a polynomial of t with these roots. So max(x + c, y + c) is max(x, y) + c.
    """
    point = values[0].point
    mean = add_all(values) * embed_fraction(point, Fraction(1, len(values)))
    place = apply_uninterpreted("place of polynomials of roots", [embed_number(point, 0)], lambda x: x + 0.5)
    product = functools.reduce(operator.mul, [place - (value - mean) for value in values])

    def real(_: Tensor) -> Tensor:
        return functools.reduce(torch.maximum, [value.parts[0] for value in values]) - mean.parts[0]

    out = mean + apply_uninterpreted(f"largest({len(values)})", [product], real)
    return out.knowing(largest=tuple(term_of(v) for v in values), nonnegative=any(is_nonnegative(v) for v in values))


def _shifted_maximum(x: Residue) -> tuple[Residue, Residue] | None:
    """Return m and c of a value m - c, where m is the largest of some values and c is no number; None for others."""
    terms = linear_of(x).terms
    largest = [term.atom for term in terms if term.factor == 1 and len(facts(term.atom).largest) > 1]
    if len(largest) != 1 or len(terms) < 2:
        return None
    return largest[0], largest[0] - x


def apply_uninterpreted(
    name: str, operands: Sequence[Residue], real: Callable[..., Tensor], nonzero: bool = False
) -> Residue:
    """Apply the uninterpreted function ``name`` (operator, attributes and dtype) to ``operands``, which broadcast.

    The operands belong to one sample point. ``real`` is the function on float64 tensors, the meaning of the same rule
    over the real numbers.
    """
    point = operands[0].point
    out = point.evaluate(name, [tuple(o.parts) for o in operands], real, nonzero)
    for operand in operands:
        point.observe(operand.size)
    data = name not in _ROOTS or any(o.data for o in operands)
    made = Residue(point, out, Size.variable(), data)
    total = name.split("(")[0] in _TOTAL or not any(o.data for o in operands)
    made.cell.partial = any(o.cell.partial or (o.varies and name.split("(")[0] not in _TOTAL) for o in operands)
    made.signed(name.split("(")[0] in _POSITIVE, True)
    return made.defined_if(total and not any(o.undefined for o in operands))


def embed_number(point: SamplePoint, x: float | int | bool, dtype: torch.dtype = torch.float64) -> Residue:
    """Return the exact residues of a number that ``dtype`` holds, or of the number that it is read as."""
    point.note_numbers([float(x)])
    meant = None
    if point.constants is not None and isinstance(x, float):
        x = float(point.constants.near(torch.tensor(x, dtype=torch.float64), point.first, dtype))
        meant = point.constants.number(x, dtype)
    if meant is not None:
        parts = [torch.tensor(float(meant.residue(f)), dtype=torch.float64) for f in point.fields]
        size = _size_of_fraction(meant.fraction)
        for q, _ in meant.roots:
            size = size * _size_of_number(q)
        known = Residue(point, tuple(f.reduce(part) for f, part in zip(point.fields, parts)), size)
        if not meant.roots:
            known.knowing(linear=Linear((), meant.fraction))
        if meant.logarithm is None:
            return known
        logarithm = log_of_number(point, meant.logarithm.of)
        return known * (logarithm.inverse() if meant.logarithm.below else logarithm)
    device_free = [torch.tensor(float(f.number(x)), dtype=torch.float64) for f in point.fields]
    out = Residue(point, tuple(f.reduce(t) for f, t in zip(point.fields, device_free)), _size_of_number(x))
    return out.knowing(linear=Linear((), Fraction(x))) if math.isfinite(x) else out


def log_of_number(point: SamplePoint, n: int) -> Residue:
    """Return the logarithm of a whole number > 1, the uninterpreted function log of it."""
    out = apply_uninterpreted("log", [embed_number(point, n)], torch.log)
    return out.knowing(nonnegative=True, positive=True) if point.semantics.algebraic else out


def embed_fraction(point: SamplePoint, x: Fraction) -> Residue:
    """Return the exact residues of a fraction."""
    above, below = (
        [torch.tensor(float(f.number(n)), dtype=torch.float64) for f in point.fields]
        for n in (x.numerator, x.denominator)
    )
    made = tuple(f.reduce(a * f.inverse(b)) for f, a, b in zip(point.fields, above, below))
    return Residue(point, made, _size_of_fraction(x)).knowing(linear=Linear((), x))


def _size_of_fraction(x: Fraction) -> Size:
    return _size_of_number(abs(x.numerator)) * _size_of_number(x.denominator).inverse((float(x.denominator),))


def _size_of_number(x: int | float) -> Size:
    if x == 0:
        return Size.constant(0, 0.0)
    if isinstance(x, int):
        return Size.constant(0, math.log2(abs(x)))
    _, denominator = x.as_integer_ratio()
    return Size.constant(1 - denominator.bit_length(), math.log2(abs(x)))


def _each(function: Map, *operands: Residue) -> Iterator[Tensor]:
    """Yield ``function`` of the operands' parts, prime by prime, so that one part made on demand is alive at a time."""
    for i in range(len(operands[0].parts)):
        yield function(*[o.parts[i] for o in operands])


def _stays_on_demand(operands: Sequence[Residue], result: Tensor) -> bool:
    """Return True for most of the elements of large leaves, which take less time to make anew than memory to keep.

    Elements selected from a leaf, such as the rows of an embedding, are stored.
    """
    leaves = [x for x in operands if isinstance(x.parts, OnDemand)]
    others = sum(x.numel() for x in operands if not isinstance(x.parts, OnDemand))
    return (
        bool(leaves)
        and not any(x.data or x.infinite for x in operands)
        and 2 * result.numel() >= sum(x.numel() for x in leaves)
        and 8 * others <= result.numel()
    )


def _share_memory(x: Tensor, y: Tensor) -> bool:
    return x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr()


def _fills_its_memory(x: Tensor) -> bool:
    expected = 1
    for step, n in sorted(zip(x.stride(), x.shape)):
        if n != 1 and step != expected:
            return False
        expected *= n
    return expected * x.element_size() == x.untyped_storage().nbytes()


def add_all(terms: Sequence[Residue]) -> Residue:
    out = terms[0]
    for term in terms[1:]:
        out = out + term
    return out


def _terms(shape: Sequence[int], dims: Sequence[int]) -> int:
    out = 1
    for d in {d % max(len(shape), 1) for d in dims}:
        out *= shape[d] if shape else 1
    return out


def _chunks(total: int, step: int) -> list[tuple[int, int]]:
    return [(i, min(step, total - i)) for i in range(0, total, step)]
