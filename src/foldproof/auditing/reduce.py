"""Reduction of a fault: a smaller model on which the same pass is still wrong, or the compiler still fails.

The reduction is greedy. Each kind of edit (output earlier, input later, a call left out, smaller sizes, simpler
arguments) proposes candidates, and the first one that is smaller and still shows the fault replaces the best one. Every
candidate is compiled, so edits come in the order of the work that they save.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.auditing.fault import Fault
from foldproof.auditing.specification import FILLS, ModelSpec, TensorSpec, shorten, specify_model
from foldproof.graph.interpreter import Interpreter
from foldproof.log import log_caught
from foldproof.torch_internals import tree_map


def reduce_fault(fault: Fault, model: nn.Module, inputs: Sequence[Any], seconds: float = 120.0) -> ModelSpec | None:
    """Return the smallest model found that shows the fault; None if the model itself does not.

    ``seconds`` is processor time: with wall-clock time the result would depend on the load of the machine.
    """
    start = time.process_time()
    specs = specify_model(model, inputs)
    best = next((d for d in specs if fault.is_shown_by(d)), None)
    if best is None and fault.look_closer():
        best = next((d for d in specs if fault.is_shown_by(d)), None)
    if best is None:
        return None
    progress = True
    while progress:
        progress = False
        for candidates in (_replace_numbers, _shorten_end, _shorten_start, _bypass_calls, _shrink_sizes, _simplify):
            found: ModelSpec | None = best
            while found is not None and time.process_time() - start < seconds:
                found = next(
                    (d for d in candidates(best) if _measure_size(d) < _measure_size(best) and fault.is_shown_by(d)),
                    None,
                )
                if found is not None:
                    best, progress = found, True
    return best


def _measure_size(spec: ModelSpec) -> tuple[int, ...]:
    """Return the measures to reduce, the most important first."""
    nodes = sum(n.op not in ("placeholder", "output", "get_attr") for n in spec.graph.nodes)
    shapes = [s for made in (*spec.inputs, *spec.tensors.values()) for s in made.shape]
    numbers = [int(n) for code in spec.modules.values() for n in re.findall(r"(?<![\w.])\d+(?![\w.])", code)]
    code = sum(len(code) for code in spec.modules.values())
    own = (spec.held is not None) + (spec.given is not None)
    operands = sum(len(n.args) for n in spec.graph.nodes)
    return nodes, own, operands, sum(shapes) + sum(numbers), len(spec.inputs), code, spec.filled != "ones"


def _replace_numbers(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Replace the model's own numbers by numbers that a rule makes; by nan only if some are: it shows other faults."""
    if not spec.written:
        finite = all(bool(x.isfinite().all()) for x in spec.given or () if isinstance(x, Tensor))
        for lowest in (1, -1):
            for filled in (fill for fill in FILLS if not (finite and fill == "nan")):
                yield replace(spec, held=None, given=None, lowest=lowest, filled=filled)
        yield replace(spec, given=None)
        yield replace(spec, held=None)


def _list_calls(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.nodes if n.op not in ("placeholder", "output", "get_attr")]


def _bisect(n: int) -> Iterator[int]:
    """Yield the indices of a list of length ``n``, halves first, so that a long list gets short in few steps."""
    step, seen = n, set()
    while step > 1:
        step = (step + 1) // 2
        for i in range(step, n, step):
            if i not in seen:
                seen.add(i)
                yield i
    if 0 not in seen and n:
        yield 0


def _edit_graph(spec: ModelSpec, edit: Callable[[fx.Graph, list[fx.Node]], Any], **changes: Any) -> ModelSpec | None:
    graph = copy.deepcopy(spec.graph)
    try:
        if edit(graph, _list_calls(graph)) is False:
            return None
        graph.lint()
        return replace(spec, graph=graph, **changes).prune()
    except Exception as error:
        log_caught(error, "making a model smaller")
        return None


def _shorten_end(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Make an earlier value the output."""
    for i in _bisect(len(_list_calls(spec.graph))):

        def edit(graph: fx.Graph, calls: list[fx.Node]) -> Any:
            output = next(n for n in graph.nodes if n.op == "output")
            if output.args == (calls[i],):
                return False
            output.args = (calls[i],)
            return True

        found = _edit_graph(spec, edit)
        if found is not None:
            yield found


def _compute_values(spec: ModelSpec) -> dict[str, Tensor]:
    """Compute the tensor results of all nodes, by name."""
    model, inputs = spec.build()
    values: dict[str, Tensor] = {}

    def watch(node: fx.Node, out: Any) -> None:
        if isinstance(out, Tensor):
            values[node.name] = out.detach().clone()

    with torch.no_grad():
        Interpreter(model, watch).run(*inputs)  # type: ignore[arg-type]
    return values


def _shorten_start(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Make a value in the middle an input."""
    values = _compute_values(spec)
    calls = _list_calls(spec.graph)
    for i in reversed(list(_bisect(len(calls) - 1))):
        value = values.get(calls[i].name)
        if value is None or not value.dtype.is_floating_point:
            continue

        def edit(graph: fx.Graph, calls: list[fx.Node]) -> None:
            places = [n for n in graph.nodes if n.op == "placeholder"]
            with graph.inserting_after(places[-1]) if places else graph.inserting_before():
                new = graph.placeholder("x" if not any(p.name == "x" for p in places) else "y")
            calls[i].replace_all_uses_with(new)

        made = TensorSpec(tuple(value.shape), value.dtype)
        given = None if spec.given is None else (*spec.given, value)
        found = _edit_graph(spec, edit, inputs=[*spec.inputs, made], given=given)
        if found is not None:
            yield found


def _bypass_calls(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Leave out a call: its first operand of the same shape replaces it."""
    shapes = {name: (value.shape, value.dtype) for name, value in _compute_values(spec).items()}
    for i in reversed(range(len(_list_calls(spec.graph)))):

        def edit(graph: fx.Graph, calls: list[fx.Node]) -> Any:
            node = calls[i]
            for operand in node.all_input_nodes:
                if shapes.get(operand.name) == shapes.get(node.name) and node.name in shapes:
                    node.replace_all_uses_with(operand)
                    graph.erase_node(node)
                    return True
            if not node.users:
                graph.erase_node(node)
                return True
            return False

        found = _edit_graph(spec, edit)
        if found is not None:
            yield found


def _shrink_sizes(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Replace one number by a smaller one everywhere: in inputs, modules, tensors and arguments."""
    if not spec.written:
        return
    found = {s for made in (*spec.inputs, *spec.tensors.values()) for s in made.shape}
    for code in spec.modules.values():
        found |= {int(n) for n in re.findall(r"(?<![\w.])\d+(?![\w.])", code)}
    for old in sorted(found, reverse=True):
        for new in (1, 2, 3, old // 2, old - 1):
            if 0 < new < old:
                yield from (d for d in (_resize(spec, old, new), *_resize_inputs(spec, old, new)) if d is not None)


def _resize(spec: ModelSpec, old: int, new: int) -> ModelSpec | None:
    def other(x: Any) -> Any:
        return new if type(x) is int and x == old else x

    def shape(made: TensorSpec) -> TensorSpec:
        return replace(made, shape=tuple(other(s) for s in made.shape))

    def edit(graph: fx.Graph, calls: list[fx.Node]) -> None:
        for node in calls:
            node.args, node.kwargs = tree_map(other, (node.args, node.kwargs))

    number = re.compile(rf"(?<![\w.]){old}(?![\w.])")
    return _edit_graph(
        spec,
        edit,
        modules={name: number.sub(str(new), code) for name, code in spec.modules.items()},
        tensors={name: shape(made) for name, made in spec.tensors.items()},
        inputs=[shape(made) for made in spec.inputs],
    )


def _resize_inputs(spec: ModelSpec, old: int, new: int) -> Iterator[ModelSpec | None]:
    """Shrink one dimension of all inputs only: modules don't fix batch sizes, heights and widths."""
    for d in range(max((len(made.shape) for made in spec.inputs), default=0)):

        def shape(made: TensorSpec) -> TensorSpec:
            sizes = list(made.shape)
            if d < len(sizes) and sizes[d] == old:
                sizes[d] = new
            return replace(made, shape=tuple(sizes))

        yield replace(spec, inputs=[shape(made) for made in spec.inputs])


def _simplify(spec: ModelSpec) -> Iterator[ModelSpec]:
    """Simplify: inputs of ones, modules without padding and strides, functions without their last argument."""
    yield replace(spec, filled="ones")
    for name, code in spec.modules.items():
        yield replace(
            spec, modules={**spec.modules, name: shorten(re.sub(r"padding=\w+|stride=\w+", "stride=1", code))}
        )
    optional = [i for i, n in enumerate(_list_calls(spec.graph)) if n.op == "call_function" and len(n.args) > 2]

    def without(places: Sequence[int]) -> ModelSpec | None:
        def edit(graph: fx.Graph, calls: list[fx.Node]) -> None:
            for i in places:
                calls[i].args = calls[i].args[:-1]

        return _edit_graph(spec, edit)

    yield from (d for d in (without(optional), *(without([i]) for i in optional)) if d is not None)
