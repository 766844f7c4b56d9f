"""Values that a program reads out of tensors: the operators that do so, and a record of the places."""

from __future__ import annotations

import traceback
from pathlib import Path
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
"""Operators that return a value as an ordinary number, without its residue."""

BLIND = {
    aten._fused_sdp_choice.default,
    aten._has_compatible_shallow_copy_type.default,
    aten.is_same_size.default,
    aten._assert_tensor_metadata.default,
}
"""Operators with results that are independent of the values of their operands."""


_PACKAGE = str(Path(__file__).parents[1])


def note_escape(residue: Residue, how: str) -> None:
    """Record in the sample point that ``how`` read a value out of a tensor, and the line of the program that did."""
    escapes = residue.point.escapes
    for frame in reversed(traceback.extract_stack()):
        if not any(part in frame.filename for part in ("/torch/", "\\torch\\", _PACKAGE)):
            where = f"`{how}` at {frame.filename}:{frame.lineno}"
            escapes[where] = residue.data or escapes.get(where, False)
            return


def is_called_by_libraries(frame: FrameType) -> bool:
    """True if a frame belongs to PyTorch or foldproof, which compare storages and read no numbers from them."""
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("torch", "foldproof")
