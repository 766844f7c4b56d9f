"""GF(p) on float64 tensors: integers of magnitude below p/2 (balanced residues), reduced after every product.

Products of two residues are below 2^38, so a sum of up to `EXACT_TERMS` of them stays below 2^53: native float64
``matmul`` and ``convolution`` compute it exactly, in any order of addition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

EXACT_TERMS = 1 << 14
"""Largest number of products of residues with an exact float64 sum."""

BALANCED_TERMS = 1 << 12
"""Largest number of products whose sum one reduction brings below p/2; longer sums are reduced twice."""

_BLOCK = 1 << 15  # elements reduced at a time, so that the passes run in cache and no large temporary is allocated

# Exponents that frexp gives for float64, subnormals included, less the 53 bits of the mantissa.
_LOWEST, _HIGHEST = -1073 - 53, 1024 - 53


class Field:
    """The integers modulo a prime ``p`` with 2^19 < p < 2^20.

    All methods take and return float64 tensors that hold integers; results are balanced residues.
    """

    def __init__(self, p: int) -> None:
        self.p = p
        self._reciprocal = 1.0 / p
        self._powers: Tensor | None = None

    def reduce(self, x: Tensor) -> Tensor:
        """Return ``x`` modulo p, for integers |x| <= 2^50 (`torch.remainder` is about 15 times slower).

        The quotient's error is at most 1/(4p), and its distance from a half at least 1/(2p), because p is odd: rounding
        goes to the right side. For larger x, up to 2^53, the quotient may be one off; a second reduction mends that.
        """
        return self.reduce_(x.clone())

    def reduce_(self, x: Tensor) -> Tensor:
        """Apply `reduce` in place, for intermediate results that nobody else holds."""
        if x.numel() <= _BLOCK or not x.is_contiguous():
            return x.sub_(torch.mul(x, self._reciprocal).round_(), alpha=self.p)
        flat = x.view(-1)
        quotient = torch.empty(_BLOCK, dtype=torch.float64, device=x.device)
        for start in range(0, flat.numel(), _BLOCK):
            block = flat[start : start + _BLOCK]
            q = torch.mul(block, self._reciprocal, out=quotient[: block.numel()]).round_()
            block.sub_(q, alpha=self.p)
        return x

    def canonical(self, x: Tensor) -> Tensor:
        """Return the representatives in [0, p) of balanced residues."""
        return torch.sub(x, torch.mul(x, self._reciprocal).floor_(), alpha=self.p)

    def power(self, x: Tensor, exponent: int) -> Tensor:
        """Return ``x ** exponent`` for ``exponent >= 0``, by squaring."""
        result, square = torch.ones_like(x), x
        while exponent:
            if exponent & 1:
                result = self.reduce_(result * square)
            exponent >>= 1
            if exponent:
                square = self.reduce_(square * square)
        return result

    def inverse(self, x: Tensor) -> Tensor:
        """Return 1/x by Fermat's little theorem; 0 where x is 0.

        A total inverse is sound: clearing denominators turns the difference of two programs into a polynomial, which
        vanishes wherever a divisor does, and the error bound counts the roots of that polynomial.
        """
        if x.numel() == 1:  # for one number, Python is quicker than forty passes over a tensor
            return self.reduce_(torch.full_like(x, float(pow(int(x), self.p - 2, self.p))))
        return self.power(x, self.p - 2)

    def number(self, x: int | float | bool) -> int:
        """Return the exact residue of a finite Python number: m * 2^e mod p for m * 2^e."""
        if isinstance(x, int):
            return int(x) % self.p
        mantissa, exponent = math.frexp(x)
        return int(mantissa * 2.0**53) % self.p * pow(2, exponent - 53, self.p) % self.p

    def embed(self, x: Tensor) -> Tensor:
        """Return the exact residues of a tensor of finite numbers of any real dtype; infinities become 0."""
        if not x.dtype.is_floating_point:
            return self.reduce_(torch.remainder(x.to(torch.int64), self.p).to(torch.float64))
        mantissa, exponent = torch.frexp(x.to(torch.float64))
        finite = torch.isfinite(mantissa)
        mantissa = torch.where(finite, mantissa, 0.0)
        exponent = torch.where(finite, exponent, 0).to(torch.int64)
        if self._powers is None or self._powers.device != x.device:
            powers = [pow(2, e, self.p) for e in range(_LOWEST, _HIGHEST + 1)]
            self._powers = torch.tensor(powers, dtype=torch.float64, device=x.device)
        return self.reduce_(self.reduce_(mantissa * 2.0**53) * self._powers[exponent - 53 - _LOWEST])
