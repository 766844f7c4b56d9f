"""Why an affine stays where it is."""

from __future__ import annotations


class CannotFold(Exception):
    """A fold that can't be made. Ends as a `Declined`.

    Args:
        reason: why, for a user to act on.
        hint: what would change it, where that is not said by the reason.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint


class AxisMismatch(CannotFold):
    """The affine and the linear operator before it act on different axes: easily taken for a fold that works."""
