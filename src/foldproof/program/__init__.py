"""Programs: a common interface to nn.Module, GraphModule, ExportedProgram and plain callables."""

from foldproof.graph.interpreter import Watch
from foldproof.program.forms import as_program, require_ordinary
from foldproof.program.program import NO_ATTRIBUTES, Leaf, Outcome, Program
from foldproof.program.state import Attribute, copied, mark
from foldproof.program.weightless import Values

__all__ = [
    "NO_ATTRIBUTES",
    "Attribute",
    "Leaf",
    "Outcome",
    "Program",
    "Values",
    "Watch",
    "as_program",
    "copied",
    "mark",
    "require_ordinary",
]
