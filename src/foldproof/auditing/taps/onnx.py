"""torch.onnx.export: what it does to a graph of PyTorch before it writes one of ONNX, besides decompositions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

from foldproof.auditing.log import Log
from foldproof.auditing.taps.passes import observed

STEPS = ("insert_type_promotion_nodes", "remove_assertion_nodes")
"""Functions of a module of the exporter."""


@contextlib.contextmanager
def tap_onnx(log: Log) -> Iterator[None]:
    """Note the steps of the exporter; the rest is seen by `tap_passes`."""
    from torch.onnx._internal.exporter import _fx_passes

    with contextlib.ExitStack() as stack:
        for name in STEPS:
            step = observed(log, name, getattr(_fx_passes, name))
            stack.enter_context(mock.patch.object(_fx_passes, name, step))
        yield
