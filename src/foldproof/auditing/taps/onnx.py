"""torch.onnx.export: what it does to a graph of PyTorch before it writes one of ONNX, besides decompositions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

from foldproof.auditing.log import Log
from foldproof.auditing.taps.fx_passes import observed
from foldproof.auditing.taps.hooks import Hook

HOOKS = tuple(
    Hook("torch.onnx._internal.exporter._fx_passes", name, f"the pass {name}")
    for name in ("insert_type_promotion_nodes", "remove_assertion_nodes")
)


@contextlib.contextmanager
def tap_onnx(log: Log) -> Iterator[None]:
    """Note the steps of the exporter; the rest is seen by `tap_passes`."""
    with contextlib.ExitStack() as stack:
        for hook in HOOKS:
            stack.enter_context(hook.patched(functools.partial(observed, log, hook.function)))
        yield
