"""Arithmetic modulo several primes at once, exact on ordinary float64 tensors, and how sure it makes us."""

from foldproof.field.arithmetic import EXACT_TERMS, Field
from foldproof.field.opaque import OpaqueFunction
from foldproof.field.primes import PRIMES, draw_primes
from foldproof.field.size import Size, error_bound, primes_needed

__all__ = ["EXACT_TERMS", "PRIMES", "Field", "OpaqueFunction", "Size", "draw_primes", "error_bound", "primes_needed"]
