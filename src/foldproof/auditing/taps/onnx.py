"""torch.onnx.export: its passes on PyTorch's graph, the translation, and the passes on the ONNX graph.

`foldproof.onnx_graph` reads ONNX graphs. ONNX Runtime optimizes a graph when it loads it: `OnnxTap.load` looks at the
graph that it writes at each level, and finds the optimizer that makes a wrong one.
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

from foldproof.auditing.log import Change, Log
from foldproof.auditing.snapshot import Snapshot, take_snapshot
from foldproof.auditing.taps.fx_passes import observe
from foldproof.auditing.taps.hooks import Hook
from foldproof.auditing.taps.onnx_runtime import find_needed, list_optimizers, optimize
from foldproof.log import giving_up
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
        self._folder = tempfile.TemporaryDirectory()  # files are loaded again where one is refuted
        self.folder = Path(self._folder.name)
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
                stack.enter_context(hook.patch(functools.partial(observe, self.log, hook.attribute)))
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
        for name in ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_LAYOUT", "ORT_ENABLE_ALL"):
            if name in known:
                last = self._optimize(path, last, known[name])

    def _optimize(self, path: Path, last: Path, level: Any) -> Path:
        """Record the step from the graph ``last`` to that of the level, and return the path of the latter."""
        without = self.log.without
        if without:
            self.log.optional |= without & {*list_optimizers(path, level)}
        count = len(self.log.changes)
        with self.log.around(level.name, last, self.snapshot) as made:
            try:
                found = optimize(path, level, without)
            except Exception:
                self.log.failed = self._find_failing(path, level)
                raise
            made.append(found.path)
        self.log.optional.update(found.optimizers)
        for change in self.log.changes[count:]:
            change.find_cause = functools.partial(self._find_wrong, path, level, found.optimizers)
        return found.path

    def _find_failing(self, path: Path, level: Any) -> str:
        """Return the optimizers without which ONNX Runtime loads the file; else the level."""

        def fails(without: frozenset[str]) -> bool:
            with giving_up("loading a file in ONNX Runtime"):
                optimize(path, level, self.log.without | without)
                return False
            return True

        found = find_needed(list_optimizers(path, level), fails)
        self.log.optional.update(found)
        return ", ".join(found) or str(level.name)

    def _find_wrong(self, path: Path, level: Any, names: Sequence[str], is_wrong: Callable[[Change], bool]) -> str:
        """Return the optimizers that make the graph of a file wrong; empty if it is wrong without any."""
        before = self.snapshot(path)
        seen: dict[str, bool] = {}

        def wrong(without: frozenset[str]) -> bool:
            after = self.snapshot(optimize(path, level, self.log.without | without).path)
            if after.digest not in seen:
                seen[after.digest] = is_wrong(Change(level.name, "", before, after))
            return seen[after.digest]

        return ", ".join(find_needed(names, wrong))


def _with_a_tuple(module: fx.GraphModule) -> fx.GraphModule:
    """Return a graph module that gives a lone output in a tuple, as the graphs of exported programs do."""
    end = module.graph.output_node()
    if isinstance(end.args[0], fx.Node):
        end.args = ((end.args[0],),)
    return module
