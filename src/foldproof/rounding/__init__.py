"""How far rounding may drive equal programs apart: the float64 truth and the spread that rounded leaves explain."""

from foldproof.rounding.spread import Comparison, compare_in_float64
from foldproof.rounding.truth import Float64

__all__ = ["Comparison", "Float64", "compare_in_float64"]
