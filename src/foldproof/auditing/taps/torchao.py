"""torchao's PT2E quantization: every step inside prepare, convert, and the move to eval mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import ModuleType
from unittest import mock

from foldproof.auditing.log import Log
from foldproof.auditing.taps.passes import observed
from foldproof.errors import MissingExtra

STEPS = (
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
"""The steps are globals of one module, in the order of the pipelines."""

ENTRIES = ("prepare_pt2e", "prepare_qat_pt2e", "convert_pt2e")


def quantize_pt2e() -> ModuleType:
    """
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
    """Note every step of prepare_pt2e, prepare_qat_pt2e, convert_pt2e and move_exported_model_to_eval."""
    import torchao.quantization.pt2e.export_utils as export_utils

    module = quantize_pt2e()
    with contextlib.ExitStack() as stack:
        for name in STEPS:
            step = observed(log, name, getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, step))
        move = export_utils._move_exported_model_to_eval
        stack.enter_context(
            mock.patch.object(export_utils, "_move_exported_model_to_eval", observed(log, move.__name__, move))
        )
        yield
