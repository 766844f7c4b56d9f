"""Ports: one model, two implementations, and the conversion of every checkpoint."""

from foldproof.porting.api import prove_port
from foldproof.porting.configurations import prove_configurations

__all__ = ["prove_configurations", "prove_port"]
