"""Values that leave the tensor world: which operators take them out, and the record of where."""

from __future__ import annotations

import traceback
from types import FrameType

import torch

from foldproof.shadow.residue import Residue

aten = torch.ops.aten

ESCAPING = {
    aten._local_scalar_dense.default,
    aten.item.default,
    aten.equal.default,
    aten.allclose.default,
    aten.is_nonzero.default,
}
"""Operators that take a value out of the tensor world, and with it what is known of its origin."""

BLIND = {
    aten._fused_sdp_choice.default,
    aten._has_compatible_shallow_copy_type.default,
    aten.is_same_size.default,
    aten._assert_tensor_metadata.default,
}
"""Operators whose result says nothing of the values they are given."""


def note_escape(residue: Residue, how: str) -> None:
    """Record in the draw that a value left the tensor world, ``how``, and at which line of the program."""
    escapes = residue.point.escapes
    for frame in reversed(traceback.extract_stack()):
        if not any(part in frame.filename for part in ("/torch/", "foldproof/shadow", "\\torch\\")):
            where = f"`{how}` at {frame.filename}:{frame.lineno}"
            escapes[where] = residue.data or escapes.get(where, False)
            return


def is_called_by_libraries(frame: FrameType) -> bool:
    """Whether a frame is one of PyTorch's or of foldproof's, which compare storages and read no numbers from them."""
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("torch", "foldproof")
