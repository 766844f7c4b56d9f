"""What PyTorch's own programs showed when they were to be proved: defects of PyTorch, each as a small program."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """A program that raises ``error``, though its first steps show that it should not.

    ``models`` are the architectures of the zoo that run into it; ``reports`` where it is known.
    """

    title: str
    explanation: str
    program: str
    error: type[Exception]
    models: tuple[str, ...]
    reports: tuple[str, ...]

    def reproduce(self) -> Exception:
        """What the program raises.

        Raises:
            AssertionError: it does not raise ``error`` any more.
        """
        try:
            exec(self.program, {})
        except self.error as raised:
            return raised
        raise AssertionError(f"{self.title}: no longer so")


FINDINGS = (
    Finding(
        title="Attention gets other strides when it is decomposed, and a view that the model makes no longer fits",
        explanation="The kernel of `scaled_dot_product_attention` on the CPU lays its output out as (batch, tokens,"
        " heads, channels), so that merging heads is a view. Its decomposition lays it out as (tokens, batch, heads,"
        " channels). A later `view`, exported as the model made it, no longer fits.",
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
        explanation="While a program is traced, eval-mode BatchNorm is taken to keep the strides of its input. On the"
        " CPU its kernel returns a contiguous tensor. So the linear layer behind it is decomposed into a `view` that"
        " fits the strides on paper and not the real ones.",
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
"""The architectures whose decomposition can't be compared, because PyTorch's does not run."""
