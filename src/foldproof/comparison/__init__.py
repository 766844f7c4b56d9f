"""Two sets of numbers: are they the same function rounded differently, which is nearer the float64 result, and who did it?"""

from foldproof.comparison.api import compare
from foldproof.comparison.result import CompareResult, DifferenceSource, NoiseFloor, TruthDistance

__all__ = ["CompareResult", "DifferenceSource", "NoiseFloor", "TruthDistance", "compare"]
