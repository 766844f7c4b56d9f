"""Ports: one model, two implementations, and the conversion of every checkpoint."""

from foldproof.porting.api import prove_port

__all__ = ["prove_port"]
