"""Fusing: find affines, move them, absorb them into linear operators, and prove each fold on its region.

The modules, in the order of their dependencies: ``affine`` (a scale and a shift of each channel), ``affines`` (the
operators that compute one), ``motion`` (operators that an affine can move through), ``absorb`` (operators that can
absorb one), ``plan`` (the path of an affine), ``parallel`` (sums of convolutions), ``batching`` (operators that read
one tensor), ``layout`` (strides), ``cost`` and ``accuracy`` (benefit of a fold), ``rewriter`` (the loop), ``api``.
"""

from foldproof.fusion.api import explain, fold_unproved, fuse
from foldproof.fusion.result import FuseResult, Rewrite
from foldproof.fusion.rewriter import DEFAULT, PASSES
from foldproof.rewriting.account import Declined

__all__ = ["DEFAULT", "PASSES", "Declined", "FuseResult", "Rewrite", "explain", "fold_unproved", "fuse"]
