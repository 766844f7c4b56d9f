"""Fusing: affines are read, moved and absorbed, and each fold is proved on its region.

In the order in which they depend on each other: ``expression`` and ``vectors`` (new constants as functions of old
ones), ``constants`` (what in a program is constant), ``affine`` (a scale and a shift of each channel), ``sources``
(what is one), ``motion`` (what it can be moved through), ``absorb`` (what takes it in), ``plan`` (where it goes),
``parallel`` (sums of convolutions), ``batching`` (operators that read one tensor), ``layout`` (strides), ``surgery``
with ``exported`` and ``module`` (changing a program), ``weigh`` and ``accuracy`` (is it worth it), ``region`` (what one
rewrite touches), ``rewriter`` (the loop), ``api``.
"""

from foldproof.fusion.api import explain, fuse
from foldproof.fusion.result import Declined, FuseResult, Rewrite
from foldproof.fusion.rewriter import DEFAULT, PASSES

__all__ = ["DEFAULT", "PASSES", "Declined", "FuseResult", "Rewrite", "explain", "fuse"]
