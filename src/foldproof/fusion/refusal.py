"""Why an affine stays where it is."""

from __future__ import annotations


class CannotFold(Exception):
    """A fold that can't be made; the message is the reason, for a user to act on. Ends as a `Declined`."""


class AxisMismatch(CannotFold):
    """The affine and the linear operator before it act on different axes: easily taken for a fold that works."""
