"""torch.onnx.export: its passes on PyTorch's graph, the translation, and the passes on the ONNX graph.

`foldproof.onnx_graph` reads ONNX graphs. ONNX Runtime optimizes a graph when it loads it: `OnnxTap.load` looks at the
graph that it writes at each level.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import fx
from torch.export import ExportedProgram

from foldproof.auditing.log import Log
from foldproof.auditing.snapshot import Snapshot, take_snapshot
from foldproof.auditing.taps.fx_passes import observe
from foldproof.auditing.taps.hooks import Hook
from foldproof.onnx_graph import hold_shapes, read_graph
from foldproof.onnx_graph.reader import Held

_PASSES = tuple(
    Hook("torch.onnx._internal.exporter._fx_passes", name, f"the pass {name}")
    for name in ("insert_type_promotion_nodes", "remove_assertion_nodes")
)
_TRANSLATION = Hook(
    "torch.onnx._internal.exporter._core", "_exported_program_to_onnx_program", "the translation to an ONNX graph"
)
_ONNX_PASSES = Hook("onnx_ir.passes", "PassBase.__call__", "each pass of onnx_ir and onnxscript on an ONNX graph")
_RULES = Hook("onnxscript.rewriter", "RewriteRule.try_rewrite", "the rules that a pass of onnxscript applies")
HOOKS = (*_PASSES, _TRANSLATION, _ONNX_PASSES, _RULES)

TRANSLATION = "translation to ONNX"
"""Name of the step from the last graph of PyTorch to the first one of ONNX."""
SAVING = "writing the file"
"""Name of the step from the last graph in memory to the one in the file."""


class OnnxTap:
    """A tap on the ONNX graphs of one export, of a model with these inputs: its readings share their constants."""

    def __init__(self, log: Log, inputs: Sequence[Any]) -> None:
        self.log, self._inputs = log, inputs
        self._last: Any = None
        """The ONNX model that the exporter has worked on last."""
        self._held: Held = {}
        self._rules: list[str] = []
        self._reading = False

    def snapshot(self, program: Any) -> Snapshot:
        """Read an exported program, an ONNX model, or the path of one."""
        if isinstance(program, ExportedProgram):
            return take_snapshot(program, copies=self.log.copies)
        self._reading = True  # which inlines functions by a pass
        try:
            module = _with_a_tuple(read_graph(program, "the graph", self._held))
        finally:
            self._reading = False
        hold_shapes(module, self._inputs)
        return Snapshot(module, copies=self.log.copies)

    def translate(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(program: ExportedProgram, *args: Any, **kwargs: Any) -> Any:
            with self.log.around(TRANSLATION, program, self.snapshot) as made:
                result = original(program, *args, **kwargs)
                made.append(result.model)
            self._last = result.model
            return result

        return call

    def run_pass(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(one: Any, given: Any, /) -> Any:
            model = getattr(given, "model", given)
            if self._reading or hasattr(one, "passes"):  # a sequence of others
                return original(one, given)
            known = len(self._rules)
            self._last = model
            with self.log.around(type(one).__name__, model, self.snapshot) as made:
                result = original(one, given)
                made.append(result.model)
                applied = dict.fromkeys(self._rules[known:])
                if applied:
                    self.log.rename(", ".join(applied))
            del self._rules[known:]
            return result

        return call

    def apply_rule(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def call(rule: Any, *args: Any, **kwargs: Any) -> Any:
            found = original(rule, *args, **kwargs)
            if found is not None:
                self._rules.append(str(rule.name or type(rule).__name__))
            return found

        return call

    @contextlib.contextmanager
    def export(self) -> Iterator[None]:
        """Record the steps of the exporter; `tap_passes` records its passes on PyTorch's graph."""
        with contextlib.ExitStack() as stack:
            for hook in _PASSES:
                stack.enter_context(hook.patch(functools.partial(observe, self.log, hook.function)))
            stack.enter_context(_TRANSLATION.patch(self.translate))
            stack.enter_context(_ONNX_PASSES.patch(self.run_pass))
            stack.enter_context(_RULES.patch(self.apply_rule))
            yield

    def load(self, path: Path) -> None:
        """Record what the file is, and what ONNX Runtime makes of it when it loads it, level by level."""
        import onnxruntime

        if self._last is not None:
            with self.log.around(SAVING, self._last, self.snapshot) as made:
                made.append(path)
        known = onnxruntime.GraphOptimizationLevel.__members__
        last = path
        for level in ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_LAYOUT", "ORT_ENABLE_ALL"):
            if level not in known:
                continue
            with self.log.around(level, last, self.snapshot) as made:
                last = optimized(path, known[level])
                made.append(last)


def _with_a_tuple(module: fx.GraphModule) -> fx.GraphModule:
    """Return a graph module that gives a lone output in a tuple, as the graphs of exported programs do."""
    end = module.graph.output_node()
    if isinstance(end.args[0], fx.Node):
        end.args = ((end.args[0],),)
    return module


def optimized(path: Path, level: Any) -> Path:
    """Let ONNX Runtime optimize a model at a level, and return the path of the result, beside it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4  # it warns that the result is for this machine
    result = path.with_name(f"{path.stem}.{level.name}.onnx")
    options.optimized_model_filepath = str(result)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return result
