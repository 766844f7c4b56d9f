"""Taps, one file for each pipeline: the places where its passes are called, and the hooks that observe them."""

from foldproof.auditing.taps import executorch, fx_passes, inductor, onnx, openvino, torchao
from foldproof.auditing.taps.hooks import Hook

__all__ = ["HOOKS"]

HOOKS: tuple[Hook, ...] = (
    *fx_passes.HOOKS,
    *inductor.HOOKS,
    *torchao.HOOKS,
    *executorch.HOOKS,
    *onnx.HOOKS,
    *openvino.HOOKS,
)
"""Hooks of all taps."""
