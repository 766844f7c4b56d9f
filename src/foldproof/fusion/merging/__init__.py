"""Linear operators that become one: terms of a sum, and one behind the other.

``maps`` reads operators as maps ``W * x + b`` of a common form, ``kernels`` has the arithmetic of their weights,
``branches`` merges terms of sums, and ``chains`` merges an operator with the one before it.
"""

from collections.abc import Iterator
from typing import Protocol

from torch.fx import Node

from foldproof.fusion.examples import Declines, Fires
from foldproof.fusion.merging.branches import ParallelConvolutions
from foldproof.fusion.merging.chains import ConsecutiveLinears
from foldproof.fusion.plan import Plan
from foldproof.rewriting.constants import Constants


class MergeRule(Protocol):
    """A rule by which linear operators become one. The docstring states the algebra."""

    id: str
    fires: tuple[Fires, ...]
    declines: tuple[Declines, ...]

    def takes(self, node: Node, constants: Constants) -> bool:
        """Return True if ``node`` may be the last of operators that can be merged."""

    def plans(self, node: Node, constants: Constants) -> Iterator[Plan]:
        """Yield plans that each merge operators up to ``node``; each is for the program as it is.

        Raises:
            CannotFold: after the last plan, the reason why operators that might be merged are not.
        """


MERGES: tuple[MergeRule, ...] = (ParallelConvolutions(), ConsecutiveLinears())
"""All rules that merge linear operators."""
