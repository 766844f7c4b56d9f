"""``torch.compile(model, backend="foldproof")``: foldproof's rewrites, each proved, then Inductor.

Parameters are folded and joined when the model is compiled. Each call checks that they have not changed since. If one
was changed or replaced (in place, by ``load_state_dict``, by another instance of the model), the constants made from it
are computed again, provided that the proof holds for all parameters. A change through ``.data`` goes unnoticed. Threads
that call one compiled graph take turns. Proofs and timings use the sizes of the first call, even if shapes are dynamic.
"""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakTensorKeyDictionary

from foldproof.errors import FoldproofError, brief
from foldproof.fusion.rewriter import DEFAULT, Rewriter
from foldproof.graph.nodes import written
from foldproof.log import log_caught, logger
from foldproof.program.state import storage_key
from foldproof.proof import prove_region
from foldproof.rewriting.editor import GraphEditor, is_finite
from foldproof.rewriting.expression import Expression, rounded
from foldproof.torch_internals import (
    FakeTensor,
    compile_with_inductor,
    is_static_input,
    options_of_mode,
    restarts,
    version_of,
)

RULES = (*DEFAULT, "batch_linears")
"""Rules to apply. Batching is among them because compiled code is for one machine and rounds differently anyway."""


def foldproof(
    module: GraphModule,
    inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile a graph: the backend of ``torch.compile``; ``mode`` and ``options`` are Inductor's.

    If gradients are needed, or nothing can be rewritten, Inductor gets the model unchanged.

    Warns:
        UserWarning: part of the model can't be traced or folded, so Inductor gets it unchanged.
    """
    config = {**(options_of_mode(mode) if mode else {}), **(options or {})}
    try:
        found = None if _needs_gradients(inputs) else rewrite_graph(module, inputs)
        if found is not None:
            if any(inputs[i].is_inference() for i in found.read.values()):
                raise FoldproofError("a parameter is an inference tensor, whose changes can't be tracked")
            compiled = _compile(found.module, inputs, config)
            if config.get("freezing", False):  # freezing copied the values into the compiled code
                found = replace(found, general=False)
            return _Guarded(compiled, found, module, _capture_states(found, inputs))
    except restarts():
        raise
    except Exception as error:
        log_caught(error, "rewriting a graph")
        warnings.warn(f"foldproof leaves a graph to Inductor as it is: {brief(error)}", stacklevel=2)
    return _compile(module, inputs, config)


@dataclass(frozen=True)
class Rewritten:
    """A module after rewrites. ``made`` are its new constants, each with the expression for its value.

    ``read`` maps the names in the expressions to the indices of the inputs that they stand for. ``general`` is True if
    the rewrites are right for all values of these inputs, and False if for the values at compilation only.
    """

    module: GraphModule
    made: tuple[tuple[Tensor, Expression], ...]
    read: dict[str, int]
    general: bool


def rewrite_graph(module: GraphModule, inputs: Sequence[Any]) -> Rewritten | None:
    """Return the module in ATen operators after foldproof's rewrites; None if nothing can be rewritten.

    Args:
        module: a graph of torch operators from Dynamo, in which parameters are inputs, too.
        inputs: the inputs of the first call.
    """
    places = [node for node in module.graph.nodes if node.op == "placeholder"]
    if not any(isinstance(node.meta["example_value"], FakeTensor) for node in places):
        return None
    traced = _trace_aten(module, places)
    if _writes_shared(traced, inputs):
        logger.info("nothing is rewritten: the graph writes to an input that shares memory with another input")
        return None
    held = _hold_parameters(traced, places, inputs)
    editor = GraphEditor.in_place(traced)
    account = Rewriter.of(RULES, prove_region).run(editor, lambda done, total, what: None, {})
    for one in account.declined:
        logger.info("%s: declined, for %s", one.node, one.reason)
    if not account.rewrites:
        return None
    for rewrite in account.rewrites:
        logger.info("%s: %s (%s) %s", rewrite.reported, rewrite.rule, rewrite.verdict.kind.value, rewrite.speed or "")
    editor.finish()
    _give_back(traced, held)
    kept = {str(node.target) for node in traced.graph.nodes if node.op == "get_attr"}
    derived = {name: e for name, e in editor.constants.derived.items() if name in kept}
    numbers = {name: i for i, name in held.items()}
    return Rewritten(
        traced,
        tuple((editor.constants.tensors[name], expression) for name, expression in derived.items()),
        {name: numbers[name] for expression in derived.values() for name in expression.reads()},
        not any(r.conditional for r in account.rewrites)
        and all((r.verdict.claim is not None and r.verdict.claim.all_parameters) for r in account.rewrites),
    )


def _needs_gradients(inputs: Sequence[Any]) -> bool:
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)


def _trace_aten(module: GraphModule, places: Sequence[Node]) -> GraphModule:
    """Trace the module into ATen operators before autograd, as in ``torch.export``, at Dynamo's symbolic shapes."""
    values = [node.meta["example_value"] for node in places]
    fakes = [value for value in values if isinstance(value, FakeTensor)]
    with fakes[0].fake_mode:
        return make_fx(module, pre_dispatch=True, _allow_non_fake_inputs=True)(*values)


def _writes_shared(traced: GraphModule, inputs: Sequence[Any]) -> bool:
    """True if the graph may write to an input that shares memory with another, whose change the graph doesn't show."""
    inner = [node for node in traced.graph.nodes if node.op == "placeholder"]
    memories = {
        node: storage_key(value) for node, value in zip(inner, inputs, strict=True) if isinstance(value, Tensor)
    }
    readers = Counter(memories.values())
    return any(readers[memories[node]] > 1 for node in written(traced.graph, traced) if node in memories)


def _hold_parameters(traced: GraphModule, places: Sequence[Node], inputs: Sequence[Any]) -> dict[int, str]:
    """Turn the inputs that are parameters and buffers into attributes; return their names by index of the input."""
    held = {}
    inner = [node for node in traced.graph.nodes if node.op == "placeholder"]
    for i, (outer, node, value) in enumerate(zip(places, inner, inputs, strict=True)):
        if not isinstance(value, Tensor) or not (is_static_input(outer) or isinstance(value, torch.nn.Parameter)):
            continue
        name = f"{outer.name.strip('_')}_{i}"
        setattr(traced, name, value) if isinstance(value, torch.nn.Parameter) else traced.register_buffer(name, value)
        with traced.graph.inserting_before(node):
            attribute = traced.graph.get_attr(name)
        attribute.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(attribute)
        held[i] = name
    return held


def _give_back(traced: GraphModule, held: Mapping[int, str]) -> None:
    """Turn the remaining parameters back into inputs."""
    inner = [node for node in traced.graph.nodes if node.op == "placeholder"]
    back = {name: inner[i] for i, name in held.items()}
    for node in list(traced.graph.nodes):
        if node.op == "get_attr" and node.target in back:
            node.replace_all_uses_with(back[node.target])
            traced.graph.erase_node(node)
    for name in held.values():
        if hasattr(traced, name):
            delattr(traced, name)
    traced.recompile()


def _compile(module: GraphModule, inputs: Sequence[Any], config: dict[str, Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = compile_with_inductor(module, inputs, config)
    return compiled


class _FusedSteps:
    """Counts the steps of fused optimizers, which change parameters without changing their versions.

    Steps are counted as long as any compiled graph is alive.
    """

    def __init__(self) -> None:
        self.number = 0
        self._last: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()
        self._watching = 0
        self._hook: RemovableHandle | None = None

    def watch_for(self, compiled: object) -> None:
        """Count the steps of all optimizers until ``compiled`` is garbage-collected."""
        if self._hook is None:
            self._hook = register_optimizer_step_post_hook(self._note)
        self._watching += 1
        weakref.finalize(compiled, self._release)

    def _release(self) -> None:
        self._watching -= 1
        if not self._watching and self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _note(self, optimizer: Optimizer, *_: object) -> None:
        """Record a step; a hook that runs after each step of any optimizer."""
        fused = [group for group in optimizer.param_groups if group.get("fused")]
        if fused:
            self.number += 1
            self._last.update((p, self.number) for group in fused for p in group["params"])

    def last(self, parameter: Tensor) -> int:
        """Return the number of the last step that changed ``parameter``, 0 if none did."""
        return self._last.get(parameter, 0)


_FUSED = _FusedSteps()

State = tuple[int, Tensor, int, int]
"""State of an input whose value was read: its index, the tensor, its version and its address."""


def _capture_states(rewritten: Rewritten, inputs: Sequence[Any]) -> list[State]:
    return [(i, inputs[i], version_of(inputs[i]), inputs[i].data_ptr()) for i in rewritten.read.values()]


@dataclass
class _Guarded:
    """Runs ``compiled``, made from ``rewritten`` for inputs in these ``states``; ``module`` is the original graph."""

    compiled: Callable[..., Any]
    rewritten: Rewritten
    module: GraphModule
    states: list[State]
    fits: bool = True
    seen_steps: int = field(default_factory=lambda: _FUSED.number)
    lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        _FUSED.watch_for(self)

    def __call__(self, *inputs: Any) -> Any:
        with self.lock:  # another thread may run the same graph with other parameters
            return self._run(inputs)

    def _run(self, inputs: Sequence[Any]) -> Any:
        if self.seen_steps != _FUSED.number:
            if any(_FUSED.last(inputs[i]) > self.seen_steps for i, *_ in self.states):
                self._changed(inputs)
            self.seen_steps = _FUSED.number
        for i, tensor, version, address in self.states:  # runs at each call, so it has to be fast
            now = inputs[i]
            if now is not tensor or version_of(now) != version or now.data_ptr() != address:
                self._changed(inputs)
                break
        return self.compiled(*inputs) if self.fits else self.module(*inputs)

    def _changed(self, inputs: Sequence[Any]) -> None:
        self.fits = self.rewritten.general and self._renew(inputs)
        self.states = _capture_states(self.rewritten, inputs)
        if not self.fits:
            warnings.warn(
                "a parameter was changed after foldproof folded it, and the compiled code is right for its old value"
                " only: the model now runs uncompiled; call torch.compiler.reset() to compile it again",
                stacklevel=3,
            )

    @torch.no_grad()
    def _renew(self, inputs: Sequence[Any]) -> bool:
        """Compute the new constants from the current parameters; return True if all are finite."""
        given = {name: inputs[i].detach() for name, i in self.rewritten.read.items()}
        for tensor, expression in self.rewritten.made:
            tensor.copy_(rounded(expression, given, tensor.dtype))
        return all(is_finite(tensor) for tensor, _ in self.rewritten.made)
