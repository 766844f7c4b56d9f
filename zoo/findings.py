"""Defects of PyTorch found by proving its own programs, each as a small program."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A program that raises ``error``, although its first steps show that it should run.

    ``models`` are the affected architectures of the zoo, ``reports`` the links to known reports.
    """

    title: str
    explanation: str
    program: str
    error: type[Exception]
    models: tuple[str, ...]
    reports: tuple[str, ...]

    def reproduce(self) -> Exception:
        """Run the program, and return its exception.

        Raises:
            AssertionError: it no longer raises ``error``.
        """
        try:
            exec(self.program, {})
        except self.error as raised:
            return raised
        raise AssertionError(f"{self.title}: no longer so")


FINDINGS = (
    Finding(
        title="Decomposed attention has other strides, and a later view fails",
        explanation="On the CPU, the kernel of `scaled_dot_product_attention` lays out its output as (batch, tokens,"
        " heads, channels), so merging heads is a view. Its decomposition uses (tokens, batch, heads, channels), and a"
        " later `view`, exported as the model made it, fails.",
        program=textwrap.dedent("""\
            import torch

            class Attention(torch.nn.Module):
                def forward(self, x):  # (batch, heads, tokens, channels)
                    y = torch.nn.functional.scaled_dot_product_attention(x, x, x)
                    return y.transpose(1, 2).flatten(2).view(-1, 8)

            x = torch.randn(2, 2, 3, 4)
            program = torch.export.export(Attention(), (x,))
            program.module()(x)  # runs
            program.run_decompositions()
            """),
        error=ValueError,
        models=("gpt2",),
        reports=(
            "https://github.com/pytorch/pytorch/issues/136543",
            "https://github.com/pytorch/pytorch/issues/159126",
        ),
    ),
    Finding(
        title="BatchNorm of a transposed tensor, then linear: the decomposed program does not run",
        explanation="In tracing, eval-mode BatchNorm keeps the strides of its input, but its kernel on the CPU returns"
        " a contiguous tensor. The next linear layer is decomposed into a `view` that fits the traced strides, not the"
        " real ones.",
        program=textwrap.dedent("""\
            import torch

            class Tokens(torch.nn.Module):
                def __init__(self):
                    super().__init__()
                    self.bn, self.linear = torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 4)

                def forward(self, x):  # (batch, tokens, channels)
                    return self.linear(self.bn(x.transpose(1, 2)).transpose(1, 2))

            x = torch.randn(2, 5, 3)
            program = torch.export.export(Tokens().eval(), (x,))
            program.module()(x)  # runs
            program.run_decompositions().module()(x)
            """),
        error=RuntimeError,
        models=("patchtst", "superglue_keypoints", "superglue_propagation"),
        reports=("https://github.com/pytorch/pytorch/issues/192668",),
    ),
)

KNOWN = {model: finding for finding in FINDINGS for model in finding.models}
"""Architectures without a comparison, because PyTorch's decomposition does not run."""
