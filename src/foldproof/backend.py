"""``torch.compile(model, backend="foldproof")``: foldproof's rewrites, each proved, then Inductor.

The compiled graph holds no values of parameters: it computes folded and joined constants at each call, from the
parameters themselves. So every change is seen at the very next call, however it was made: also one that no version
counter shows, such as a collective's, or one through ``.data``, numpy or a storage. That costs a call at most
`MADE_SHARE` of its time: folds with larger constants, for the work that the graph does, are left.

A fold that is proved for some values of parameters only, such as positive scales, is guarded: each call compares the
bits of what was folded with what they were, and runs the graph as it was before where they differ.

Proofs are made, and times measured, at the sizes of the first call, also where shapes are dynamic.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from foldproof.errors import brief
from foldproof.fusion.rewriter import COMPUTED, DEFAULT, Rewriter
from foldproof.graph.nodes import set_sizes, written
from foldproof.log import log_caught, logger
from foldproof.program.state import storage_key
from foldproof.proof import prove_region
from foldproof.rewriting.constants import Constants
from foldproof.rewriting.editor import GraphEditor
from foldproof.rewriting.expression import computed
from foldproof.thresholds import FREE_ELEMENTS, MADE_SHARE, WORK_OF_MADE_ELEMENT
from foldproof.torch_internals import (
    FakeTensor,
    compile_with_inductor,
    is_static_input,
    options_of_mode,
    restarts,
)

RULES = (*(rule for rule in DEFAULT if rule != COMPUTED), "batch_linears")
"""Rules to apply. Batching is among them because compiled code is for one machine and rounds differently anyway.
Constants are not computed in advance, because each call computes them here."""


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
            compiled = _compile(found.module, inputs, config)
            if not found.right_for:
                return compiled
            return _Guarded(compiled, module, [(i, _bits(inputs[i]).clone()) for i in found.right_for])
    except restarts():
        raise
    except Exception as error:
        log_caught(error, "rewriting a graph")
        warnings.warn(f"foldproof leaves a graph to Inductor as it is: {brief(error)}", stacklevel=2)
    return _compile(module, inputs, config)


@dataclass(frozen=True)
class Rewritten:
    """A module after rewrites.

    It computes ``made`` constants from others. It is right for all values of its inputs, but for those at the indices
    ``right_for``: these have to be what they were.
    """

    module: GraphModule
    made: int
    right_for: tuple[int, ...]


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
    most_made = max(FREE_ELEMENTS, int(_work(traced, places) * MADE_SHARE / WORK_OF_MADE_ELEMENT))
    held = _hold_parameters(traced, places, inputs)
    editor = GraphEditor.in_place(traced)
    rewriter = replace(Rewriter.of(RULES, prove_region), most_made=most_made)
    account = rewriter.run(editor, lambda done, total, what: None, {})
    for one in account.declined:
        logger.info("%s: declined, for %s", one.node, one.reason)
    if not account.rewrites:
        return None
    for rewrite in account.rewrites:
        logger.info("%s: %s (%s) %s", rewrite.reported, rewrite.rule, rewrite.verdict.kind.value, rewrite.speed or "")
    made = _compute_constants(traced, editor.constants)
    editor.finish()
    _give_back(traced, held)
    general = all(
        not r.conditional and r.verdict.claim is not None and r.verdict.claim.all_parameters for r in account.rewrites
    )
    numbers = {name: i for i, name in held.items()}
    read = {name for expression in editor.constants.derived.values() for name in expression.reads()}
    return Rewritten(traced, made, () if general else tuple(sorted(numbers[name] for name in read & numbers.keys())))


def _needs_gradients(inputs: Sequence[Any]) -> bool:
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)


def _trace_aten(module: GraphModule, places: Sequence[Node]) -> GraphModule:
    """Trace the module into ATen operators before autograd, as in ``torch.export``, at Dynamo's symbolic shapes."""
    values = [node.meta["example_value"] for node in places]
    with _fake_mode(values):
        return make_fx(module, pre_dispatch=True, _allow_non_fake_inputs=True)(*values)


@torch.no_grad()
def _work(traced: GraphModule, places: Sequence[Node]) -> int:
    """Floating-point operations of a run, at the sizes of the first call."""
    values = [node.meta["example_value"] for node in places]
    with _fake_mode(values), FlopCounterMode(display=False) as counter:
        traced(*values)
    return int(set_sizes(counter.get_total_flops()))


def _fake_mode(values: Sequence[Any]) -> AbstractContextManager[object]:
    mode: AbstractContextManager[object] = next(v for v in values if isinstance(v, FakeTensor)).fake_mode
    return mode


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


def _compute_constants(traced: GraphModule, constants: Constants) -> int:
    """Puts calls that compute them in the place of derived constants, and says how many these are."""
    nodes = {node: name for node, name in constants.names.items() if name in constants.derived and node.users}
    derived = {name: constants.derived[name] for name in nodes.values()}
    if not derived:
        return 0
    read = dict.fromkeys(name for expression in derived.values() for name in expression.reads())
    body = next(node for node in traced.graph.nodes if node.op not in ("placeholder", "get_attr"))
    with traced.graph.inserting_before(body):
        operands = [traced.graph.get_attr(name) for name in read]
        values = [constants.nodes_of(name)[0].meta["val"] for name in read]

        def compute(*given: Tensor) -> list[Tensor]:
            known = dict(zip(read, given, strict=True))
            return [computed(e, known, constants.tensors[name].dtype) for name, e in derived.items()]

        with _fake_mode(values):
            part = make_fx(compute, pre_dispatch=True)(*values)
        for node in part.graph.find_nodes(op="get_attr"):
            name = f"made{node.target}"
            setattr(traced, name, getattr(part, str(node.target)))
            node.target = name
        inner = part.graph.find_nodes(op="placeholder")
        made = dict(zip(inner, operands, strict=True))
        traced.graph.graph_copy(part.graph, made)
    outputs: Any = part.graph.output_node().args[0]
    results = dict(zip(derived, outputs, strict=True))
    for node, name in nodes.items():
        node.replace_all_uses_with(made[results[name]])
    return len(derived)


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


@dataclass
class _Guarded:
    """Runs ``compiled``, which is right for some values of the inputs ``kept``; with others, what it was before.

    ``kept`` has indices of inputs and copies of their bits. All bits are compared at each call: there are ways to write
    to a tensor that no counter shows.
    """

    compiled: Callable[..., Any]
    module: GraphModule
    kept: list[tuple[int, Tensor]]
    is_told: bool = False

    def __call__(self, *inputs: Any) -> Any:
        if all(torch.equal(_bits(inputs[i]), bits) for i, bits in self.kept):
            return self.compiled(*inputs)
        if not self.is_told:
            self.is_told = True
            warnings.warn(
                "a parameter was changed after foldproof folded it, and what was compiled is right for its old value"
                " only: the model runs uncompiled while it has another, until torch.compiler.reset() has it compiled"
                " anew",
                stacklevel=2,
            )
        return self.module(*inputs)


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().view(_INTEGERS[tensor.element_size()])
