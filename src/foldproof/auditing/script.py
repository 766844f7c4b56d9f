"""Reproductions: programs that need only torch and the compiler, and fail as long as the fault is there."""

from __future__ import annotations

import re

from torch import fx

from foldproof.auditing.definitions import Unwritable
from foldproof.auditing.fault import Fault, WrongGradients
from foldproof.auditing.snapshot import is_functional
from foldproof.auditing.specification import ModelSpec, write_lines


def write_reproduction(fault: Fault, spec: ModelSpec) -> str:
    """Write a program that makes ``model``, compiles it, and fails as long as the fault is there.

    Raises:
        Unwritable: a part of it has no form as Python.
    """
    imports, compiled = fault.compiler.write_script(fault.options)
    made = write_lines(spec)
    end = fault.write_check()
    if isinstance(fault, WrongGradients):
        compiled.pop()  # the check calls the model
        made = [line.replace(").eval(), (", "), (") for line in made] if fault.trains else made
        if not isinstance(next(n for n in spec.graph.nodes if n.op == "output").args[0], fx.Node):
            raise Unwritable("gradients of several outputs")
    if not all(is_functional(n) or n.op == "call_module" for n in spec.graph.nodes):
        # The model may write to its inputs and buffers, so each side gets copies.
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
    # Annotations of copied definitions may use names that are imported for type checkers only.
    future = ["from __future__ import annotations"] if any(re.match(r"def |class |@", line) for line in others) else []
    return "\n".join([*future, ", ".join([first, *plain]), *others, *body]) + "\n"
