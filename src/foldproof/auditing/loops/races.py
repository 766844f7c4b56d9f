"""Races between the loop nests of one kernel.

The scheduler fuses loop nests into one kernel, each of whose iterations runs the bodies of all nests, one after
another. `Nest` records a body over all iterations at once, so that a kernel is read as if its nests ran one by one.
That is the same where nests meet in memory within an iteration only: what one stores, no other loads or stores in
another iteration. Inductor fuses no others on purpose; where it does, what the kernel stores depends on the order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from foldproof.auditing.loops.nest import Nest
from foldproof.auditing.loops.recorder import Unreadable


def find_race(nests: Sequence[Nest]) -> str | None:
    """Return the name of memory that two nests of a kernel meet at in different iterations; None if there is none.

    Raises:
        Unreadable: an address, or the iterations that two nests share, are not known.
    """
    for first, second in itertools.combinations(nests, 2):
        for home in first.accesses.keys() & second.accesses.keys():
            for (one, here), (other, there) in itertools.product(first.accesses[home], second.accesses[home]):
                if "store" in (one, other) and not _is_same(first, here, second, there):
                    if _meet(first, here, second, there, home):
                        return home
    return None


def _is_same(first: Nest, here: object, second: Nest, there: object) -> bool:
    """Return True if both addresses are the same function of iterations that are the same."""
    return first.sizes == second.sizes and first.normal(here) == second.normal(there)


def _meet(first: Nest, here: object, second: Nest, there: object, home: str) -> bool:
    """Return True if two nests reach an address in different iterations."""
    a, b = first.addresses(here), second.addresses(there)
    if a is None or b is None:
        raise Unreadable(f"{home} is written and read at different places in one kernel")
    shared = _count_shared(first, second)
    of_a, of_b = (torch.arange(x.numel(), device=x.device) // (x.numel() // shared) for x in (a, b))
    size = int(max(a.max(), b.max())) + 1
    (low_a, high_a), (low_b, high_b) = _range_of(a, of_a, size, shared), _range_of(b, of_b, size, shared)
    both = (high_a >= 0) & (high_b >= 0)
    return bool((both & (torch.minimum(low_a, low_b) != torch.maximum(high_a, high_b))).any())


def _count_shared(first: Nest, second: Nest) -> int:
    """Return the number of iterations that two nests of a kernel share: a reduction is a loop of its own inside."""
    totals = first.count, second.count
    shared = first.count if first.count == second.count and first.kept == second.kept else min(first.kept, second.kept)
    if not shared or any(total % shared for total in totals):
        raise Unreadable("loop nests of one kernel share iterations in a way that is not known")
    return shared


def _range_of(addresses: Tensor, iterations: Tensor, size: int, count: int) -> tuple[Tensor, Tensor]:
    """Return the first and the last iteration that reaches each address; -1 as the last where none does."""
    low = torch.full((size,), count).scatter_reduce(0, addresses, iterations, "amin")
    return low, torch.full((size,), -1).scatter_reduce(0, addresses, iterations, "amax")
