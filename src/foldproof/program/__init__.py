"""One face for nn.Module, GraphModule, ExportedProgram and plain callables."""

from foldproof.program.program import Leaf, Outcome, Program, as_program

__all__ = ["Leaf", "Outcome", "Program", "as_program"]
