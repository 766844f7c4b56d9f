"""Which pass changed the meaning? Taps on compilers, and a verdict for every step."""

from foldproof.audit.api import audit
from foldproof.audit.result import Audit, Step

__all__ = ["Audit", "Step", "audit"]
