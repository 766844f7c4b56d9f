"""Batching of linear operators: ``members`` (operators to join), ``whole`` (the joined one), ``rule``, ``timing``."""

from foldproof.fusion.batching.rule import BATCHING, BITWISE, BatchLinears

__all__ = ["BATCHING", "BITWISE", "BatchLinears"]
