"""Proofs of ports: one model, two implementations, and a function that converts the checkpoints of one to the other.

The port is made anew from the reference's parameters, by the conversion itself, as a pass makes its result. So a proof
holds for every checkpoint, and the values that the port had before do not matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram

from foldproof.claim import Held, Role, Why
from foldproof.errors import FoldproofError
from foldproof.memory import release
from foldproof.porting.conversion import Account, Conversion, Convert
from foldproof.porting.model import Model, model_of
from foldproof.porting.sizes import tell_coincidences
from foldproof.program import Program, Values, as_program
from foldproof.program.state import owned
from foldproof.program.weightless import has_values
from foldproof.proof.decide import decide_all
from foldproof.proof.inquiry import Progress
from foldproof.proof.obligation import ProofObligation, require_plain, tied
from foldproof.proof.programs import prove as prove_programs
from foldproof.proof.remade import Remade
from foldproof.proof.shapes import as_inputs, sampled_inputs
from foldproof.torch_internals import tree_leaves
from foldproof.verdict import Kind, Verdict


def prove_port(
    reference: Any,
    port: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    convert: Convert,
    inverse: Convert | None,
    by_value: bool,
    seed: int | None,
    progress: Progress | None,
) -> Verdict:
    """Prove a port; see `foldproof.prove` with ``convert``."""
    if isinstance(reference, ExportedProgram):
        reference = reference.module()
    values = Values()
    first = as_program(reference, values)
    require_plain(first)
    model, other = model_of(reference, "reference"), model_of(port, "port")
    conversion = Conversion(convert, port)
    account, made = conversion.account_of(first.with_leaves(tied(first.leaves, lambda name, leaf: leaf.copied())))
    release((leaf.tensor for leaf in first.leaves.values()), modules=True)
    for name, x in owned(other.module):
        if not has_values(x) and name not in account.origins:
            raise FoldproofError(f"{name} of the port has no values, and the conversion does not set it")
    tables = _hold_tables(first, model.prefix, account)
    conversion.tables = frozenset(account.own_tables)
    names = {other.prefix + name: model.prefix + source for name, source in account.copies.items()}
    names |= {other.prefix + name: of_port(name) for name in account.own_tables}
    exact = frozenset(other.prefix + name for name, origin in account.origins.items() if origin.exact)
    remade = Remade(first, conversion, "the conversion", names, exact, made)
    inputs, kwargs = values.inputs((as_inputs(inputs), dict(kwargs or {})))
    obligations = [
        ProofObligation(
            first,
            remade.sides,
            args,
            named,
            True,
            remade=True,
            computes=False,
            by_value=by_value,
            held=tables,
            untied=values.overlapping,
        )
        for args, named in sampled_inputs(reference, inputs, kwargs)
    ]
    verdict = decide_all(obligations, seed, progress)
    coinciding = () if verdict.proof is None else tell_coincidences(model.module.state_dict(), _tensors(inputs, kwargs))
    notes = (*account.told(), *verdict.notes, *coinciding, *_tell_weights(verdict, other, account))
    if inverse is None or not verdict.ok:
        return replace(verdict, notes=notes)
    return _with_round_trip(replace(verdict, notes=notes), conversion, inverse, model, seed)


def _with_round_trip(
    verdict: Verdict, conversion: Conversion, inverse: Convert, model: Model, seed: int | None
) -> Verdict:
    """Return the verdict on a port, or that on the round trip of a checkpoint if it is none on all of them."""
    state = {name: x.detach() for name, x in model.module.state_dict().items() if isinstance(x, Tensor)}

    def given(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(state)

    def returned(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return conversion.round_trip(inverse, state)

    trip = prove_programs(given, returned, (state,), seed=seed)
    if trip.kind is Kind.PROVED and trip.claim is not None and trip.claim.inputs:
        back = conversion.round_trip(inverse, state)
        other = [f"{name} in {back[name].dtype}" for name, x in state.items() if back[name].dtype != x.dtype]
        casts = [note for note in trip.notes if "a cast to it is read as the identity" in note]
        if other or casts:
            what = f"returns {', '.join(other[:3])}" if other else f"rounds: {casts[0]}"
            return replace(verdict, notes=(*verdict.notes, f"the inverse conversion {what}"))
        whole = "" if trip.claim.all_inputs else ", with its integers at their values"
        return replace(verdict, notes=(*verdict.notes, f"the inverse conversion returns every checkpoint{whole}"))
    return replace(trip, reason=f"the round trip of a checkpoint is {trip.reason}", notes=(*trip.notes, *verdict.notes))


def _tensors(inputs: Any, kwargs: Any) -> list[Tensor]:
    return [x for x in tree_leaves((inputs, kwargs)) if isinstance(x, Tensor)]


def _tell_weights(verdict: Verdict, port: Model, account: Account) -> Iterator[str]:
    """Tell what the conversion did to the weights of the port's module that parts from the reference's."""
    if verdict.kind is not Kind.REFUTED or verdict.difference is None or verdict.difference.after is None:
        return
    path = verdict.difference.after.node
    of_module = [n for n in account.origins if f"{port.prefix}{n}".startswith(f"{path}.")]
    for name in of_module[:MOST_TOLD]:
        yield f"the conversion: {name} is {account.origins[name]}"


MOST_TOLD = 6
"""Largest number of parameters whose conversion is told."""


def _hold_tables(first: Program, prefix: str, account: Account) -> tuple[Held, ...]:
    """Make constants of the reference's leaves that no checkpoint determines, and return what the port holds."""
    tables = [prefix + name for name in account.tables]
    tables += [name for name in first.leaves if not name.startswith(prefix)]
    first.leaves |= {name: replace(first.leaves[name], constant=True, table=True) for name in tables}
    held = [Held(of_port(name), Role.PARAMETER, Why.TABLE) for name in account.own_tables]
    return (*held, *(Held(of_port(name), Role.PARAMETER, Why.UNSET) for name in account.unset))


def of_port(name: str) -> str:
    """Return the name of a port's leaf that the reference lacks."""
    return f"{name} of the port"
