"""OpenVINO: the conversion of PyTorch's graph, its common transformations, and those of the CPU plugin.

`foldproof.openvino_graph` reads models that are written to files, and what the plugin exports of a compiled one.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import fx
from torch.export import ExportedProgram

from foldproof.auditing.log import Log
from foldproof.auditing.snapshot import Snapshot, take_snapshot
from foldproof.auditing.taps.hooks import Hook
from foldproof.onnx_graph import hold_shapes
from foldproof.openvino_graph import read_compiled, read_model
from foldproof.openvino_graph.reader import Held

_COMMON = Hook(
    "openvino._offline_transformations", "apply_moc_transformations", "OpenVINO's transformations for all devices"
)
HOOKS = (_COMMON,)

CONVERSION = "conversion to OpenVINO"
"""Name of the step from PyTorch's graph to the first one of OpenVINO."""
PLUGIN = "CPU plugin"
"""Name of the step from the last graph of OpenVINO to that which the plugin works on."""
READABLE: dict[str, Any] = {"CACHE_ENCRYPTION_CALLBACKS": [lambda text: text, lambda text: text]}
"""Settings with which a compiled model is exported as it is, and not in a simple cipher."""


class OpenvinoTap:
    """A tap on one conversion and compilation, of a model with these inputs: its readings share their constants."""

    def __init__(self, log: Log, inputs: Sequence[Any]) -> None:
        self.log, self._inputs = log, inputs
        self._held: Held = {}
        self._program: ExportedProgram | None = None

    def snapshot(self, model: Any) -> Snapshot:
        """Read an exported program, an OpenVINO model, or what a plugin exports."""
        if isinstance(model, ExportedProgram):
            return take_snapshot(model, copies=self.log.copies)
        module = (
            read_compiled(model, "the compiled graph", self._held) if isinstance(model, bytes) else self._read(model)
        )
        hold_shapes(module, self._inputs)
        return Snapshot(module, copies=self.log.copies)

    def _read(self, model: Any) -> fx.GraphModule:
        import openvino

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            openvino.save_model(model, path, compress_to_fp16=False)
            return read_model(path, "the graph", self._held)

    @contextlib.contextmanager
    def convert(self, program: ExportedProgram) -> Iterator[None]:
        """Record the steps of a conversion."""
        self._program = program
        with _COMMON.patch(self._apply):
            yield

    def _apply(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(model: Any, *args: Any, **kwargs: Any) -> Any:
            if self._program is not None:
                with self.log.around(CONVERSION, self._program, self.snapshot) as made:
                    made.append(model)
                self._program = None
            with self.log.around("apply_moc_transformations", model, self.snapshot):
                return original(model, *args, **kwargs)

        return call

    @contextlib.contextmanager
    def compile(self, model: Any) -> Iterator[list[Any]]:
        """Record the step of a compilation; the caller appends the compiled model."""
        with self.log.around(PLUGIN, model, self.snapshot) as made:
            compiled: list[Any] = []
            yield compiled
            exported = compiled[0].export_model()
            made.append(bytes(exported) if isinstance(exported, (bytes, bytearray)) else exported.read())
