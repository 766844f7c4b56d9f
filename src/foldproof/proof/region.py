"""`prove_region`: a rewrite as it is made, on the few operators that it touches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx

from foldproof.program import as_program
from foldproof.proof.decide import decide
from foldproof.proof.question import Derive, Question, Sides, Tensors
from foldproof.verdict import Verdict


def prove_region(
    before: fx.GraphModule, after: fx.GraphModule, inputs: Sequence[Tensor], derive: Derive, seed: int | None = None
) -> Verdict:
    """Is ``after`` the same function as ``before``, when its new parameters are computed by ``derive``?

    Args:
        before: a graph whose placeholders are the region's inputs and whose get_attr nodes are its parameters.
        after: a graph with the same placeholders; parameters that share a name with *before*'s are the same.
        inputs: tensors of the region's real shapes and dtypes.
        derive: the rewrite's own arithmetic: *before*'s parameters by name (tensors or shadows) → new parameters.
        seed: fixes the random draw.
    """
    first, second = as_program(before), as_program(after)

    def sides(leaves: Tensors) -> Sides:
        made = dict(derive(leaves))
        return Sides(second, {name: made[name] if name in made else leaves[name] for name in second.leaves})

    return decide(Question(first, sides, tuple(inputs), {}, True, "all inputs and all parameters"), seed)
