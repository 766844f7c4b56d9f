"""The choice of values to vary at random and values to hold, with the reasons: the basis of every claim.

Sample points are drawn by a `Variation`, and claims are written from the same one. So no claim can say "all inputs" if
a tensor kept its value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foldproof.claim import Claim, Held, Role, Scope, Why
from foldproof.program import Leaf
from foldproof.proof.obligation import ProofObligation
from foldproof.shadow import all_finite, is_number
from foldproof.torch_internals import SequenceKey, keystr, tree_leaves_with_path


@dataclass(frozen=True)
class Variation:
    """Names of the varied inputs and leaves of the first program, and the held values."""

    inputs: tuple[str, ...]
    parameters: tuple[str, ...]
    held: tuple[Held, ...]

    def claim(self, scope: Scope, points: int = 0) -> Claim:
        """Return the claim of programs that were compared at points of this variation."""
        return Claim(scope, self.inputs, self.parameters, self.held, points=points)


def vary(obligation: ProofObligation, parameters: bool) -> Variation:
    """Vary every real or complex input and, if ``parameters`` is True, every leaf of the first program.

    Integers, booleans and values that are no tensors are held; so are the tensors of observers, since
    scale and zero point depend on the same observations. A literal constant of an exported program is part of the
    program.
    """
    inputs, held = [], []
    for name, x in named_inputs(obligation.args, obligation.kwargs):
        why = _why_input(x)
        if why is None or why is Why.INFINITE:
            inputs.append(name)
        if why is not None and x is not None:
            held.append(Held(name, Role.INPUT, why))
    leaves = obligation.before.leaves
    varied = []
    for name, leaf in leaves.items():
        why = _why_leaf(leaf, parameters or leaf.valueless)
        if why is None or why is Why.INFINITE:
            varied.append(name)
        literal = why is Why.CONSTANT and obligation.before.form == "ExportedProgram"
        if why is not None and not literal:
            held.append(Held(name, Role.PARAMETER, Why.OBSERVED if why is Why.CONSTANT else why))
    held += obligation.held
    held += [Held(name, Role.PARAMETER, Why.CHOSEN) for name in obligation.unmatched]
    return Variation(tuple(inputs), tuple(varied), tuple(held))


def named_inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every value among the inputs by name: ``input 0``, ``input 1[2]``, or a keyword's name."""
    for path, x in tree_leaves_with_path((args, dict(kwargs))):
        first: Any = path[1]
        name = f"input {first.idx}" if path[0] == SequenceKey(0) else str(first.key)
        yield name + keystr(tuple(path[2:])), x


_PLAIN = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.layout, torch.SymInt)


def _why_input(x: Any) -> Why | None:
    if isinstance(x, Tensor):
        return _why_tensor(x)
    return Why.PLAIN if x is None or isinstance(x, _PLAIN) else Why.OBJECT


def _why_leaf(leaf: Leaf, parameters: bool) -> Why | None:
    x = leaf.tensor
    if leaf.table:
        return Why.TABLE
    if leaf.constant:
        return Why.CONSTANT
    why = _why_tensor(x)
    return why if parameters or why not in (None, Why.INFINITE) else Why.CHOSEN


def _why_tensor(x: Tensor) -> Why | None:
    if not is_number(x.dtype):
        return Why.BOOLEANS if str(x.dtype) == "torch.bool" else Why.INTEGERS
    return None if all_finite(x) or not bool(x.isinf().any()) else Why.INFINITE
