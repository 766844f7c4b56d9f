"""The exception that ends a proof without an answer."""

from __future__ import annotations

from torch import fx

from foldproof.operators import is_random
from foldproof.torch_internals import OpOverload


class Undecided(Exception):
    """The proof cannot go on; the message is the reason that the verdict UNDECIDED will carry.

    ``node`` is the graph's node that it stopped at, where a graph was run.
    """

    node: fx.Node | None = None


def no_rule(func: OpOverload) -> Undecided:
    random = ", which is random" if is_random(func) else ""
    return Undecided(f"no rule for operator {func}{random}")
