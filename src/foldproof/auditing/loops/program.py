"""Inductor's loops as a graph: the inputs, each loop nest and kernel in the scheduler's order, the outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from foldproof.auditing.loops.crop import crop
from foldproof.auditing.loops.kernels import Kernels
from foldproof.auditing.loops.layouts import Layouts
from foldproof.auditing.loops.loop import BUFFERS, LABEL, Loop
from foldproof.auditing.loops.memory import Memory, Place, count_elements
from foldproof.auditing.loops.nest import Nest
from foldproof.auditing.loops.races import find_race
from foldproof.auditing.loops.recorder import Recorder, Unreadable, Value
from foldproof.auditing.loops.templates import Templates
from foldproof.graph.module import InterpretedModule, set_attribute
from foldproof.graph.text import source_of
from foldproof.operators import is_view
from foldproof.thresholds import MAX_ITERATIONS
from foldproof.torch_internals import (
    OpOverload,
    call_loop_body,
    disable_current_modes,
    inductor_ir,
    is_mkldnn,
    loop_body,
)

aten = torch.ops.aten


def record_loops(
    source: fx.GraphModule,
    graph: Any,
    scheduled: Iterable[Any],
    reused: Mapping[str, str] | None = None,
    constants: Mapping[str, Tensor] = MappingProxyType({}),
) -> fx.GraphModule:
    """Record scheduled nodes as a graph with the inputs of ``source``, the graph that was lowered.

    Args:
        source: the graph that Inductor lowered.
        graph: Inductor's record of its lowering.
        scheduled: the scheduler's nodes, in order.
        reused: buffers that take the memory of another one, by name, with that one's name; if given, buffers are
            released after their last use, too.
        constants: the constants of ``source`` before it was lowered, by name.

    Raises:
        Unreadable: there is a node, an operation or an index without a reading.
    """
    with disable_current_modes():
        return _Recording(source, graph, reused, constants).run(scheduled)


ONE_BY_ONE = {"OuterLoopFusedSchedulerNode", "ForeachKernelSchedulerNode", "GroupedSchedulerNode"}
"""Groups whose nests run one after the other; a kernel of any other group may run them in each iteration."""

Accesses = Mapping[str, Sequence[tuple[str, Any]]]
"""Loads and stores of a loop nest by buffer, each with its address."""


class _Given(NamedTuple):
    """A tensor that the program is given: its node, the contents of its memory at first, and its place there."""

    node: fx.Node
    contents: Value
    place: Place


class _Recording:
    def __init__(
        self, source: fx.GraphModule, graph: Any, reused: Mapping[str, str] | None, constants: Mapping[str, Tensor]
    ) -> None:
        self._source, self._graph, self._reused = source, graph, reused
        self._recorder = Recorder(constants)
        self._memory = Memory(self._recorder)
        self._layouts = Layouts(self._recorder, self._memory)
        self._templates = Templates(self._recorder, self._memory, self._layouts)
        self._whole: dict[str, Value] = {}
        self._given: dict[str, _Given] = {}
        self._origins: dict[str, Iterable[fx.Node]] = {}
        """Nodes behind the buffer that another one is a part of."""
        self._nests: list[tuple[Nest, Loop]] = []
        """The loop nests of the kernel at hand."""
        self._places = {node: i for i, node in enumerate(source.graph.nodes)}

    def run(self, scheduled: Iterable[Any]) -> fx.GraphModule:
        self._add_inputs()
        self._add_constants()
        self._add_buffers()
        kernels = Kernels(self._recorder, self._memory, self._layouts, self._whole, self._hold)
        for group in scheduled:
            self._nests = []
            accesses = [self._record(node, kernels) for node in _flattened([group])]
            if len(self._nests) > 1 and type(group).__name__ not in ONE_BY_ONE:
                self._check_order()
            if self._reused is not None:
                self._release(group, self._reused, accesses)
        self._recorder.meta = {}
        self._end()
        self._recorder.graph.eliminate_dead_code()
        return InterpretedModule(self._recorder.root, self._recorder.graph)

    def _hold(self, name: str, part: fx.GraphModule) -> fx.Node:
        """Return a part of the graph, which control flow runs, as an attribute."""
        set_attribute(self._recorder.root, name, part)
        return self._recorder.graph.get_attr(name)

    def _add_inputs(self) -> None:
        for node in self._source.graph.nodes:
            if node.op == "placeholder":
                place = self._recorder.graph.placeholder(str(node.target))
                place.meta = dict(node.meta)
                name = self._graph.qualify_name(str(node.target))
                found = self._graph.graph_inputs_original.get(name)
                if found is not None and isinstance(found, inductor_ir().IRNode):
                    self._add_tensor(name, place, found)

    def _add_tensor(self, name: str, node: fx.Node, box: Any) -> None:
        place, dtype = self._layouts.place(box)
        value = Value(node, torch.empty(place.sizes, dtype=dtype, device="meta"), name)
        self._add_contents(name, value, place, dtype)

    def _add_contents(self, name: str, value: Value, place: Place, dtype: torch.dtype) -> None:
        self._memory.declare(name, place.offset + count_elements(place.sizes, place.strides), dtype)
        distinct = value
        for k, (n, step) in enumerate(zip(place.sizes, place.strides)):
            if n > 1 and step == 0:
                distinct = self._recorder.call(aten.slice.Tensor, distinct, k, 0, 1)
        self._memory.write(name, Place(tuple(distinct.example.shape), place.strides, place.offset), distinct)
        self._given[name] = _Given(value.node, self._memory.contents(self._memory.find(name)[0]), place)

    def _add_constants(self) -> None:
        names = {id(v): k for k, v in vars(self._source).items() if isinstance(v, Tensor)}
        for held in (self._source.named_parameters, self._source.named_buffers):
            names |= {id(tensor): name for name, tensor in held(remove_duplicate=False)}
        for name, tensor in self._graph.constants.items():
            attribute = names.get(id(tensor), name)
            if is_mkldnn(tensor):
                self._whole[name] = self._recorder.hold(attribute, tensor)
                continue
            value = self._recorder.hold(attribute, tensor)
            place = Place(tuple(tensor.shape), tensor.stride())
            self._add_contents(name, value, place, tensor.dtype)

    def _add_buffers(self) -> None:
        ir = inductor_ir()
        for buffer in self._graph.buffers:
            layout, name = buffer.get_output_spec(), buffer.get_name()
            if isinstance(layout, (ir.NoneLayout, ir.MultiOutputLayout)):
                continue
            if isinstance(layout, ir.NonOwningLayout):
                offset = int(self._layouts.number(layout.view.get_layout().offset))
                self._memory.alias(name, layout.view.get_name(), offset)
                self._origins[name] = self._graph.name_to_buffer[layout.view.get_name()].get_origins()
            elif isinstance(layout, ir.MutationLayoutSHOULDREMOVE):
                self._memory.alias(name, layout.get_buffer().get_name(), 0)
            elif type(layout) in (ir.FixedLayout, ir.FlexibleLayout):
                size = int(self._layouts.number(layout.storage_size()))
                self._memory.declare(name, size, layout.dtype)
            else:
                raise Unreadable(f"no reading of a {type(layout).__name__}")

    def _release(self, group: Any, reused: Mapping[str, str], accesses: Sequence[Accesses]) -> None:
        """Release the memory that nothing after a kernel needs, by the scheduler's account."""
        for taker, name in reused.items():
            stores = [place for one in accesses for what, place in one.get(taker, ()) if what == "store"]
            loads = [place for one in accesses for what, place in one.get(name, ()) if what == "load"]
            if stores and any(place not in stores for place in loads):
                raise Unreadable(f"{taker} takes the memory of {name}, which is read at other places in the same loop")
            if taker in group.get_buffer_names():
                self._memory.release(name)
        for name in group.last_usage:
            if name not in self._given:
                self._memory.release(name)

    def _record(self, scheduled: Any, kernels: Kernels) -> Accesses:
        kind = type(scheduled).__name__
        if kind == "NopKernelSchedulerNode":
            return {}
        loop = self._describe(scheduled.node)
        self._recorder.meta = {"name": loop.buffer, LABEL: loop, "stack_trace": loop.trace}
        if kind == "SchedulerNode" and scheduled.is_template():
            loop.lines += self._templates.record(scheduled.node, self._graph.constants)
            self._label(name for name in scheduled.get_buffer_names() if name in self._memory)
            return {}
        if kind == "SchedulerNode":
            accesses = self._record_nest(loop_body(scheduled), loop)
            self._label([home for home, made in accesses.items() if any(what == "store" for what, _ in made)])
            return accesses
        if kind != "ExternKernelSchedulerNode":
            raise Unreadable(f"no reading of a {kind}")
        loop.lines.append(kernels.record(scheduled.node))
        self._label(name for name in scheduled.get_buffer_names() if name in self._memory)
        return {}

    def _label(self, names: Iterable[str]) -> None:
        """Label the contents of buffers with their names, as a loop leaves them."""
        for name in names:
            home, _ = self._memory.find(name)
            if home.contents is not None:
                meta = home.contents.node.meta
                meta[BUFFERS] = (*meta.get(BUFFERS, ()), home.name)

    def _record_nest(self, body: Any, loop: Loop) -> Accesses:
        ranges = {v: int(self._layouts.number(n)) for v, n in body.var_ranges.items()}
        if math.prod(ranges.values()) > MAX_ITERATIONS:
            ranges = crop(body, ranges, len(body.reduce_vars))
        count = math.prod(ranges.values())
        if count > MAX_ITERATIONS:
            raise Unreadable(f"the loop that computes {loop.buffer} has {count:,} iterations, too many to be recorded")
        nest = Nest(self._recorder, self._memory, ranges, len(body.reduce_vars))
        call_loop_body(body, nest)
        self._nests.append((nest, loop))
        heading = ", ".join(f"{v} < {n}" for v, n in ranges.items())
        loop.lines += [f"for {heading}:" if heading else "once:", *(f"    {line}" for line in nest.lines)]
        for home in nest.raced:
            self._memory.release(home)
            loop.lines.append(f"    # an iteration reads elements of {home} that another one writes")
        return nest.accesses

    def _check_order(self) -> None:
        """Release what a kernel stores if that depends on the order of its iterations."""
        home = find_race([nest for nest, _ in self._nests])
        for nest, loop in self._nests if home is not None else ():
            loop.lines.append(f"    # fused: a body reaches elements of {home} that another one stores, or will store")
            for name, made in nest.accesses.items():
                if any(what == "store" for what, _ in made):
                    self._memory.release(name)

    def _describe(self, node: Any) -> Loop:
        found = {*node.get_origins(), *self._origins.get(node.get_name(), ())}
        origins = sorted((o for o in found if o in self._places), key=self._places.__getitem__)
        traces = [(o.meta.get("stack_trace"), source_of(o)) for o in reversed(origins)]
        trace, source = next((t for t in traces if t[1]), (None, None))
        return Loop(node.get_name(), tuple(o.name for o in origins), trace, source)

    def _end(self) -> None:
        """Write to the inputs what their memory holds at the end, and return the outputs.

        Values that were read from an input before a write to it are copied, as a loop copies them: the graph's own
        views of the input would show the write.
        """
        outputs = tuple(self._output(x) for x in self._graph.graph_outputs)
        writes = dict(self._list_writes())
        changed = {self._given[name].node for name in writes}

        def as_read(x: Any) -> Any:
            old = isinstance(x, fx.Node) and _find_base(x) in changed
            return self._recorder.add(aten.clone.default, (x,), {}, f"{x.name}_read") if old else x

        outputs = tuple(map(as_read, outputs))
        writes = {name: as_read(value) for name, value in writes.items()}
        for name, value in writes.items():
            self._recorder.add(aten.copy_.default, (self._given[name].node, value), {}, f"{name}_written")
        self._recorder.graph.output(outputs)

    def _list_writes(self) -> Iterator[tuple[str, fx.Node]]:
        for name, given in self._given.items():
            if isinstance(self._graph.graph_inputs_original.get(name), inductor_ir().DonatedBuffer):
                continue  # a tensor that nobody reads after the backward, whose memory is free for use
            home, _ = self._memory.find(name)
            if self._memory.contents(home).node is not given.contents.node:
                yield name, self._memory.read(name, given.place).node

    def _output(self, x: Any) -> Any:
        ir = inductor_ir()
        if x is None or isinstance(x, ir.NoneAsConstantBuffer):
            return None
        if isinstance(x, ir.ShapeAsConstantBuffer):
            return self._layouts.number(x.expr)
        if isinstance(x, ir.IRNode):
            return self._layouts.read(x, self._whole).node
        return self._layouts.number(x)


def _find_base(node: fx.Node) -> fx.Node:
    """Return the node whose memory a chain of views shows."""
    while isinstance(node.target, OpOverload) and is_view(node.target):
        node = node.all_input_nodes[0]
    return node


def _flattened(scheduled: Iterable[Any]) -> Iterator[Any]:
    for node in scheduled:
        inner = node.get_nodes()
        if len(inner) == 1 and inner[0] is node:
            yield node
        else:
            yield from _flattened(inner)
