"""A program that shows a fault with nothing but torch and the compiler: it fails as long as the fault is there."""

from __future__ import annotations

import re

from foldproof.auditing.reduce import Fault
from foldproof.auditing.snapshot import is_functional
from foldproof.auditing.specification import ModelSpec, lines


def script(fault: Fault, draft: ModelSpec) -> str:
    """The program: makes ``model``, compiles it, and compares its outputs with the model's own."""
    imports, compiled = fault.compiler.script(fault.options)
    made = lines(draft)
    end = ["torch.testing.assert_close(got, model(*inputs))"]
    if not all(is_functional(n) or n.op == "call_module" for n in draft.graph.nodes):
        # It may write to its inputs and buffers, so both sides are given their own.
        compiled = [re.sub(r"\bmodel\b(?!\()", "copy.deepcopy(model)", line) for line in compiled]
        compiled, end = (
            [line.replace("*inputs", "*copy.deepcopy(inputs)") for line in part] for part in (compiled, end)
        )
    body = [*made, *compiled, *end]
    first = "import torch, torch.nn as nn"
    if any("F." in line for line in body):
        first += ", torch.nn.functional as F"
    if any("copy." in line for line in body):
        first += ", copy"
    if any("operator." in line for line in body):
        first += ", operator"
    plain = [line.removeprefix("import ") for line in imports if line.startswith("import ")]
    others = [line for line in imports if not line.startswith("import ")]
    # Annotations of definitions may name what is imported for type checkers only.
    future = ["from __future__ import annotations"] if any(re.match(r"def |class |@", line) for line in others) else []
    return "\n".join([*future, ", ".join([first, *plain]), *others, *body]) + "\n"
