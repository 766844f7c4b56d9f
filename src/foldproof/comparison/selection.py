"""The part of the outputs that counts: some of several, and some positions of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from foldproof.comparison.calls import input_tensors
from foldproof.comparison.graph import Graph, keys_of
from foldproof.comparison.inputs import Inputs
from foldproof.errors import FoldproofError

Select = Callable[[list[Tensor], Inputs], list[Tensor]]


def selection(graph: Graph, given: Inputs, outputs: Sequence[str | int] | None, mask: Tensor | str | None) -> Select:
    """Return what takes the part that counts of flat outputs, at the inputs that they are of.

    Args:
        graph: the reference.
        given: its inputs.
        outputs: keys of outputs, or their numbers as verdicts tell them; None for all.
        mask: true at the positions that count, in the first dimensions of each output that has these; or the input that
            says so, by the name of its parameter, or its number.

    Raises:
        FoldproofError: there is no such output or input.
    """
    names = [name.removeprefix("output").strip("[].'") for name in keys_of(graph.program.call_spec.out_spec)]
    places = None if outputs is None else [_place(one, names, graph.count_outputs(given)) for one in outputs]
    if isinstance(mask, str):
        _mask_of(graph, mask, given)

    def select(made: list[Tensor], given: Inputs) -> list[Tensor]:
        chosen = made if places is None else [made[i] for i in places if i < len(made)]
        if mask is None:
            return chosen
        counts = (_mask_of(graph, mask, given) if isinstance(mask, str) else mask) != 0
        return [x[counts.to(x.device)] if x.shape[: counts.ndim] == counts.shape else x for x in chosen]

    return select


def _place(one: str | int, names: Sequence[str], count: int) -> int:
    if str(one) in names:
        return names.index(str(one))
    if str(one).isdecimal() and int(one) < count:
        return int(one)
    known = f"it has {', '.join(names)}" if names else f"it has outputs 0 to {count - 1}"
    raise FoldproofError(f"the reference has no output {one!r}; {known}")


def _mask_of(graph: Graph, name: str, given: Inputs) -> Tensor:
    named = dict(zip(map(str, graph.program.graph_signature.user_inputs), graph.flat(*given)))
    numbered = {key.removeprefix("input "): x for key, x in input_tensors(given).items()}
    if name not in numbered | named:
        raise FoldproofError(f"the reference has no input {name!r} for a mask; it has {', '.join(named)}")
    found: Tensor = torch.as_tensor((numbered | named)[name])
    return found
