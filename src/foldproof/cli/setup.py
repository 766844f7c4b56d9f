"""The options of `foldproof audit` that say how a program is compiled."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Setup:
    """A compiler, its settings as text, passes that are left out, and True for a compilation with gradients.

    ``optimizer`` names a function from parameters to their optimizer; None compiles no optimizer's step.
    """

    compiler: str
    options: tuple[str, ...] = ()
    disable: tuple[str, ...] = ()
    training: bool = False
    optimizer: str | None = None
