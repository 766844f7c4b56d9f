"""torchao's PT2E quantization: every step inside prepare, convert, and the move to eval mode."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from types import ModuleType

from foldproof.auditing.log import Log
from foldproof.auditing.taps.fx_passes import observe
from foldproof.auditing.taps.hooks import Hook
from foldproof.errors import MissingExtra

MODULE = "torchao.quantization.pt2e.quantize_pt2e"
"""The module with the functions that users call; the steps are globals of it."""

HOOKS = (
    *(
        Hook(MODULE, name, f"the pass {name}")
        for name in (
            "_fuse_conv_bn_",
            "_fuse_linear_bn_",
            "_fuse_conv_bn_qat",
            "prepare",
            "_convert_to_reference_decomposed_fx",
            "_fold_conv_bn_qat",
            "constant_fold",
            "reference_representation_rewrite",
            "_disallow_eval_train",
        )
    ),
    Hook(
        "torchao.quantization.pt2e.export_utils",
        "_move_exported_model_to_eval",
        "the pass _move_exported_model_to_eval",
    ),
)
"""Hooks of the steps, in the order of the pipelines."""


def import_quantize_pt2e() -> ModuleType:
    """Import torchao's module of PT2E quantization.

    Raises:
        MissingExtra: torchao is not installed.
    """
    try:
        import torchao.quantization.pt2e.quantize_pt2e as module
    except ModuleNotFoundError:
        raise MissingExtra("torchao", "torchao") from None
    found: ModuleType = module
    return found


@contextlib.contextmanager
def tap_torchao(log: Log) -> Iterator[None]:
    """Record every step of prepare_pt2e, prepare_qat_pt2e, convert_pt2e and move_exported_model_to_eval."""
    with contextlib.ExitStack() as stack:
        for hook in HOOKS:
            stack.enter_context(hook.patch(functools.partial(observe, log, hook.attribute)))
        yield
