"""Sizes that coincide in a configuration, and would hide a mistake: a proof holds for the configuration at hand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

COINCIDE = "sizes coincide"
"""The beginning of the note."""
_QUERY = re.compile(r"(?<![a-z])(q|query|wq)(?![a-z])")
_KEYS = {"q": "k", "query": "key", "wq": "wk"}


def tell_coincidences(state: Mapping[str, Any], inputs: Sequence[Tensor]) -> list[str]:
    """Return a note that names sizes that coincide; none if there are none.

    These are square weights, queries with as many heads as keys, and axes of inputs with a length of 1.
    """
    weights = {name: x for name, x in state.items() if isinstance(x, Tensor) and x.is_floating_point()}
    found = [*_square(weights), *_ungrouped(weights), *_single(inputs)]
    told = "; ".join(found)
    return [f"{COINCIDE}, which may hide a mistake; prove a configuration without, too: {told}"] if found else []


def _square(weights: Mapping[str, Tensor]) -> Iterator[str]:
    names = [name for name, x in weights.items() if x.ndim == 2 and 1 < x.shape[0] == x.shape[1]]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"{names[0]}{more} {'are' if more else 'is'} square"


def _ungrouped(weights: Mapping[str, Tensor]) -> Iterator[str]:
    for name, x in weights.items():
        key = _QUERY.sub(lambda found: _KEYS[found[1]], name)
        if key != name and key in weights and x.ndim == 2:
            if weights[key].shape == x.shape:
                yield f"{name} and {key} have the same shape, so that heads are not grouped"
            return


def _single(inputs: Sequence[Tensor]) -> Iterator[str]:
    for i, x in enumerate(inputs):
        if x.ndim > 1 and 1 in x.shape[1:]:
            yield f"input {i} has an axis of length 1"
