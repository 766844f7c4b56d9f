"""torch.onnx.export: its passes on PyTorch's graph, besides decompositions, before it writes an ONNX graph."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from foldproof.auditing.log import Log
from foldproof.auditing.taps.fx_passes import observe
from foldproof.auditing.taps.hooks import Hook

HOOKS = tuple(
    Hook("torch.onnx._internal.exporter._fx_passes", name, f"the pass {name}")
    for name in ("insert_type_promotion_nodes", "remove_assertion_nodes")
)


@contextlib.contextmanager
def tap_onnx(log: Log) -> Iterator[None]:
    """Record the steps of the exporter; `tap_passes` records the rest."""
    with contextlib.ExitStack() as stack:
        for hook in HOOKS:
            stack.enter_context(hook.patch(functools.partial(observe, log, hook.function)))
        yield
