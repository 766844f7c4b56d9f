"""Operators on complex numbers, by operators on their real and imaginary parts; see `foldproof.shadow.complex`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foldproof.shadow.call import Call
from foldproof.shadow.complex import of_parts, parts_of
from foldproof.shadow.registry import complex_rule, exact
from foldproof.shadow.residue import Residue
from foldproof.shadow.undecided import Undecided
from foldproof.torch_internals import tree_map

aten = torch.ops.aten

MAX_EXPONENT = 64
"""Largest whole exponent of a power by multiplication."""


# Views.


@exact(aten.view_as_real.default, complex=True)
def view_as_real(call: Call, z: Tensor) -> Residue:
    """the pairs that complex residues are"""
    return call.residue(z).view(torch.view_as_real)


@exact(aten.view_as_complex.default, complex=True)
def view_as_complex(call: Call, x: Tensor) -> Residue:
    """pairs of residues"""
    if call.residue(x).infinite:
        raise call.undecided("complex numbers with infinite parts")
    return call.residue(x).view(torch.view_as_complex)


@exact(aten.view.dtype, complex=True)
def view_dtype(call: Call, x: Tensor, dtype: torch.dtype) -> Residue:
    """complex numbers as pairs, or pairs as complex numbers"""
    residue = call.residue(x)
    if dtype == x.dtype:
        return residue.view(lambda part: part.view(part.dtype))
    if dtype.to_real() != x.dtype.to_real() or not (dtype.is_complex or x.is_complex()) or residue.infinite:
        raise call.undecided("bits of numbers as other numbers")
    as_pairs = torch.complex128 if dtype.is_complex else torch.float64
    return residue.view(lambda part: part.view(as_pairs))


# Parts.


@complex_rule(aten.complex.default)
def complex_(real: Tensor, imaginary: Tensor) -> Tensor:
    """real + i·imaginary"""
    return of_parts(real, imaginary)


@complex_rule(aten.polar.default)
def polar(length: Tensor, angle: Tensor) -> Tensor:
    """length·cos(angle) + i·length·sin(angle)"""
    return of_parts(length * torch.cos(angle), length * torch.sin(angle))


@complex_rule(aten._conj_physical.default, aten.conj_physical.default)
def conjugate(z: Tensor) -> Tensor:
    """the imaginary part negated"""
    a, b = parts_of(z)
    return z.clone() if b is None else of_parts(a, -b)


@complex_rule(aten.abs.default)
def absolute(z: Tensor) -> Tensor:
    """√(a² + b²)"""
    return torch.sqrt(_norm(z))


@complex_rule(aten.angle.default)
def angle(z: Tensor) -> Any:
    """atan2(b, a)"""
    a, b = parts_of(z)
    return NotImplemented if b is None else torch.atan2(b, a)


@complex_rule(aten._to_copy.default)
def to_copy(x: Tensor, *, dtype: torch.dtype | None = None, **kwargs: Any) -> Tensor:
    """each part converted; a conversion to real numbers drops the imaginary part"""
    target = dtype or x.dtype
    kwargs.pop("memory_format", None)
    a, b = parts_of(x)
    real: Tensor = aten._to_copy.default(a, dtype=target.to_real() if target.is_complex else target, **kwargs)
    if not target.is_complex:
        return real
    return of_parts(real, None if b is None else aten._to_copy.default(b, dtype=target.to_real(), **kwargs))


# Arithmetic.


@complex_rule(aten.add.Tensor, aten.add.Scalar)
def add(x: Any, y: Any, alpha: Any = 1) -> Tensor:
    """x + alpha·y"""
    return _plus(x, y if alpha == 1 else mul(y, alpha), torch.add)


@complex_rule(aten.sub.Tensor, aten.sub.Scalar)
def sub(x: Any, y: Any, alpha: Any = 1) -> Tensor:
    """x - alpha·y"""
    return _plus(x, y if alpha == 1 else mul(y, alpha), torch.sub)


@complex_rule(aten.rsub.Tensor, aten.rsub.Scalar)
def rsub(x: Any, y: Any, alpha: Any = 1) -> Tensor:
    """y - alpha·x"""
    return sub(y, x, alpha)


def _plus(x: Any, y: Any, function: Callable[[Any, Any], Any]) -> Tensor:
    (a, b), (c, d) = parts_of(x), parts_of(y)
    imaginary = b if d is None else function(0 if b is None else b, d)
    return of_parts(function(a, c), imaginary)


@complex_rule(aten.mul.Tensor, aten.mul.Scalar)
def mul(x: Any, y: Any) -> Any:
    """(a·c - b·d) + i·(a·d + b·c)"""
    if not (isinstance(x, Tensor) or isinstance(y, Tensor)):
        return x * y
    return _product(x, y, lambda a, b: a * b)


def _product(x: Any, y: Any, times: Callable[[Any, Any], Any]) -> Tensor:
    """Return a bilinear function of complex tensors, or of one and a real one."""
    (a, b), (c, d) = parts_of(x), parts_of(y)
    if b is None:
        return of_parts(times(a, c), None if d is None else times(a, d))
    if d is None:
        return of_parts(times(a, c), times(b, c))
    return of_parts(times(a, c) - times(b, d), times(a, d) + times(b, c))


@complex_rule(aten.div.Tensor, aten.div.Scalar)
def div(x: Any, y: Any) -> Tensor:
    """x·(c - i·d)/(c² + d²)"""
    c, d = parts_of(y)
    if d is None:
        a, b = parts_of(x)
        return of_parts(a / c, b / c)
    return mul(x, reciprocal(y))  # type: ignore[no-any-return]


@complex_rule(aten.reciprocal.default)
def reciprocal(z: Any) -> Any:
    """(a - i·b)/(a² + b²)"""
    if not isinstance(z, Tensor):
        return 1 / z
    (a, b), size = parts_of(z), _norm(z)
    return of_parts(a / size, -b / size)


def _norm(z: Tensor) -> Tensor:
    a, b = parts_of(z)
    size: Tensor = a * a if b is None else a * a + b * b
    return size


@complex_rule(aten.neg.default)
def neg(z: Tensor) -> Tensor:
    """-a - i·b"""
    a, b = parts_of(z)
    return of_parts(-a, -b)


@complex_rule(aten.addcmul.default)
def addcmul(x: Tensor, y: Tensor, z: Tensor, *, value: Any = 1) -> Tensor:
    """x + value·y·z"""
    return add(x, mul(y, z), value)


@complex_rule(aten.addcdiv.default)
def addcdiv(x: Tensor, y: Tensor, z: Tensor, *, value: Any = 1) -> Tensor:
    """x + value·y/z"""
    return add(x, y / z, value)


@complex_rule(aten.lerp.Tensor, aten.lerp.Scalar)
def lerp(x: Tensor, y: Tensor, weight: Any) -> Tensor:
    """x + weight·(y - x)"""
    return add(x, mul(weight, y - x))


@complex_rule(aten.pow.Tensor_Scalar)
def power(z: Tensor, exponent: Any) -> Tensor:
    """whole exponents by multiplication, 1/2 as √"""
    if exponent == 0.5:
        return square_root(z)
    if isinstance(exponent, complex) or exponent != int(exponent) or abs(exponent) > MAX_EXPONENT:
        raise Undecided(f"{aten.pow.Tensor_Scalar}: no rule for a complex number to the power of {exponent}")
    if exponent < 0:
        return reciprocal(power(z, -exponent))  # type: ignore[no-any-return]
    result, square, left = torch.ones_like(z), z, int(exponent)
    while left:
        result = mul(result, square) if left & 1 else result
        left >>= 1
        square = mul(square, square) if left else square
    return result


# Products and sums.


@complex_rule(aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default)
def matmul(x: Tensor, y: Tensor) -> Tensor:
    """products of the parts"""
    return _product(x, y, torch.matmul)


@complex_rule(aten.linalg_cross.default)
def cross(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """cross products of the parts"""
    return _product(x, y, lambda a, b: torch.linalg.cross(a, b, dim=dim))


@complex_rule(aten.vdot.default)
def vdot(x: Tensor, y: Tensor) -> Tensor:
    """the product of the first one's conjugate and the second"""
    return _product(conjugate(x), y, torch.matmul)


@complex_rule(aten.addmm.default, aten.baddbmm.default, aten.addmv.default)
def addmm(c: Tensor, x: Tensor, y: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta·c + alpha·x·y"""
    product = mul(_product(x, y, torch.matmul), alpha)
    if beta == 0:  # c is ignored then, even if it holds a nan
        return product  # type: ignore[no-any-return]
    return add(product, mul(c, beta))


@complex_rule(aten.addr.default)
def addr(c: Tensor, x: Tensor, y: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """beta·c + alpha·x·yᵀ"""
    product = mul(mul(x.unsqueeze(-1), y), alpha)
    return product if beta == 0 else add(product, mul(c, beta))


def _register_linear(*operators: Any) -> None:
    """Define operators that are linear with real coefficients, the same for both parts of all tensors of numbers."""

    def define(operator: Any) -> None:
        def linear(*args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Tensor:
            """each part by itself"""
            options = {} if dtype is None else {"dtype": dtype.to_real() if dtype.is_complex else dtype}
            if dtype is not None and not dtype.is_complex:
                raise Undecided(f"{operator}: complex numbers as {dtype}")
            parts = (operator(*tree_map(lambda x, i=i: _part(x, i), args), **kwargs, **options) for i in range(2))
            return of_parts(*parts)

        complex_rule(operator)(linear)

    for operator in operators:
        define(operator)


def _part(x: Any, i: int) -> Any:
    """Return the real (0) or imaginary (1) part of a tensor of numbers, any other argument unchanged."""
    if isinstance(x, complex):
        raise Undecided("a complex number as a factor")
    if not isinstance(x, Tensor) or not (x.is_complex() or x.is_floating_point()):
        return x
    part = parts_of(x)[i]
    return torch.zeros_like(x) if part is None else part


_register_linear(
    aten.cumsum.default,
    aten.index_add.default,
    aten.index_put.default,
    aten.mean.default,
    aten.mean.dim,
    aten.scatter.src,
    aten.scatter_add.default,
    aten.sum.default,
    aten.sum.dim_IntList,
    aten.trace.default,
)


@complex_rule(aten.linalg_vector_norm.default)
def vector_norm(
    z: Tensor, ord: float = 2, dim: list[int] | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None
) -> Tensor:
    """the norm of the absolute values"""
    options = {} if dtype is None else {"dtype": dtype.to_real()}
    out: Tensor = aten.linalg_vector_norm.default(absolute(z), ord, dim, keepdim, **options)
    return out


# Choices and comparisons.


@complex_rule(aten.where.self, aten.where.ScalarSelf, aten.where.ScalarOther)
def where(condition: Tensor, x: Any, y: Any) -> Tensor:
    """each part by itself"""
    (a, b), (c, d) = parts_of(x), parts_of(y)
    return of_parts(torch.where(condition, a, c), torch.where(condition, 0 if b is None else b, 0 if d is None else d))


@complex_rule(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(x: Tensor, mask: Tensor, value: Any) -> Tensor:
    """each part by itself"""
    (a, b), (c, d) = parts_of(x), parts_of(value)
    return of_parts(a.masked_fill(mask, c), b.masked_fill(mask, 0 if d is None else d))


@complex_rule(aten.eq.Tensor, aten.eq.Scalar)
def eq(x: Any, y: Any) -> Tensor:
    """both parts are equal"""
    (a, b), (c, d) = parts_of(x), parts_of(y)
    return torch.logical_and(aten.eq(a, c), aten.eq(*_both(b, d, a)))


@complex_rule(aten.ne.Tensor, aten.ne.Scalar)
def ne(x: Any, y: Any) -> Tensor:
    """a part differs"""
    (a, b), (c, d) = parts_of(x), parts_of(y)
    return torch.logical_or(aten.ne(a, c), aten.ne(*_both(b, d, a)))


def _both(b: Any, d: Any, like: Any) -> tuple[Any, Any]:
    if b is None and d is not None:
        return (d, 0) if isinstance(d, Tensor) else (torch.zeros_like(like), d)
    return b, 0 if d is None else d


@complex_rule(aten.isnan.default)
def isnan(z: Tensor) -> Tensor:
    """a part is nan"""
    a, b = parts_of(z)
    return torch.logical_or(a.isnan(), b.isnan())


# Elementary functions.


@complex_rule(aten.exp.default)
def exponential(z: Tensor) -> Tensor:
    """exp(a)·(cos(b) + i·sin(b))"""
    a, b = parts_of(z)
    size = a.exp()
    return of_parts(size * b.cos(), size * b.sin())


@complex_rule(aten.log.default)
def logarithm(z: Tensor) -> Tensor:
    """log|z| + i·angle"""
    return of_parts(absolute(z).log(), angle(z))


@complex_rule(aten.sqrt.default)
def square_root(z: Tensor) -> Tensor:
    """√|z| at half the angle"""
    return polar(absolute(z).sqrt(), angle(z) / 2)


@complex_rule(aten.sin.default)
def sine(z: Tensor) -> Tensor:
    """sin(a)·cosh(b) + i·cos(a)·sinh(b)"""
    a, b = parts_of(z)
    return of_parts(a.sin() * b.cosh(), a.cos() * b.sinh())


@complex_rule(aten.cos.default)
def cosine(z: Tensor) -> Tensor:
    """cos(a)·cosh(b) - i·sin(a)·sinh(b)"""
    a, b = parts_of(z)
    return of_parts(a.cos() * b.cosh(), -(a.sin() * b.sinh()))


@complex_rule(aten.sinh.default)
def hyperbolic_sine(z: Tensor) -> Tensor:
    """sinh(a)·cos(b) + i·cosh(a)·sin(b)"""
    a, b = parts_of(z)
    return of_parts(a.sinh() * b.cos(), a.cosh() * b.sin())


@complex_rule(aten.cosh.default)
def hyperbolic_cosine(z: Tensor) -> Tensor:
    """cosh(a)·cos(b) + i·sinh(a)·sin(b)"""
    a, b = parts_of(z)
    return of_parts(a.cosh() * b.cos(), a.sinh() * b.sin())


@complex_rule(aten.tanh.default)
def hyperbolic_tangent(z: Tensor) -> Tensor:
    """sinh/cosh"""
    return hyperbolic_sine(z) / hyperbolic_cosine(z)


@complex_rule(aten.sigmoid.default)
def sigmoid(z: Tensor) -> Tensor:
    """1/(1 + exp(-z))"""
    return reciprocal(exponential(-z) + 1)  # type: ignore[no-any-return]


@complex_rule(aten.silu.default)
def silu(z: Tensor) -> Tensor:
    """z·sigmoid(z)"""
    return mul(z, sigmoid(z))  # type: ignore[no-any-return]
