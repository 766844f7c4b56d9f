"""Which pass changed the meaning? Taps on compilers, and a verdict for every step."""

from foldproof.audit.api import audit
from foldproof.audit.folder import replay
from foldproof.audit.result import Audit, Step
from foldproof.audit.watching import Watched, tap, watch

__all__ = ["Audit", "Step", "Watched", "audit", "replay", "tap", "watch"]
