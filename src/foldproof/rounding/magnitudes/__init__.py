"""Magnitudes of the roundings inside one operator, which its running error bound adds up."""

from foldproof.rounding.magnitudes import fourier, normalisation, pointwise, products, sums
from foldproof.rounding.magnitudes.registry import MAGNITUDES

__all__ = ["MAGNITUDES", "fourier", "normalisation", "pointwise", "products", "sums"]
