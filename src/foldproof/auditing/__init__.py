"""Auditing: taps that observe each graph pass of a compiler, and a verdict for each step."""

from foldproof.auditing.api import audit
from foldproof.auditing.folder import replay
from foldproof.auditing.result import Audit
from foldproof.auditing.step import Step
from foldproof.auditing.watching import Watched, tap, watch

__all__ = ["Audit", "Step", "Watched", "audit", "replay", "tap", "watch"]
