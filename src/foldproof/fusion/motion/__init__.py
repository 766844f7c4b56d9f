"""Operators that an affine can be moved through, towards the program's input or towards its output."""

from foldproof.fusion.motion.averaging import Averaging, Maximum
from foldproof.fusion.motion.pointwise import Negation, Product, Rectifier, Sum
from foldproof.fusion.motion.rule import Motion
from foldproof.fusion.motion.selection import Selection

MOTIONS: tuple[Motion, ...] = (Selection(), Averaging(), Maximum(), Rectifier(), Negation(), Sum(), Product())
"""All rules by which an affine moves."""

__all__ = ["MOTIONS", "Averaging", "Maximum", "Motion", "Negation", "Product", "Rectifier", "Selection", "Sum"]
