"""A program as data: inputs, state, lines and outputs; and its text, a file that any command of foldproof takes."""

from __future__ import annotations

import re
import types
from dataclasses import dataclass
from typing import Any

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n"
NAMES = re.compile(r"(?<![\w.])[vx]\d+\b")
"""Names of values (``v3``) and inputs (``x0``) in a line."""


@dataclass(frozen=True)
class Program:
    """A module with its example inputs.

    Attributes:
        inputs: the name of each input, and the Python expression that makes it.
        state: lines of ``__init__``.
        lines: lines of ``forward``.
        returns: names of the outputs.
        seed: the seed of PyTorch's random numbers in ``make()``.
    """

    inputs: tuple[tuple[str, str], ...]
    state: tuple[str, ...]
    lines: tuple[str, ...]
    returns: tuple[str, ...]
    seed: int = 0

    def write(self, training: bool = False) -> str:
        """Return the text of a file with ``make()``, which returns the module and its inputs."""
        forward = [*self.lines, f"return {', '.join(self.returns)}" + "," * (len(self.returns) == 1)]
        made = ", ".join(code for _, code in self.inputs)
        return "\n".join(
            [
                HEAD,
                "",
                "class Program(nn.Module):",
                "    def __init__(self):",
                "        super().__init__()",
                *[f"        {line}" for line in self.state],
                "",
                f"    def forward(self, {', '.join(name for name, _ in self.inputs)}):",
                *[f"        {line}" for line in forward],
                "",
                "",
                "def make():",
                f"    torch.manual_seed({self.seed})",
                f"    return Program(){'' if training else '.eval()'}, ({made},)",
                "",
            ]
        )


def load(text: str) -> tuple[Any, tuple[Any, ...]]:
    """Run the text of a program; return its module and inputs."""
    module = types.ModuleType("program")
    exec(compile(text, "program.py", "exec"), module.__dict__)
    model, inputs = module.make()
    return model, inputs
