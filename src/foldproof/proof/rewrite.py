"""`prove_region`: a proof of a rewrite on the few operators that it touches."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx

from foldproof.layout import clone_apart
from foldproof.program import as_program
from foldproof.proof.decide import decide
from foldproof.proof.obligation import Derive, ProofObligation, Sides, Tensors
from foldproof.proof.programs import as_computed, holding
from foldproof.verdict import Verdict


def prove_region(
    before: fx.GraphModule,
    after: fx.GraphModule,
    inputs: Sequence[Tensor],
    derive: Derive,
    *,
    general: bool = True,
    seed: int | None = None,
) -> Verdict:
    """Prove that ``after`` is the same function as ``before``, with new parameters computed by ``derive``.

    Args:
        before: a graph whose placeholders are the region's inputs and whose get_attr nodes are its parameters.
        after: a graph with the same placeholders; parameters with a name of *before*'s are the same.
        inputs: tensors of the region's real shapes and dtypes.
        derive: the rewrite's own arithmetic: *before*'s parameters by name (tensors or shadows) → new parameters.
        general: True if it has to hold for all parameters; otherwise it has to hold for these values only, and
            rectifiers may follow the signs of values.
        seed: fixes the sample points.
    """
    first, second = as_program(before), as_program(after)

    computed = as_computed(derive, first, second.leaves)

    def sides(leaves: Tensors) -> Sides:
        new = derive(leaves)
        made: dict[str, Tensor] = {}
        for name, leaf in second.leaves.items():
            if name in computed:
                made[name] = holding(leaf.tensor, new[name])
            else:
                made[name] = leaves[name] if name in leaves and name not in new else clone_apart(leaf.tensor.detach())
        return Sides(second, made)

    obligation = ProofObligation(
        first, sides, tuple(inputs), {}, general, by_value=not general, derived=tuple(sorted(computed))
    )
    return decide(obligation, seed)
