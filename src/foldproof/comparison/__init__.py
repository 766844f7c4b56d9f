"""Two sets of numbers: are they the same function rounded differently, which is nearer the truth, and who did it?"""

from foldproof.comparison.api import compare
from foldproof.comparison.result import CompareResult, NoiseFloor, Source, TruthDistance

__all__ = ["CompareResult", "NoiseFloor", "Source", "TruthDistance", "compare"]
