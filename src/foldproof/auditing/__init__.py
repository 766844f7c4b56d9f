"""Which pass changed the meaning? Taps on compilers, and a verdict for every step."""

from foldproof.auditing.api import audit
from foldproof.auditing.folder import replay
from foldproof.auditing.result import Audit
from foldproof.auditing.step import Step
from foldproof.auditing.watching import Watched, tap, watch

__all__ = ["Audit", "Step", "Watched", "audit", "replay", "tap", "watch"]
