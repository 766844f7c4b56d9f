"""The float64 result of a program, and the distance between equal programs that rounding explains."""

from foldproof.rounding.float64 import Float64
from foldproof.rounding.spread import Comparison, compare_in_float64

__all__ = ["Comparison", "Float64", "compare_in_float64"]
