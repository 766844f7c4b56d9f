"""Two programs in, one verdict out."""

from foldproof.proof.passes import prove_pass
from foldproof.proof.programs import prove
from foldproof.proof.region import prove_region

__all__ = ["prove", "prove_pass", "prove_region"]
