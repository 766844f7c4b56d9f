"""Other inputs like the given ones, since one input does not tell which side is nearer the float64 result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.thresholds import COMPARED_INPUTS, FEWEST_COMPARED_INPUTS, MAX_COMPARED_ELEMENTS
from foldproof.torch_internals import tree_leaves, tree_map

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def count_trials(args: Sequence[Any], kwargs: Mapping[str, Any], most: int = COMPARED_INPUTS) -> int:
    """Return the number of inputs to compare on: ``most``, or fewer where they are large."""
    size = sum(t.numel() for t in tree_leaves((tuple(args), dict(kwargs))) if isinstance(t, Tensor))
    return min(most, max(MAX_COMPARED_ELEMENTS // max(size, 1), FEWEST_COMPARED_INPUTS))


def redrawn(args: Sequence[Any], kwargs: Mapping[str, Any], seed: int, integers: bool) -> Inputs:
    """Every tensor's elements drawn anew, with replacement, from those that it has.

    So a mask stays one of the same numbers, tokens stay in the vocabulary, and what is never negative stays so.
    Booleans, and integers unless asked for, are kept.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(x: Any) -> Any:
        if not isinstance(x, Tensor) or x.numel() < 2 or x.dtype == torch.bool:
            return x
        if not x.is_floating_point() and not (integers and not x.is_complex()):
            return x
        flat = x.detach().reshape(-1)
        at = torch.randint(x.numel(), (x.numel(),), generator=generator)
        return flat[at.to(x.device)].reshape(x.shape)

    made: Inputs = tree_map(draw, (tuple(args), dict(kwargs)))
    return made


def can_redraw(
    args: Sequence[Any], kwargs: Mapping[str, Any], seed: int, runs: Callable[[Inputs], Sequence[Tensor] | None]
) -> bool | None:
    """Say how to draw inputs anew: True with integers, False without, None where that makes no difference, or no sense.

    ``runs`` gives the program's outputs on some inputs, None where it fails.
    """
    given = [t for t in tree_leaves((tuple(args), dict(kwargs))) if isinstance(t, Tensor)]
    for integers in (True, False):
        first = redrawn(args, kwargs, seed, integers)
        new = [t for t in tree_leaves(first) if isinstance(t, Tensor)]
        if all(torch.equal(a, b) for a, b in zip(given, new)):
            return None
        outputs = runs(first)
        if outputs is not None and all(t.isfinite().all() for t in outputs if t.is_floating_point()):
            return integers
    return None
