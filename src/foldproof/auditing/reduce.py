"""A smaller model on which the same pass does the same wrong."""

from __future__ import annotations

import contextlib
import copy
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.auditing.compilers import Compiler
from foldproof.auditing.inputs import inputs_for
from foldproof.auditing.log import Change, Log
from foldproof.auditing.specification import ModelSpec, TensorSpec, drafted, shortest
from foldproof.graph.interpreter import Interpreter
from foldproof.log import giving_up, log_caught
from foldproof.thresholds import MIN_REDUCED_DIFFERENCE
from foldproof.torch_internals import disable_current_modes, tree_leaves, tree_map


class Fault:
    """What has to stay: this pass of this compiler makes numbers come out otherwise."""

    def __init__(self, compiler: Compiler, options: Mapping[str, Any], culprit: str) -> None:
        self.compiler, self.options, self.culprit = compiler, options, culprit
        self.inputs_too = False
        """Whether what is written to inputs counts as a difference; a program that shows it compares outputs."""

    def shown_by(self, draft: ModelSpec) -> bool:
        """Whether compiling ``draft`` shows it."""
        try:
            model, inputs = draft.build()
            with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):  # fx prints what a graph raises
                model(*(x.clone() for x in inputs))
        except Exception as error:
            log_caught(error, "running a smaller model")
            return False
        return self.found(model, inputs) is not None

    def found(self, model: nn.Module, inputs: Sequence[Any]) -> Change | None:
        """Compile until the culprit makes a difference, and give that change."""
        log, hit = Log(), list[Change]()

        def watch(change: Change) -> None:
            if change.name == self.culprit and change.fired and not hit and _differs(change, inputs, self.inputs_too):
                hit.append(change)
                raise _Found

        log.watch = watch
        # A compiler may also fail on what it made wrong; then nothing more is known of it.
        quiet = contextlib.redirect_stderr(io.StringIO())
        with torch.no_grad(), contextlib.suppress(_Found), giving_up("compiling a smaller model"), quiet:
            self.compiler.compile(model, tuple(inputs), {}, self.options, log)
        return hit[0] if hit else None


class _Found(BaseException):
    """Ends a compilation from within; most compilers catch exceptions of other kinds, and go on."""


def _differs(change: Change, given: Sequence[Any], inputs_too: bool) -> bool:
    # Where a pass has just run, tensors may be fake.
    with disable_current_modes():
        inputs = inputs_for(change.before, given if change.inputs is None else change.inputs)
        if inputs is None:
            return False
        try:
            first, second = (_numbers(s.module, inputs, inputs_too) for s in (change.before, change.after))
        except Exception as error:
            log_caught(error, "running the graphs of a smaller model")
            return False
        if [t.shape for t in first] != [t.shape for t in second]:
            return True
        return any(
            a.numel()
            and bool(a.isfinite().all())
            and float((a - b).abs().max()) > MIN_REDUCED_DIFFERENCE * float(a.abs().max())
            for a, b in zip(first, second)
        )


def _numbers(module: fx.GraphModule, inputs: Sequence[Any], inputs_too: bool) -> list[Tensor]:
    given = [x.clone() if isinstance(x, Tensor) else x for x in inputs]
    with torch.no_grad():
        out = Interpreter(copy.deepcopy(module), None).run(*given)  # which may write to its buffers
    seen = (*tree_leaves(out), *given) if inputs_too else tree_leaves(out)
    return [t.double() for t in seen if isinstance(t, Tensor)]


def reduced(fault: Fault, model: nn.Module, inputs: Sequence[Any], seconds: float = 120.0) -> ModelSpec | None:
    """The smallest draft that was found within so much processor time; None if no draft of the model shows the fault.

    Seconds of a clock on the wall would make the result depend on what else a machine does.
    """
    start = time.process_time()
    drafts = drafted(model, inputs)
    best = next((d for d in drafts if fault.shown_by(d)), None)
    if best is None:
        fault.inputs_too = True
        best = next((d for d in drafts if fault.shown_by(d)), None)
    if best is None:
        return None
    progress = True
    while progress:
        progress = False
        for candidates in (_made_numbers, _shorter_ends, _shorter_starts, _bypassed, _smaller_sizes, _simpler):
            found: ModelSpec | None = best
            while found is not None and time.process_time() - start < seconds:
                found = next((d for d in candidates(best) if _size(d) < _size(best) and fault.shown_by(d)), None)
                if found is not None:
                    best, progress = found, True
    return best


def _size(draft: ModelSpec) -> tuple[int, ...]:
    """What is to become small, the most important first."""
    nodes = sum(n.op not in ("placeholder", "output", "get_attr") for n in draft.graph.nodes)
    shapes = [s for made in (*draft.inputs, *draft.tensors.values()) for s in made.shape]
    numbers = [int(n) for code in draft.modules.values() for n in re.findall(r"(?<![\w.])\d+(?![\w.])", code)]
    code = sum(len(code) for code in draft.modules.values())
    own = (draft.held is not None) + (draft.given is not None)
    operands = sum(len(n.args) for n in draft.graph.nodes)
    return nodes, own, operands, sum(shapes) + sum(numbers), len(draft.inputs), code, draft.filled != "ones"


def _made_numbers(draft: ModelSpec) -> Iterator[ModelSpec]:
    """Numbers that are made by a rule, and not the model's own."""
    if not draft.written:
        for lowest in (1, -1):
            for filled in ("ones", "arange", "centred"):
                yield replace(draft, held=None, given=None, lowest=lowest, filled=filled)
        yield replace(draft, given=None)
        yield replace(draft, held=None)


def _calls(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.nodes if n.op not in ("placeholder", "output", "get_attr")]


def _bisected(n: int) -> Iterator[int]:
    """Places in a list of ``n``, halves first, so that long lists become short in few steps."""
    step, seen = n, set()
    while step > 1:
        step = (step + 1) // 2
        for i in range(step, n, step):
            if i not in seen:
                seen.add(i)
                yield i
    if 0 not in seen and n:
        yield 0


def _edited(draft: ModelSpec, edit: Callable[[fx.Graph, list[fx.Node]], Any], **changes: Any) -> ModelSpec | None:
    graph = copy.deepcopy(draft.graph)
    try:
        if edit(graph, _calls(graph)) is False:
            return None
        graph.lint()
        return replace(draft, graph=graph, **changes).pruned()
    except Exception as error:
        log_caught(error, "making a model smaller")
        return None


def _shorter_ends(draft: ModelSpec) -> Iterator[ModelSpec]:
    """The output is an earlier value."""
    for i in _bisected(len(_calls(draft.graph))):

        def edit(graph: fx.Graph, calls: list[fx.Node]) -> Any:
            output = next(n for n in graph.nodes if n.op == "output")
            if output.args == (calls[i],):
                return False
            output.args = (calls[i],)
            return True

        found = _edited(draft, edit)
        if found is not None:
            yield found


def _values(draft: ModelSpec) -> dict[str, Tensor]:
    """What every node returns, by name, where that is a tensor."""
    model, inputs = draft.build()
    values: dict[str, Tensor] = {}

    def watch(node: fx.Node, out: Any) -> None:
        if isinstance(out, Tensor):
            values[node.name] = out.detach().clone()

    with torch.no_grad():
        Interpreter(model, watch).run(*inputs)  # type: ignore[arg-type]
    return values


def _shorter_starts(draft: ModelSpec) -> Iterator[ModelSpec]:
    """A value in the middle is an input."""
    values = _values(draft)
    calls = _calls(draft.graph)
    for i in reversed(list(_bisected(len(calls) - 1))):
        value = values.get(calls[i].name)
        if value is None or not value.dtype.is_floating_point:
            continue

        def edit(graph: fx.Graph, calls: list[fx.Node]) -> None:
            places = [n for n in graph.nodes if n.op == "placeholder"]
            with graph.inserting_after(places[-1]) if places else graph.inserting_before():
                new = graph.placeholder("x" if not any(p.name == "x" for p in places) else "y")
            calls[i].replace_all_uses_with(new)

        made = TensorSpec(tuple(value.shape), value.dtype)
        given = None if draft.given is None else (*draft.given, value)
        found = _edited(draft, edit, inputs=[*draft.inputs, made], given=given)
        if found is not None:
            yield found


def _bypassed(draft: ModelSpec) -> Iterator[ModelSpec]:
    """A call is left out: its first operand of the same shape stands for it."""
    shapes = {name: (value.shape, value.dtype) for name, value in _values(draft).items()}
    for i in reversed(range(len(_calls(draft.graph)))):

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

        found = _edited(draft, edit)
        if found is not None:
            yield found


def _smaller_sizes(draft: ModelSpec) -> Iterator[ModelSpec]:
    """One number is smaller, wherever it stands: in inputs, modules, tensors and arguments."""
    if not draft.written:
        return
    found = {s for made in (*draft.inputs, *draft.tensors.values()) for s in made.shape}
    for code in draft.modules.values():
        found |= {int(n) for n in re.findall(r"(?<![\w.])\d+(?![\w.])", code)}
    for old in sorted(found, reverse=True):
        for new in (1, 2, 3, old // 2, old - 1):
            if 0 < new < old:
                yield from (d for d in (_resized(draft, old, new), *_resized_inputs(draft, old, new)) if d is not None)


def _resized(draft: ModelSpec, old: int, new: int) -> ModelSpec | None:
    def other(x: Any) -> Any:
        return new if type(x) is int and x == old else x

    def shape(made: TensorSpec) -> TensorSpec:
        return replace(made, shape=tuple(other(s) for s in made.shape))

    def edit(graph: fx.Graph, calls: list[fx.Node]) -> None:
        for node in calls:
            node.args, node.kwargs = tree_map(other, (node.args, node.kwargs))

    number = re.compile(rf"(?<![\w.]){old}(?![\w.])")
    return _edited(
        draft,
        edit,
        modules={name: number.sub(str(new), code) for name, code in draft.modules.items()},
        tensors={name: shape(made) for name, made in draft.tensors.items()},
        inputs=[shape(made) for made in draft.inputs],
    )


def _resized_inputs(draft: ModelSpec, old: int, new: int) -> Iterator[ModelSpec | None]:
    """One dimension of all inputs only: batch sizes, heights and widths stand in no module."""
    for d in range(max((len(made.shape) for made in draft.inputs), default=0)):

        def shape(made: TensorSpec) -> TensorSpec:
            sizes = list(made.shape)
            if d < len(sizes) and sizes[d] == old:
                sizes[d] = new
            return replace(made, shape=tuple(sizes))

        yield replace(draft, inputs=[shape(made) for made in draft.inputs])


def _simpler(draft: ModelSpec) -> Iterator[ModelSpec]:
    """Inputs of ones; modules without padding and strides; functions without their last argument; short names."""
    yield replace(draft, filled="ones")
    for name, code in draft.modules.items():
        yield replace(
            draft, modules={**draft.modules, name: shortest(re.sub(r"padding=\w+|stride=\w+", "stride=1", code))}
        )
    optional = [i for i, n in enumerate(_calls(draft.graph)) if n.op == "call_function" and len(n.args) > 2]

    def without(places: Sequence[int]) -> ModelSpec | None:
        def edit(graph: fx.Graph, calls: list[fx.Node]) -> None:
            for i in places:
                calls[i].args = calls[i].args[:-1]

        return _edited(draft, edit)

    yield from (d for d in (without(optional), *(without([i]) for i in optional)) if d is not None)
