"""Proofs: two programs in, one verdict out."""

from foldproof.proof.pass_run import prove_pass
from foldproof.proof.programs import prove
from foldproof.proof.rewrite import prove_region

__all__ = ["prove", "prove_pass", "prove_region"]
