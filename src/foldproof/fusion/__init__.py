"""Fusing: affines are read, moved and absorbed, and each fold is proved on its region.

In the order in which they depend on each other: ``affine`` (a scale and a shift of each channel), ``sources`` (the
operators that are one), ``motion`` (the operators that it can be moved through), ``absorb`` (the operators that take it
in), ``plan`` (where it goes), ``parallel`` (sums of convolutions), ``batching`` (operators that read one tensor),
``layout`` (strides), ``weigh`` and ``accuracy`` (whether it pays), ``rewriter`` (the loop), ``api``.
"""

from foldproof.fusion.api import explain, fuse
from foldproof.fusion.result import FuseResult, Rewrite
from foldproof.fusion.rewriter import DEFAULT, PASSES
from foldproof.rewriting.account import Declined

__all__ = ["DEFAULT", "PASSES", "Declined", "FuseResult", "Rewrite", "explain", "fuse"]
