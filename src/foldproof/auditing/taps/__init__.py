"""One file a pipeline: where its passes are called, and how to look over their shoulder."""

from foldproof.auditing.taps import executorch, fx_passes, inductor, onnx, torchao
from foldproof.auditing.taps.hooks import Hook

__all__ = ["HOOKS"]

HOOKS: tuple[Hook, ...] = (*fx_passes.HOOKS, *inductor.HOOKS, *torchao.HOOKS, *executorch.HOOKS, *onnx.HOOKS)
"""Every place that a tap patches."""
