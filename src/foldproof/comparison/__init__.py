"""Decide if two sets of numbers are one function rounded differently, which is nearer the float64 result, and why."""

from foldproof.comparison.api import compare
from foldproof.comparison.result import CompareResult, DifferenceSource, NoiseFloor, TruthDistance

__all__ = ["CompareResult", "DifferenceSource", "NoiseFloor", "TruthDistance", "compare"]
