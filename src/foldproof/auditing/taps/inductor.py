"""Inductor: every graph pass from Dynamo's graph to the one that is lowered to kernels.

Most passes run inside a `GraphTransformObserver`, under any import name, so the tap patches its class. The rest are
functions of known modules. Changes between two observed calls are recorded, too. If the model is compiled with
gradients, the steps follow its joint graph, and then both halves of that (`foldproof.auditing.gradients`).
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from foldproof.auditing.gradients import (
    BACKWARD,
    PARTS,
    Half,
    Leaf,
    compose,
    list_cotangents,
    list_names,
    read_plan,
    split,
)
from foldproof.auditing.inputs import draw_inputs
from foldproof.auditing.kernels import Generated
from foldproof.auditing.log import Change, Log
from foldproof.auditing.loops import LOWERING, SCHEDULING, Element, Unreadable, record_loops
from foldproof.auditing.signature import Signature
from foldproof.auditing.snapshot import Lowered, Snapshot
from foldproof.auditing.taps.hooks import Hook
from foldproof.errors import brief
from foldproof.graph.module import get_attribute
from foldproof.log import log_caught
from foldproof.torch_internals import (
    FakeTensor,
    disable_current_modes,
    every_pass_runs,
    lowered_graph,
    name_constants,
    named_fusions,
    tree_leaves,
)

COMPILE = "torch._inductor.compile_fx"
FREEZING = "torch._inductor.freezing"
MATCHER = "torch._inductor.pattern_matcher"
OBSERVER = "torch.fx.passes.graph_transform_observer"
FX_PASSES = "torch._inductor.fx_passes"


@dataclass(frozen=True)
class Phase:
    """A function that runs passes on the graph in its argument ``place``."""

    name: str
    hook: Hook
    place: int = 0


PRE_GRAD = Hook(COMPILE, "_recursive_pre_grad_passes", "torch.compile", essential=True)

PARTITIONED = Hook(COMPILE, "partition_fn", "the partitioner of joint graphs")

PHASES = (
    Phase("joint", Hook(COMPILE, "_recursive_joint_graph_passes", "the joint passes of Inductor", essential=True)),
    Phase("post_grad", Hook(COMPILE, "_recursive_post_grad_passes", "the last passes of Inductor", essential=True)),
    Phase("freezing", Hook(FREEZING, "_freeze", "the phase freezing"), place=1),
    Phase("channels_last", Hook(FREEZING, "convert_conv_weights_to_channels_last", "the phase channels_last")),
)

STEPS = tuple(
    Hook(module, name, f"the pass {name}")
    for module, names in {
        f"{FX_PASSES}.pre_grad": ("numpy_compat_normalization", "fuse_fx", "stable_topological_sort"),
        f"{FX_PASSES}.quantization": ("quant_lift_up", "concat_linear_woq_int4"),
        f"{FX_PASSES}.joint_graph": ("canonicalize_aten_ir_passes", "replace_random_passes"),
        FREEZING: ("view_to_reshape", "replace_params_with_constants", "freezing_passes", "constant_fold"),
        f"{FX_PASSES}.mkldnn_fusion": ("grouped_gemm_pass", "_eliminate_duplicate_packed_nodes"),
        f"{FX_PASSES}.binary_folding": (
            "mark_mixed_dtype_allowed_computation_ops",
            "recover_original_precision_folded_computation_ops",
        ),
    }.items()
    for name in names
)
"""Passes that run without an observer."""

FUSIONS = Hook(f"{FX_PASSES}.group_batch_fusion", "apply_group_batch_fusion", "each fusion of a group or batch")
PATTERNS = Hook(MATCHER, "PatternMatcherPass.apply", "each pass of the pattern matcher")
LOWERED = Hook(MATCHER, "LoweringPatternEntry.apply", "each pattern that is replaced by its lowering")
REPLACED = (
    Hook(MATCHER, "GraphPatternEntry.apply", "each pattern that a function replaces"),
    Hook(MATCHER, "ReplacementPatternEntry.apply", "each pattern that a graph replaces"),
)
STARTED = Hook("torch._inductor.graph", "GraphLowering.run", "the graph that is lowered")
READ = Hook("torch._inductor.graph", "GraphLowering.get_attr", "constants that are written as numbers")
CONVERTED = Hook("torch._inductor.index_propagation", "dtype_to_type", "conversions of numbers")
LOWERED_TO_LOOPS = Hook("torch._inductor.scheduler", "Scheduler.compute_dependencies", "the lowering to loops")
SCHEDULED = Hook("torch._inductor.scheduler", "Scheduler.codegen", "the scheduling of loops")
GENERATED = Hook("torch._inductor.graph", "GraphLowering.compile_to_module", "the kernels of a graph")
ENTERED = Hook(OBSERVER, "GraphTransformObserver.__enter__", "the passes of Inductor", essential=True)
LEFT = Hook(OBSERVER, "GraphTransformObserver.__exit__", "the passes of Inductor", essential=True)
APPLIED = Hook(OBSERVER, "GraphTransformObserver.apply_graph_pass", "the class of a custom pass")
ASKED = Hook(OBSERVER, "GraphTransformObserver._check_disable_pass", "a pass that --disable names")

HOOKS = (
    PRE_GRAD,
    PARTITIONED,
    *(phase.hook for phase in PHASES),
    *STEPS,
    FUSIONS,
    PATTERNS,
    LOWERED,
    *REPLACED,
    STARTED,
    READ,
    CONVERTED,
    LOWERED_TO_LOOPS,
    SCHEDULED,
    GENERATED,
    ENTERED,
    LEFT,
    APPLIED,
    ASKED,
)


@dataclass(frozen=True)
class _Dynamo:
    """One graph of Dynamo's: its inputs, and the tensors that it holds.

    ``held`` has names of parameters, and of other tensors in the graph (such as a cache of the model), by id.
    """

    examples: Sequence[Any]
    attributes: Mapping[str, Tensor]
    held: Mapping[int, str]
    given: Sequence[Any]
    """Copies of the inputs without parameters, as the model may write to them."""
    begun: int
    """Number of changes recorded before."""

    def find(self, described: Any) -> tuple[int, Any]:
        """Return the position of an input of AOTAutograd's among Dynamo's inputs, and its value there."""
        target = getattr(described, "target", None)
        if target is not None:
            return 0, self.attributes.get(target)
        index = getattr(described, "idx", None)
        if index is None or type(described).__name__ != "PlainAOTInput":
            return len(self.examples), None
        return index, self.at(index)

    def at(self, index: int) -> Any:
        return self.examples[index] if index < len(self.examples) else None

    def find_leaf(self, described: Any) -> Leaf | None:
        """Return the place of an input of AOTAutograd's among those that are `given`, or the name of a parameter."""
        index, value = self.find(described)
        if id(value) in self.held:
            return self.held[id(value)]
        given = [i for i, x in enumerate(self.examples) if id(x) not in self.held]
        return given.index(index) if index in given else None


class _Phases:
    """State of the compilation in progress: the graph of Dynamo's that it is of, and the last snapshot."""

    def __init__(self, log: Log, names: Mapping[int, str]) -> None:
        self.log = log
        self._parameters = names
        self._dynamo = _Dynamo((), {}, dict(names), (), 0)
        self._part = ""
        self._halves: list[tuple[Half, _Dynamo]] = []
        self._last: tuple[str, Snapshot] | None = None
        self._parts: dict[str, Snapshot] = {}
        """The last snapshot of each part that control flow runs, by its name."""
        self._constants: dict[str, dict[str, Tensor]] = {}
        """Constants of the graph that is lowered, and of its parts, by name."""
        self._running: fx.GraphModule | None = None
        self.depth_of_patterns = 0
        self.matched: list[str] = []
        """Patterns that have matched since the last pass of the pattern matcher began."""
        self.lowered: dict[int, Lowered] = {}

    def snapshot(self, module: fx.GraphModule, closely: bool) -> Snapshot:
        bound = {}
        place = {}
        for i, node in enumerate(n for n in module.graph.nodes if n.op == "placeholder"):
            place[node], value = self._source(node, i)
            name = self._dynamo.held.get(id(value))
            if name is not None and self._part != BACKWARD:  # which may read a buffer after the forward has written it
                bound[node.name] = (name, value)
        signature, last = Signature(bound), self.log.last
        if last is not None and last.still_shows(module, signature, closely):
            return last
        made = Snapshot(module, signature, lambda n: place[n], self.lowered, self.log.copies)
        made.part = self._part or self.log.part
        return made

    def _source(self, node: fx.Node, i: int) -> tuple[tuple[int, int], Any]:
        """Return the key by which a placeholder is sorted among the inputs, and its value there."""
        described = node.meta.get("desc")
        if described is None and self._part:  # a value that the forward saved
            return (len(self._dynamo.examples), i), None
        place, value = (i, self._dynamo.at(i)) if described is None else self._dynamo.find(described)
        return (place, i), value

    def begin(self, module: fx.GraphModule, examples: Sequence[Any]) -> None:
        """Start a new graph of Dynamo's, unless it is inside another."""
        if self._running is not None:
            return
        attributes: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
        attributes |= dict(module.named_buffers(remove_duplicate=False))
        held = {id(t): name for name, t in attributes.items()} | dict(self._parameters)
        given = [x.detach().clone() if type(x) is Tensor else x for x in examples if id(x) not in self._parameters]
        self._dynamo = _Dynamo(list(examples), attributes, held, given, len(self.log.changes))
        fake = any(isinstance(x, FakeTensor) for x in given)  # compilation ahead of time has no values
        self._part, self._last, self.log.given = "", None, None if fake else given

    def differentiate(self, joint: fx.GraphModule) -> None:
        """Let the steps go on from the last graph with its gradients, if ``joint`` has any.

        Then the passes until now have to keep gradients, too, which a graph that is the same function may not.
        """
        cotangents = list_cotangents(joint)
        if self._last is None or self._last[0] != "pre_grad" or not cotangents:
            return
        given, (name, last), first = self._dynamo.given, self._last, self.look(joint)
        with disable_current_modes():
            self.log.given = whole = [*given, *draw_inputs(cotangents)]
            try:
                plan = read_plan(joint, cotangents, self._dynamo.find_leaf, len(given))
                self._last = name, plan.differentiate(last, first)
            except Exception as error:
                log_caught(error, "reading a joint graph")
                why = str(error) if isinstance(error, Unreadable) else brief(error)
                self.log.add(Change("AOTAutograd", "", last, first, inputs=whole, unseen=why))
                self._last = "AOTAutograd", first
                return

        def differentiate(change: Change) -> Change:
            before, after = (plan.differentiate(side, first) for side in (change.before, change.after))
            return Change(change.name, change.phase, before, after, inputs=whole)

        for change in self.log.changes[self._dynamo.begun :]:
            change.differentiate = differentiate

    def partition(self, halves: tuple[fx.GraphModule, fx.GraphModule], results: int) -> None:
        """Record the halves of the joint graph, of which each is compiled by itself later."""
        if self._last is None or self._last[0] != "joint" or self._running is not None or self.log.given is None:
            return
        before, given, own = self._last[1], self.log.given, self._dynamo.given
        snapshots = []
        try:
            for self._part, half in zip(PARTS, halves):
                snapshots.append(self.look(half))
            self._part = ""
            after = self.look(compose(*halves, results))
            cotangents = dict(zip((node.name for node in before.placeholders[len(own) :]), given[len(own) :]))
            made = split(halves, (snapshots[0], snapshots[1]), own, cotangents)
        except Exception as error:
            log_caught(error, "composing both halves of a joint graph")
            self.log.add(Change("partition", "", before, before, inputs=given, unseen=brief(error)))
            self._last = None  # the halves are no function of the joint graph's inputs
        else:
            self.log.add(Change("partition", "", before, after, inputs=given))
            self._halves += [(half, self._dynamo) for half in made]
            self._last = "partition", after

    def _enter_half(self, module: fx.GraphModule) -> None:
        """Go on from the half that ``module`` is, if it is one; a backward may be compiled long after its forward."""
        names = list_names(module)
        for half, dynamo in reversed(self._halves):
            if half.names == names:
                self._dynamo, self._part, self._last = dynamo, half.part, (half.part, half.snapshot)
                self.log.given = half.given
                return

    @contextlib.contextmanager
    def scope(self, name: str, module: Any, closely: bool = False) -> Iterator[list[Any]]:
        """Record a call of a pass inside a phase; calls outside of phases are ignored.

        A subgraph of the phase's graph is recorded as a part of it. Where a pass changes no node, the contents of
        parameters are compared only if it is looked at ``closely``, as phases and passes of users are: it takes as long
        as all else. A write that PyTorch does not count is then the phase's.
        """
        module = module.owning_module if isinstance(module, fx.Graph) else module
        made: list[Any] = []
        root = self._running
        if root is None or self.depth_of_patterns or not isinstance(module, fx.GraphModule) or _holds(root, module):
            yield made
            return
        self.log.enter(name, self.look(module, closely))
        done = False
        try:
            yield made
            done = True
        finally:
            after = made[-1] if made and isinstance(made[-1], fx.GraphModule) else module
            self._running = after
            self.log.failed = "" if done else self.log.failed or name  # an error that the pass caught does not count
            self.log.leave(lambda: self.look(after, closely), done)

    def look(self, module: fx.GraphModule, closely: bool = True) -> Snapshot:
        return self.log.look(lambda: self.snapshot(module, closely))

    def look_ahead(self, graph: Any) -> None:
        """Look at a graph that is going to be lowered."""
        if self._last is None or self._running is not None:
            return
        part = str(graph.name or "")
        if part:
            self._parts[part] = self._look_at_part(graph.orig_gm, part)
        else:
            self._follow(LOWERING, self.look(graph.orig_gm))
        names = {str(n.target) for n in graph.orig_gm.graph.nodes if n.op == "get_attr"}
        held = {name: get_attribute(graph.orig_gm, name) for name in names}
        self._constants[part] = {name: x for name, x in held.items() if isinstance(x, Tensor)}

    def look_at_loops(self, name: str, scheduled: Sequence[Any], reused: Mapping[str, str] | None = None) -> None:
        """Record the loops of the graph that is lowered now, as the result of a step from the last snapshot on.

        A part of a graph that control flow runs has steps of its own, under its name; the loops of the whole
        graph call it as the graph does.
        """
        graph = lowered_graph()
        if self._last is None or self._running is not None:
            return
        part = str(graph.name or "")
        before = self._parts[part] if part else self._last[1]
        inputs = None if part else self.log.given
        start = time.perf_counter()
        try:
            recorded = record_loops(graph.orig_gm, graph, scheduled, reused, self._constants[part])
            after = self._look_at_part(recorded, part) if part else self.look(recorded)
        except Exception as error:
            log_caught(error, f"recording the loops after {name}")
            why = str(error) if isinstance(error, Unreadable) else brief(error)
            self.log.add(Change(name, "", before, before, inputs=inputs, unseen=why))
            return
        seconds = time.perf_counter() - start
        self.log.add(Change(name, "", before, after, seconds, inputs=inputs))
        if part:
            self._parts[part] = after
        else:
            self._last = name, after

    def _look_at_part(self, module: fx.GraphModule, name: str) -> Snapshot:
        with disable_current_modes():
            made = Snapshot(module, lowered=self.lowered, copies=self.log.copies)
        made.part = name
        return made

    def _follow(self, name: str, first: Snapshot) -> None:
        """Record the change, if there is one, between the last snapshot and the ``first`` of a phase."""
        if self._last is None or self._last[1].digest == first.digest:
            return
        before, last = self._last
        between = "AOTAutograd" if before == "pre_grad" else ""
        note = f"between {before} and {name}"
        self.log.add(Change(between, "", last, first, note=note, inputs=self.log.given))
        self._last = name, first

    @property
    def last_loops(self) -> fx.GraphModule | None:
        """The loops that were recorded last, if they are the last snapshot of the graph."""
        return self._last[1].module if self._last is not None and self._last[0] == SCHEDULING else None

    @contextlib.contextmanager
    def phase(self, name: str, module: fx.GraphModule) -> Iterator[list[Any]]:
        """Record a phase; changes since the last phase are AOTAutograd's, or unobserved."""
        if self._running is not None:  # the graph is a subgraph of the outer phase's graph
            yield []
            return
        if name == "joint":
            self.differentiate(module)
        if name == "post_grad":
            self._enter_half(module)
        self._follow(name, self.look(module))
        self._running = module
        made: list[Any] = []
        try:
            with self.scope(name, module, closely=True) as made:
                yield made
        finally:
            self._running = None
        self._last = name, self.look(made[-1] if made else module)


def _holds(root: fx.GraphModule, module: fx.GraphModule) -> bool:
    return root is not module and any(part is module for part in root.modules())


@contextlib.contextmanager
def tap_inductor(log: Log, model: torch.nn.Module) -> Iterator[None]:
    """Record every graph pass while `torch.compile(model)` runs for the first time."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    phases = _Phases(log, {id(t): name for name, t in reversed(tensors)})
    with contextlib.ExitStack() as stack:

        def patch(hook: Hook, make: Callable[[Any], Any]) -> None:
            stack.enter_context(hook.patch(lambda original: functools.wraps(original)(make(original))))

        def pre(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(gm: fx.GraphModule, example_inputs: Any) -> Any:
                phases.begin(gm, example_inputs)
                with phases.phase("pre_grad", gm) as made:
                    made.append(original(gm, example_inputs))
                return made[-1]

            return call

        def phase(name: str, place: int = 0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
            def make(original: Callable[..., Any]) -> Callable[..., Any]:
                def call(*args: Any, **kwargs: Any) -> Any:
                    with phases.phase(name, args[place]) as made:
                        result = original(*args, **kwargs)
                        made += [x for x in tree_leaves(result) if isinstance(x, fx.GraphModule)]
                    return result

                return call

            return make

        def step(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
            def make(original: Callable[..., Any]) -> Callable[..., Any]:
                def call(gm: Any, *args: Any, **kwargs: Any) -> Any:
                    if log.leaves_out(name):
                        return None
                    with phases.scope(name, gm) as made:
                        result = original(gm, *args, **kwargs)
                        made.append(result)
                    return result

                return call

            return make

        def partitioning(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(gm: fx.GraphModule, *args: Any, num_fwd_outputs: int, **kwargs: Any) -> Any:
                forward, backward = original(gm, *args, num_fwd_outputs=num_fwd_outputs, **kwargs)
                phases.partition((forward, backward), num_fwd_outputs)
                return forward, backward

            return call

        patch(PRE_GRAD, pre)
        patch(PARTITIONED, partitioning)
        for one in PHASES:
            patch(one.hook, phase(one.name, one.place))
        for hook in STEPS:
            patch(hook, step(hook.attribute))
        patch(FUSIONS, lambda original: _wrap_fusion(original, phases))
        patch(PATTERNS, lambda original: _wrap_patterns(original, phases))
        patch(LOWERED, lambda original: _wrap_match(_wrap_lowering(original, phases), phases))
        for hook in REPLACED:
            patch(hook, lambda original: _wrap_match(original, phases))
        patch(STARTED, lambda original: _wrap_start(original, phases))
        patch(READ, _wrap_reading)
        patch(CONVERTED, _wrap_conversion)
        patch(LOWERED_TO_LOOPS, lambda original: _wrap_dependencies(original, phases))
        patch(SCHEDULED, lambda original: _wrap_code_generation(original, phases))
        patch(GENERATED, lambda original: _wrap_module(original, phases))
        _observe(patch, phases)
        stack.enter_context(every_pass_runs())
        yield


def _observe(patch: Callable[[Hook, Callable[[Any], Any]], None], phases: _Phases) -> None:
    """Record the graph when a `GraphTransformObserver` is entered and left, and leave out disabled passes."""
    running: dict[int, list[Any]] = {}
    custom: dict[int, str] = {}
    """Names of a user's own passes while they run, by the observer's id."""

    def name_of(observer: Any) -> str:
        return custom.get(id(observer), str(observer.passname))

    def applying(apply: Callable[..., Any]) -> Callable[..., Any]:
        def applied(self: Any, function: Any) -> Any:
            if "_custom_" in self.passname:
                custom[id(self)] = _name_custom(function)
            try:
                return apply(self, function)
            finally:
                custom.pop(id(self), None)

        return applied

    def entering(enter: Callable[..., Any]) -> Callable[..., Any]:
        def entered(self: Any) -> Any:
            scope = phases.scope(name_of(self), self.gm, closely=id(self) in custom)
            scope.__enter__()
            running.setdefault(id(self), []).append(scope)
            return enter(self)

        return entered

    def leaving(leave: Callable[..., Any]) -> Callable[..., Any]:
        def left(self: Any, *error: Any) -> None:
            leave(self, *error)
            running[id(self)].pop().__exit__(*error)

        return left

    def asking(check: Callable[..., bool]) -> Callable[..., bool]:
        return lambda self: phases.log.leaves_out(name_of(self)) or check(self)

    patch(APPLIED, applying)
    patch(ASKED, asking)
    patch(ENTERED, entering)
    patch(LEFT, leaving)


def _name_custom(function: Any) -> str:
    """Return the name of a user's own pass: its function, or its class."""
    function = function.func if isinstance(function, functools.partial) else function
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def _name_handler(handler: Any) -> str | None:
    """Return the name of a pattern's function; of a nameless one, that of the function that defines it."""
    name: str | None = getattr(handler, "__name__", None)
    outer = str(getattr(handler, "__qualname__", "")).split(".<locals>")[0]
    return outer if name in ("_", "<lambda>") and outer not in ("", "_", "<lambda>") else name


def _wrap_start(original: Callable[..., Any], phases: _Phases) -> Callable[..., Any]:
    """Look at the graph before it is lowered: templates take constants out of it."""

    def call(self: Any, *args: Any) -> Any:
        phases.look_ahead(self)
        return original(self, *args)

    return call


def _wrap_reading(original: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the origin of constants that are written as numbers."""

    def call(self: Any, target: str, *args: Any) -> Any:
        def name(number: Any, index: int | None) -> Any:
            return Element(number, target, index) if isinstance(number, float) else number

        return name_constants(lambda: original(self, target, *args), name)

    return call


def _wrap_conversion(original: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the origin of a number that stays as it is."""

    def call(dtype: torch.dtype) -> Callable[[Any], Any]:
        kind = original(dtype)
        return lambda x: x if kind is float and isinstance(x, Element) else kind(x)

    return call


def _wrap_dependencies(original: Callable[..., Any], phases: _Phases) -> Callable[..., Any]:
    """Record the loops in the order of the lowering, before the scheduler sorts them."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        phases.look_at_loops(LOWERING, self.nodes)
        return original(self, *args, **kwargs)

    return call


def _wrap_code_generation(original: Callable[..., Any], phases: _Phases) -> Callable[..., Any]:
    """Record the loops as kernels are generated from them, when it is decided which memory is used again in place."""

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        phases.look_at_loops(SCHEDULING, self.nodes, lowered_graph().wrapper_code.reuses)
        return result

    return call


def _wrap_module(original: Callable[..., Any], phases: _Phases) -> Callable[..., Any]:
    """Keep the generated module with the loops that it is generated from, if they could be recorded."""

    def call(self: Any) -> Any:
        module = original(self)
        loops = phases.last_loops
        if loops is not None:
            phases.log.generated.append(Generated(loops, module))
        return module

    return call


def _wrap_fusion(original: Callable[..., Any], phases: _Phases) -> Callable[..., Any]:
    """Record each group or batch fusion as a pass, by its name in the configuration; they share one observed call."""
    names = named_fusions()

    def call(graph: fx.Graph, rule: Any) -> Any:
        name = names.get(type(rule), type(rule).__name__)
        if phases.log.leaves_out(name):
            return None
        with phases.scope(name, graph):
            return original(graph, rule)

    return call


def _wrap_patterns(original: Callable[..., Any], phases: _Phases) -> Callable[..., Any]:
    """Record a pass of the pattern matcher, by its own name or by the origin of the patterns that matched."""

    def call(self: Any, gm: Any) -> Any:
        if self.pass_name and phases.log.leaves_out(self.pass_name):
            return 0
        phases.matched.clear()
        with phases.scope(self.pass_name or "patterns", gm.graph if isinstance(gm, fx.GraphModule) else gm):
            phases.depth_of_patterns += 1
            try:
                result = original(self, gm)
            finally:
                phases.depth_of_patterns -= 1
            if self.pass_name is None and phases.matched:
                phases.log.rename(", ".join(dict.fromkeys(phases.matched)))
        return result

    return call


def _wrap_match(original: Callable[..., Any], phases: _Phases) -> Callable[..., Any]:
    """Record the pattern that matched, as the module and function of its replacement."""

    def call(self: Any, match: Any, graph: fx.Graph, node: fx.Node) -> None:
        handler = getattr(self, "handler", None) or getattr(self, "replacement_graph", None)
        name = _name_handler(handler) or getattr(self, "pattern_name", None)
        module = (getattr(handler, "__module__", None) or type(self).__name__).rpartition(".")[2]
        name = f"{module}.{name}" if name else module
        if phases.log.leaves_out(name):
            return
        phases.matched.append(name)
        if type(self).__name__ == "LoweringPatternEntry":
            phases.log.lowerings.append(name)
        original(self, match, graph, node)

    return call


def _wrap_lowering(original: Callable[..., Any], phases: _Phases) -> Callable[..., Any]:
    """Keep the matched nodes of a lowering as the reading of its call, because no graph can run a lowering."""

    def call(self: Any, match: Any, graph: fx.Graph, node: fx.Node) -> None:
        matched = Lowered.cut(node, match.nodes)
        existing = set(graph.nodes)
        given = tree_leaves((tuple(match.args), match.kwargs))
        original(self, match, graph, node)
        (made,) = (n for n in graph.nodes if n not in existing)
        if matched is not None and all(n in given for n in matched.region.inputs):
            phases.lowered[id(made.target)] = matched.place([given.index(n) for n in matched.region.inputs])
            phases.log.keep.append(made.target)

    return call
