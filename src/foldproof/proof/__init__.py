"""Proofs: two programs in, one verdict out."""

from foldproof.proof.obligation import match_leaves
from foldproof.proof.pass_run import prove_pass
from foldproof.proof.programs import as_computed, prove
from foldproof.proof.rewrite import prove_region
from foldproof.proof.running import run_on_copies

__all__ = ["as_computed", "match_leaves", "prove", "prove_pass", "prove_region", "run_on_copies"]
