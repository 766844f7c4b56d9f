"""Linear operators that read one tensor, made one: ``members`` (which), ``rule`` (how), ``timing`` (where it pays)."""

from foldproof.fusion.batching.rule import BATCHING, BITWISE, BatchLinears

__all__ = ["BATCHING", "BITWISE", "BatchLinears"]
