"""Fusing: affines are found, linear operators absorb them, and each fold is proved on its region.

In the order in which they depend on each other: ``expression`` (new constants as functions of old ones),
``constants`` (what in a program is constant), ``affine`` (what is a scale and a shift), ``absorb`` (what takes
them in), ``surgery`` (changing an ExportedProgram), ``region`` (what one rewrite touches), ``rewriter`` (the
loop), ``api``.
"""

from foldproof.fusion.api import explain, fuse
from foldproof.fusion.result import Declined, FuseResult, Rewrite

__all__ = ["Declined", "FuseResult", "Rewrite", "explain", "fuse"]
