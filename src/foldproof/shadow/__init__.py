"""Tensors that carry, beside their value, an exact residue modulo several primes through every ATen operator."""

from foldproof.shadow import rules as rules  # fills the registry
from foldproof.shadow.deterministic import Deterministic, GeneratorMoved
from foldproof.shadow.draw import Draw, Reading, WritesBorrowed
from foldproof.shadow.leaves import all_finite, draw_variable, embed_constant
from foldproof.shadow.registry import RULES, Rule
from foldproof.shadow.residue import Residue
from foldproof.shadow.tensor import Factories, Shadow
from foldproof.shadow.undecided import Undecided

__all__ = [
    "RULES",
    "Deterministic",
    "Draw",
    "Factories",
    "GeneratorMoved",
    "Reading",
    "Residue",
    "Rule",
    "Shadow",
    "Undecided",
    "WritesBorrowed",
    "all_finite",
    "draw_variable",
    "embed_constant",
]
