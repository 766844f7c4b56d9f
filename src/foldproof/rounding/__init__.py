"""How far rounding may drive equal programs apart: the float64 result and the spread that rounded leaves explain."""

from foldproof.rounding.float64 import Float64
from foldproof.rounding.spread import Comparison, compare_in_float64

__all__ = ["Comparison", "Float64", "compare_in_float64"]
