"""The exception that ends a proof without an answer."""

from __future__ import annotations

from torch import fx

from foldproof.operators import is_random
from foldproof.torch_internals import OpOverload


class Undecided(Exception):
    """The proof cannot continue; the message becomes the reason of the verdict UNDECIDED.

    ``node`` is the graph's node where it stopped, if a graph was run.
    """

    node: fx.Node | None = None


def no_rule(func: OpOverload) -> Undecided:
    random = ", which is random" if is_random(func) else ""
    return Undecided(f"no rule for operator {func}{random}")
