"""Exact arithmetic modulo several primes on float64 tensors, and the error bound of comparing residues."""

from foldproof.field.arithmetic import BALANCED_TERMS, EXACT_TERMS, Field
from foldproof.field.primes import PRIMES, draw_primes
from foldproof.field.size import Size, error_bound, primes_needed
from foldproof.field.turns import chebyshev, degree_of, has_root, primes_with_turns
from foldproof.field.uniform import DRAWN, few, many, residues
from foldproof.field.uninterpreted import UninterpretedFunction, mix

__all__ = [
    "BALANCED_TERMS",
    "DRAWN",
    "EXACT_TERMS",
    "PRIMES",
    "Field",
    "Size",
    "UninterpretedFunction",
    "chebyshev",
    "degree_of",
    "draw_primes",
    "error_bound",
    "few",
    "has_root",
    "many",
    "mix",
    "primes_needed",
    "primes_with_turns",
    "residues",
]
