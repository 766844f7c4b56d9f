"""Reasons against moving an affine."""

from __future__ import annotations


class CannotFold(Exception):
    """A fold that is impossible. It becomes a `Declined`.

    Args:
        reason: the reason, in words that a user can act on.
        hint: the remedy, unless the reason names it.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


def next_training(change: str) -> str:
    """Return a hint to change a model that is to be trained again: a trained one would be another function."""
    return f"for the next training: {change} (this model, as it is trained, would compute something else)"


class AxisMismatch(CannotFold):
    """The affine and the linear operator before it act on different axes, although the fold looks possible."""


class TrainingMode(CannotFold):
    """The normalisation would have fixed statistics in evaluation, and computes them from its input in training."""
