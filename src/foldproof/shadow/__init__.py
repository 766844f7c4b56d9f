"""Tensors that carry, beside their value, exact residues modulo several primes through every ATen operator."""

from foldproof.shadow import rules as rules  # fills the registry
from foldproof.shadow.chosen import watch_chosen
from foldproof.shadow.cuts import Cuts, Recording, Visit, Visits
from foldproof.shadow.draws import Draws, GeneratorMoved, seeded
from foldproof.shadow.jumps import list_jumps, may_jump
from foldproof.shadow.leaves import all_finite, draw_variable, embed_constant, embed_initial, is_number
from foldproof.shadow.registry import RULES, Rule
from foldproof.shadow.residue import Residue
from foldproof.shadow.sample import Choices, SamplePoint, Semantics, WritesBorrowed
from foldproof.shadow.tensor import Factories, Shadow
from foldproof.shadow.undecided import Undecided
from foldproof.shadow.whole import apply_to_each, apply_to_whole

__all__ = [
    "RULES",
    "Choices",
    "Cuts",
    "Draws",
    "Factories",
    "GeneratorMoved",
    "Recording",
    "Residue",
    "Rule",
    "SamplePoint",
    "Semantics",
    "Shadow",
    "Undecided",
    "Visit",
    "Visits",
    "WritesBorrowed",
    "all_finite",
    "apply_to_each",
    "apply_to_whole",
    "draw_variable",
    "embed_constant",
    "embed_initial",
    "is_number",
    "list_jumps",
    "may_jump",
    "seeded",
    "watch_chosen",
]
