"""Float64 copies of a program's parameters.

Kept for all runs of two programs, copies would take four times the memory of the parameters, so that they are made for
each run. Large parameters that both programs read are the exception: making them costs more than running a graph on a
few tokens. Only exported programs share copies, since each of their writes counts up the version of a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from foldproof.layout import clone_apart, keep_layout
from foldproof.proof.obligation import Tensors, identity
from foldproof.rounding.float64 import widened
from foldproof.torch_internals import version_of

_LARGE = 1 << 16
"""Number of elements from which on a copy is shared."""


class SharedCopies:
    """Float64 copies of parameters that two programs share, in one evaluation or more."""

    def __init__(self) -> None:
        self._made: dict[object, tuple[Tensor, int | None, Tensor, int | None]] = {}

    def of(self, t: Tensor) -> Tensor:
        """Return the copy of ``t``, made anew if a program has written to either."""
        if t.is_inference():  # it counts no writes
            return copy_wide(t)
        key = identity(t)
        source, version, made, own = self._made.get(key, (t, None, t, None))
        if version is None or (version_of(source), version_of(made)) != (version, own):
            made = copy_wide(t)
            self._made[key] = t, version_of(t), made, version_of(made)
        return made


def copy_all_wide(leaves: Tensors, shared: Mapping[int, Tensor], copies: SharedCopies) -> dict[int, Tensor]:
    """Return float64 copies of ``leaves``, by the identity of what they are copies of.

    ``shared`` are the first program's tensors for the leaves that both programs read, by identity.
    """
    made: dict[int, Tensor] = {}
    for t in leaves.values():
        if id(t) not in made:
            source = shared.get(id(t))
            made[id(t)] = copy_wide(t) if source is None or t.numel() < _LARGE else copies.of(source)
    return made


def copy_wide(t: Tensor) -> Tensor:
    """Return a float64 copy; integers are copied as they are."""
    wide: Tensor = widened(t.detach())
    return clone_apart(wide) if wide.dtype == t.dtype else keep_layout(t, wide)
