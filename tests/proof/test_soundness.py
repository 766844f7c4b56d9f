"""Programs that must not be called PROVED or ROUNDING: they differ where a prover may forget to look."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from foldproof import FoldproofError, Kind, Verdict, prove, prove_pass
from foldproof.claim import Why

from .models import AddsAndSubtracts, Holder, Module, parameter

INF = math.inf
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(3, 4, generator=GENERATOR)
W = (0.1, 0.2, 0.3, 0.4)


def doubling(graph: fx.GraphModule, _: Any) -> fx.GraphModule:
    """A compiler that is wrong: its code gives twice what the model gives."""
    for node in graph.graph.nodes:
        if node.op == "output":
            with graph.graph.inserting_before(node):
                node.args = ((graph.graph.call_function(torch.mul, (node.args[0][0], 2)),),)
    graph.recompile()
    return graph


def compiled(f: Any) -> Any:
    return torch.compile(f, backend=doubling)


# Programs that do something else with ordinary tensors than with shadows.


def test_compiled_programs_are_refused() -> None:
    """They fall back to eager code on shadows, so that eager code would be compared with itself."""
    linear = nn.Linear(4, 4)
    by_compile = copy.deepcopy(linear)
    by_compile.compile(backend=doubling)
    for program in (compiled(linear), by_compile, nn.Sequential(by_compile)):
        with pytest.raises(FoldproofError, match="compiled"):
            prove(linear, program, (X,))
    with pytest.raises(FoldproofError, match="compiled"):
        prove_pass(compiled, linear, (X,))


def test_compiled_parts_are_run_as_they_are() -> None:
    linear = nn.Linear(4, 4)
    layer, plus_one = compiled(linear), compiled(lambda x: x + 1)
    for after in (
        lambda x: layer(x) + 1,
        lambda x: plus_one(linear(x)),
        Module(lambda s, x: s.f(linear(x)), f=plus_one),
    ):
        verdict = prove(lambda x: linear(x) + 1, after, (X,))
        assert verdict.kind is Kind.UNDECIDED and "on its own tensors" in verdict.reason, str(verdict)


def with_attribute() -> nn.Module:
    """A shadow of a parameter has no such attribute; neither has a float64 copy."""
    w = parameter(*W)
    w.scale = 2.0  # type: ignore[attr-defined]
    return Module(lambda s, x: x * s.w * getattr(s.w, "scale", 1.0), w=w)


def adds_to_itself(x: Tensor) -> Tensor:
    """PyTorch refuses this write: source and target overlap."""
    x = x.clone()
    x[1:].add_(x[:-1])
    return x


def adds_to_itself_in_order(x: Tensor) -> Tensor:
    y = x.clone()
    y[1:] = x[1:] + x[:-1]
    return y


def oscillate(x: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    return 1e13 * x, function(1e13 * x)


def add_beside(large: Tensor, small: Tensor) -> tuple[Tensor, Tensor]:
    """Return an output beside one that is as small as its rounding."""
    return large, (large + small) - large


UNREAL: dict[str, tuple[Any, Any]] = {
    "attribute of a parameter": (with_attribute(), Module(lambda s, x: x * s.w, w=parameter(*W))),
    "class of a parameter": (
        Module(lambda s, x: x * s.w * (2 if isinstance(s.w, nn.Parameter) else 1), w=parameter(*W)),
        Module(lambda s, x: x * s.w, w=parameter(*W)),
    ),
    "a write that PyTorch refuses": (adds_to_itself, adds_to_itself_in_order),
    "a tiny output": (
        Module(lambda s, x: (x, x * s.w * (2e-9 if isinstance(s.w, nn.Parameter) else 1e-9)), w=parameter(*W)),
        Module(lambda s, x: (x, x * s.w * 1e-9), w=parameter(*W)),
    ),
    "an output that rounding moves by its own size": (
        Module(
            lambda s, x: oscillate(x * s.w, torch.sin if isinstance(s.w, nn.Parameter) else torch.cos), w=parameter(*W)
        ),
        Module(lambda s, x: oscillate(x * s.w, torch.cos), w=parameter(*W)),
    ),
    "an output that is 0 but for what rounding hides": (
        Module(lambda s, x: add_beside(1e6 * x * s.w, x * isinstance(s.w, nn.Parameter) * 0.1), w=parameter(*W)),
        Module(lambda s, x: add_beside(1e6 * x * s.w, 0 * x), w=parameter(*W)),
    ),
}


@pytest.mark.parametrize("name", UNREAL)
def test_programs_that_treat_ordinary_tensors_differently_are_undecided(name: str) -> None:
    verdict = prove(*UNREAL[name], (X,))
    assert verdict.kind is Kind.UNDECIDED and "on its own tensors" in verdict.reason, str(verdict)


def test_an_output_that_is_0_but_for_roundings_is_no_other_output() -> None:
    """A gradient that is 0 is another sum of roundings on shadows, where another kernel computes it."""

    def cancel(x: Tensor, w: Tensor, *, turned: bool) -> tuple[Tensor, Tensor]:
        large = 1e6 * x * w
        return large, large + x - (x + large if turned else large) - (0 if turned else x)

    program = Module(lambda s, x: cancel(x, s.w, turned=isinstance(s.w, nn.Parameter)), w=parameter(*W))
    other = Module(lambda s, x: cancel(x, s.w, turned=False), w=parameter(*W))
    assert prove(program, other, (X,)).kind is Kind.PROVED


def test_a_pass_that_looks_at_the_class_is_found_where_it_matters_elsewhere_only() -> None:
    """Fresh weights of four inputs lie within [-0.5, 0.5], so that clamping changes them at other parameters only."""

    def clamp(model: nn.Linear) -> None:
        if type(model.weight) is nn.Parameter:
            with torch.no_grad():
                model.weight.clamp_(-0.6, 0.6)

    torch.manual_seed(0)
    assert prove_pass(clamp, nn.Linear(4, 4), (X,)).kind is Kind.REFUTED


def test_a_pass_that_reads_the_text_of_a_tensor_is_told() -> None:
    def double_nines(model: nn.Linear) -> None:
        if "9999." in repr(model.weight):
            model.weight = nn.Parameter(model.weight * 2)

    verdict = prove_pass(double_nines, nn.Linear(4, 4), (X,))
    assert any("`repr`" in note and "read out of a tensor" in note for note in verdict.notes), str(verdict)


# State and effects.


def test_new_data_of_a_parameter_does_not_reach_the_other_program() -> None:
    def clips(s: Any, x: Tensor) -> Any:
        s.w.data = s.w.data.clamp(-1, 1)
        return x * s.w

    within, beyond = (
        prove(Module(clips, w=parameter(*w)), Module(lambda s, x: x * s.w, w=parameter(*w)), (X,))
        for w in (W, (1.0, 2.0, 3.0, 4.0))
    )
    assert within.kind is Kind.PROVED and str(within.claim).endswith("for these parameter values"), str(within)
    assert beyond.kind is Kind.REFUTED, str(beyond)


def test_a_buffer_that_is_assigned_to_is_an_effect() -> None:
    def averages(s: Any, x: Tensor) -> Tensor:
        s.mean = s.mean * 0.9 + x.mean() * 0.1
        return x * 2

    without = Module(lambda s, x: x * 2, mean=torch.zeros(()))
    verdict = prove(Module(averages, mean=torch.zeros(())), without, (X,))
    assert verdict.kind is Kind.REFUTED and "written to mean" in verdict.reason, str(verdict)


def test_running_statistics_are_written_though_no_schema_says_so() -> None:
    def normalised(momentum: float) -> Module:
        def forward(s: Any, x: Tensor) -> Tensor:
            return torch.nn.functional.batch_norm(x, s.mean, s.var, training=True, momentum=momentum)

        return Module(forward, mean=torch.zeros(3), var=torch.ones(3))

    x = torch.randn(5, 3)
    assert prove(normalised(0.1), normalised(0.1), (x,)).kind is Kind.PROVED
    verdict = prove(normalised(0.1), normalised(0.3), (x,))
    assert verdict.kind is Kind.REFUTED and "written to mean" in verdict.reason, str(verdict)


def test_writes_to_one_of_two_buffers_that_share_memory_are_undecided() -> None:
    def write_first(s: Any, x: Tensor) -> Tensor:
        s.whole.add_(x)
        out: Tensor = s.part * 1
        return out

    def read_first(s: Any, x: Tensor) -> Tensor:
        out: Tensor = s.part * 1
        s.whole.add_(x)
        return out

    whole = torch.zeros(4)
    before, after = (Module(f, whole=whole, part=whole[:2]) for f in (write_first, read_first))
    verdict = prove(before, after, (X[0],))
    assert verdict.kind is Kind.UNDECIDED and "share memory" in verdict.reason, str(verdict)


def test_effects_are_compared_on_the_same_variable_not_on_the_same_name() -> None:
    """The second program's ``a`` is the first one's ``b``."""
    a, b = torch.zeros(4), torch.ones(4)

    def writes(s: Any, x: Tensor) -> Tensor:
        s.a.copy_(x)
        return x * 2

    assert prove(Module(writes, a=a, b=b), Module(writes, a=b, b=a), (X[0],)).kind is Kind.REFUTED


# Choices: a proof follows those that the given values make, and says so; where other inputs make others, it is asked.

TIES = torch.ones(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda x: nn.functional.max_pool2d(-x, 2), lambda x: -nn.functional.max_pool2d(x, 2)),
        (lambda x: x.amax(1), lambda x: x.amin(1)),
        (lambda x: torch.where(x > 0, x, -x), lambda x: x),
        (lambda x: x.to(torch.int32), lambda x: (x * 1.2).to(torch.int32)),
    ],
)
def test_programs_that_agree_on_ties_only(before: Any, after: Any) -> None:
    verdict = prove(before, after, (TIES,))
    assert (
        verdict.kind is Kind.REFUTED and verdict.counterexample is not None and "takes another branch" in verdict.reason
    )


@pytest.mark.parametrize("size", [1, 2, 3, 9])
@pytest.mark.parametrize("number", [0.0, -1.0, 0.75])
def test_programs_that_differ_at_one_number(size: int, number: float) -> None:
    """Small inputs have no room for all numbers of the programs at once."""
    x = torch.linspace(-2, 2, size) + 0.3
    before = lambda x: torch.where(x <= number, 5 * x, x + 2.5).exp()  # noqa: E731
    after = lambda x: torch.where(x < number, 5 * x, x + 2.5).exp()  # noqa: E731
    assert prove(before, after, (x,)).kind is Kind.REFUTED


def test_a_choice_that_parameters_make() -> None:
    """max(t·x) is t·max(x) for these parameters."""
    before = Module(lambda s, x: (x * s.t).amax(-1), t=parameter(0.7))
    after = Module(lambda s, x: x.amax(-1) * s.t, t=parameter(0.7))
    verdict = prove(before, after, (X,))
    assert verdict.kind is Kind.PROVED and "where they make the same choices" in str(verdict.claim)


# Infinities: their signs and places are read off the values, so a claim has to say that it speaks of these only.


def infinite_branch(verdict: Verdict) -> bool:
    return verdict.proof is not None and any("infinite" in name for name in verdict.proof.branching)


def test_a_factor_moved_into_a_mask_is_a_branch() -> None:
    """(x + mask)·t is x·t + mask for positive t only: for others, -inf becomes inf."""
    mask = torch.full((4, 4), -INF).triu(1)
    before = Module(lambda s, x: ((x + mask) * s.t).softmax(-1), t=parameter(0.7))
    after = Module(lambda s, x: (x * s.t + mask).softmax(-1), t=parameter(0.7))
    verdict = prove(before, after, (torch.randn(4, 4),))
    assert verdict.kind is Kind.PROVED and infinite_branch(verdict), str(verdict)


def test_infinite_leaves_and_inputs_are_held_and_told() -> None:
    bound = torch.tensor(-INF)  # the min_val of an observer that has seen nothing
    of_leaves = prove(Module(lambda s, x: x + s.b * 2, b=bound), Module(lambda s, x: x + s.b, b=bound), (X,))
    of_inputs = prove(lambda x: x * 2, lambda x: x, (torch.full((3,), INF),))
    for verdict in (of_leaves, of_inputs):
        assert any(h.why is Why.INFINITE for h in verdict.claim.held) and not verdict.claim.is_general, str(verdict)


def test_rows_that_are_empty_at_these_inputs_only() -> None:
    """The safe softmax of a row of -inf is 0; log(relu(x)) is that for negative x only."""
    verdict = prove(lambda x: torch._safe_softmax(x.relu().log(), -1), lambda x: x * 0, (-X.abs(),))
    assert verdict.kind is Kind.REFUTED, str(verdict)


def test_infinities_inside_do_not_hide_a_difference() -> None:
    """Noise on -inf must not be nan: a floor that is no number would explain everything."""
    padding = torch.tensor([False, True, True, False])

    def attention(scale: float) -> Callable[[Tensor], Tensor]:
        return lambda x: (x.relu().log() * scale).masked_fill(padding, -INF).softmax(-1)

    assert prove(attention(1.0), attention(1.1), (X.abs() + 0.1,)).kind is Kind.REFUTED


# Arguments and outputs.


def test_keyword_arguments_of_a_graph_are_bound_by_name() -> None:
    graph, given = fx.symbolic_trace(AddsAndSubtracts()), {"minus": X[0], "plus": X[1]}
    assert prove(graph, lambda x, plus, minus: x + minus - plus, (X,), given).kind is Kind.REFUTED


@pytest.mark.parametrize("exported", [False, True])
def test_outputs_under_other_keys_are_refuted(exported: bool) -> None:
    programs: list[Any] = [
        Module(lambda s, x: {"a": x * 1, "b": x * 2}),
        Module(lambda s, x: {"b": x * 1, "a": x * 2}),
    ]
    before, after = (torch.export.export(p, (X,)) if exported else p for p in programs)
    assert prove(before, after, (X,)).kind is Kind.REFUTED


def writes_its_input(x: Tensor) -> Tensor:
    y = x * 2
    x.mul_(3)
    return y


REFUTED: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "an output more": (lambda x: (x, None), lambda x: (x,)),
    "another word": (lambda x: (x, "a"), lambda x: (x, "b")),
    "another number": (lambda x: (x, 1), lambda x: (x, 2)),
    "a number read out of a tensor": (lambda x: (x, x.mean().item()), lambda x: (x * 1, x.sum().item() / 13)),
    "an output for a write": (writes_its_input, lambda x: (x * 2, x * 3)),
}


@pytest.mark.parametrize("name", REFUTED)
def test_outputs_that_differ_beside_the_tensors_are_refuted(name: str) -> None:
    verdict = prove(*REFUTED[name], (X,))
    assert verdict.kind is Kind.REFUTED and "None" not in verdict.reason.split("before")[0], str(verdict)


@pytest.mark.parametrize(
    ("before", "after"),
    [(lambda x: Holder(x), lambda x: Holder(x * 100)), (lambda x: (x * 1, Holder(x)), lambda x: (x, Holder(x * 100)))],
)
def test_objects_can_not_be_compared(before: Callable[..., Any], after: Callable[..., Any]) -> None:
    verdict = prove(before, after, (X,))
    assert verdict.kind is Kind.UNDECIDED and "Holder" in verdict.reason, str(verdict)


def test_imaginary_parts_are_compared() -> None:
    z = torch.randn(3, dtype=torch.cfloat)
    assert prove(lambda x, z: (x * 2, z.conj()), lambda x, z: (x * 2, z), (X, z)).kind is Kind.REFUTED


# Claims that are no larger than what was shown.

UNREGISTERED = parameter(1.0, 1.0, 1.0, 1.0)
LINEAR, IDENTITY = nn.Linear(4, 4), nn.Linear(4, 4)
nn.init.eye_(IDENTITY.weight)
nn.init.zeros_(IDENTITY.bias)

HELD: dict[str, tuple[Any, Any, tuple[Any, ...], str]] = {
    "a Python number": (lambda x, s: x * s, lambda x, s: x * 2.0, (X, 2.0), "input 1 (no tensor)"),
    "an array": (lambda x, a: x * float(a[0]), lambda x, a: x * 2, (X, np.array([2.0])), "input 1 (an object)"),
    "a tensor in an object": (
        lambda o: o.held.abs(),
        lambda o: o.held,
        (Holder(X.abs()),),
        "the given inputs; held at their values: input 0 (an object)",
    ),
    "a parameter of a closure": (
        lambda x: LINEAR(x) * UNREGISTERED,
        lambda x: LINEAR(x),
        (X,),
        "for these parameter values",
    ),
    "modules in a list": (
        Module(lambda s, x: s.rest[0](s.linear(x)), linear=LINEAR, rest=[IDENTITY]),
        LINEAR,
        (X,),
        "no program registers",
    ),
    "one tensor given twice": (
        lambda p, q: (p.add_(1), q * 1)[1],
        lambda p, q: (q * 1, p.add_(1))[0],
        (UNREGISTERED.detach(),) * 2,
        "share memory",
    ),
}


@pytest.mark.parametrize("name", HELD)
def test_what_is_held_is_told(name: str) -> None:
    before, after, inputs, told = HELD[name]
    verdict = prove(before, after, inputs)
    assert verdict.kind is Kind.PROVED and told in str(verdict), str(verdict)


@pytest.mark.parametrize("swap", [True, False])
def test_equal_parameters_that_are_swapped_or_tied_limit_the_claim(swap: bool) -> None:
    """The second program's ``a`` is the first one's ``b``, or its ``b`` is ``a``: right while the two are equal."""
    a, b = parameter(1, 1, 1, 1), parameter(1, 1, 1, 1)
    before = Module(lambda s, x: x * s.a + s.b, a=a, b=b)
    after = Module(lambda s, x: x * s.a + s.b, a=b if swap else a, b=a)
    verdict = prove(before, after, (X,))
    assert verdict.kind is Kind.PROVED and str(verdict.claim) == "all inputs, for these parameter values", str(verdict)


# What a program makes of nothing.


def test_what_is_written_into_new_memory_is_seen_in_float64() -> None:
    def filling(factor: float) -> Callable[[Tensor], Tensor]:
        def function(x: Tensor) -> Tensor:
            new = torch.zeros(3, 4)
            new[:] = x * factor
            return new + x

        return function

    verdict = prove(filling(2.0), filling(3.0), (X,))
    assert verdict.kind is Kind.REFUTED, str(verdict)


# Memory that is shared, and memory that is written behind PyTorch's back.


def _two_buffers(shared: str) -> Module:
    """Writes to one buffer; another is a buffer of its own, the same one, or one that overlaps it."""
    memory = torch.ones(5)
    b = {"none": torch.ones(4), "all": memory[:4], "some": memory[1:]}[shared]
    model = Module(lambda s, x: (s.a.add_(1), x)[1], a=memory[:4], b=b)
    if shared == "all":
        model.b = model.a
    return model


@pytest.mark.parametrize(("before", "after"), [("none", "all"), ("none", "some"), ("all", "none"), ("some", "none")])
def test_a_write_that_reaches_another_buffer_in_one_program_only(before: str, after: str) -> None:
    verdict = prove(_two_buffers(before), _two_buffers(after), (X,))
    assert verdict.kind is Kind.UNDECIDED and "share memory" in verdict.reason, str(verdict)
    assert prove(_two_buffers("all"), _two_buffers("all"), (X,)).kind is Kind.PROVED


UNMARKED: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "a counter": (lambda s, x: s.n.data.add_(1), (X,)),
    "whole numbers that are given": (lambda s, i: i.data.add_(1), (torch.arange(3),)),
    "an input's data": (lambda s, x: setattr(x, "data", x + 1), (X,)),
}


@pytest.mark.parametrize("name", UNMARKED)
def test_writes_that_leave_no_mark(name: str) -> None:
    writes, inputs = UNMARKED[name]
    n = torch.tensor(1)
    before = Module(lambda s, x: (s.n * 1, writes(s, x))[0], n=n)
    verdict = prove(before, Module(lambda s, x: s.n * 1, n=n), inputs)
    assert verdict.kind is Kind.REFUTED and "written to" in verdict.reason, str(verdict)


def test_a_buffer_that_was_none() -> None:
    keeps, forgets = Module(lambda s, x: (setattr(s, "last", x), x)[1]), Module(lambda s, x: x)
    keeps.register_buffer("last", None)
    forgets.register_buffer("last", None)
    verdict = prove(keeps, forgets, (X,))
    assert verdict.kind is Kind.UNDECIDED and "writes to last" in verdict.reason, str(verdict)
    assert prove(keeps, keeps, (X,)).kind is Kind.PROVED


def test_a_buffer_that_was_none_and_becomes_another() -> None:
    first, second = (Module(lambda s, x, c=c: (setattr(s, "last", x * c), x)[1]) for c in (1, 2))
    for module in (first, second):
        module.register_buffer("last", None)
    assert prove(first, second, (X,)).kind is Kind.REFUTED


@pytest.mark.parametrize("read", [lambda b: b, lambda b: [b[:2]], lambda b: {"view": b.view(3, 1)}])
def test_attributes_that_share_memory_with_a_buffer(read: Callable[[Tensor], Any]) -> None:
    class Read(nn.Module):
        def __init__(self, count: bool) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))
            self.other, self.count = [read(self.seen)], count

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(1)
            total = sum(t.sum() for t in tree_leaves(self.other))
            return x * (total if self.count else 0 * total)

    found = prove(Read(True), Read(False), (X,))
    assert found.kind is Kind.UNDECIDED and "shares its memory" in found.reason, str(found)


def test_writes_to_numbers_that_float_evaluations_do_not_see() -> None:
    twice, thrice = (Module(lambda s, x, c=c: (s.a.data.mul_(c), x)[1], a=torch.ones(4)) for c in (2, 3))
    verdict = prove(twice, thrice, (X,))
    assert verdict.kind is Kind.UNDECIDED and "do not cover the values written to a" in verdict.reason, str(verdict)
    assert prove(twice, Module(lambda s, x: (s.a.data.add_(s.a), x)[1], a=torch.ones(4)), (X,)).kind is Kind.PROVED


def test_tensors_from_outside_that_share_memory() -> None:
    base = torch.zeros(4)
    part = base[:2]

    def filled(number: float) -> Callable[[Tensor], Tensor]:
        return lambda x: (base.fill_(number), x * 1.0000001 + part.sum())[1]

    assert prove(filled(0.0), filled(5.0), (X,)).kind is Kind.REFUTED


@pytest.mark.parametrize("given", [{"x": X}, [X]])
def test_containers_that_a_program_fills(given: Any) -> None:
    key = "x" if isinstance(given, dict) else 0

    def filling(c: Any) -> Tensor:
        c.update(y=c["x"]) if isinstance(c, dict) else c.append(c[0])
        return c[key]  # type: ignore[no-any-return]

    assert prove(filling, lambda c: c[key], (given,)).kind is Kind.UNDECIDED


def test_counters_that_outputs_are_made_of_are_held() -> None:
    for before, after in (
        (nn.BatchNorm1d(4, momentum=None), nn.BatchNorm1d(4, momentum=None)),
        (Module(lambda s, x: x * s.num_batches_tracked, num_batches_tracked=torch.tensor(1)), lambda x: x),
    ):
        verdict = prove(before, after, (X,))
        assert verdict.kind is Kind.PROVED and any(h.why is Why.INTEGERS for h in verdict.claim.held), str(verdict)


def written_memory(changes: bool, read: Callable[[Tensor], Any]) -> nn.Module:
    """``read`` of an attribute that is no buffer, and is filled with fives before if it ``changes``."""
    return Module(lambda s, x: ((s.held[0].fill_(5.0) if changes else None), (x * 2, read(s.held[0])))[1], held=[ZEROS])


ZEROS = torch.zeros(3)


@pytest.mark.parametrize("read", [lambda t: t, lambda t: t[:2], lambda t: [t.view(3, 1)]])
def test_attributes_that_are_written_to_and_put_out(read: Callable[[Tensor], Any]) -> None:
    assert prove(written_memory(True, read), written_memory(False, read), (X,)).kind is Kind.REFUTED
    five = Module(lambda s, x: (x * 2, read(torch.full((3,), 5.0))))
    assert prove(written_memory(True, read), five, (X,)).kind is Kind.PROVED
    assert torch.equal(ZEROS, torch.zeros(3)), "what was written to is put back"


def test_a_buffer_that_becomes_none() -> None:
    keeps, drops = Module(lambda s, x: x, a=X), Module(lambda s, x: (setattr(s, "a", None), x)[1], a=X)
    assert prove(keeps, drops, (X,)).kind is Kind.REFUTED
    assert prove(drops, drops, (X,)).kind is Kind.PROVED


def test_exported_programs_that_write_to_inputs() -> None:
    class Caching(nn.Module):
        def __init__(self, writes: bool) -> None:
            super().__init__()
            self.writes = writes

        def forward(self, n: int, mask: Tensor | None, *, new: Tensor, cache: Tensor) -> Tensor:
            if self.writes:
                cache.copy_(new)
            return new * n

    def exported(writes: bool) -> torch.export.ExportedProgram:
        return torch.export.export(Caching(writes), args, {"new": X, "cache": 2 * X}).run_decompositions()

    args, kwargs = (2, None), {"cache": 2 * X, "new": X}
    assert prove(exported(True), Caching(True), args, kwargs).kind is Kind.PROVED
    assert prove(exported(True), exported(False), args, kwargs).kind is Kind.REFUTED


def test_a_number_that_was_read_out_of_the_example() -> None:
    scale = X.abs().mean().item()

    def dynamic(x: Tensor) -> Tensor:
        return torch.round(x / x.abs().mean().item())

    assert prove(dynamic, lambda x: torch.round(x / scale), (X,)).kind is Kind.REFUTED
    assert prove(dynamic, lambda x: torch.round(x / x.abs().mean().item() * 1), (X,)).kind is Kind.PROVED


@pytest.mark.parametrize("z", [torch.ones(3, dtype=torch.complex64), torch.randn(3).to(torch.complex64)])
def test_complex_inputs(z: Tensor) -> None:
    assert prove(lambda z: z * z, lambda z: z * z.conj(), (z,)).kind is Kind.REFUTED
    found = prove(lambda z: z * z, lambda z: z**2, (z,))
    assert found.kind is Kind.PROVED and found.claim.is_general, str(found)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (lambda x: x > 0, lambda x: (x > 0).float()),
        (lambda x: x > 0, lambda x: (x > 0).to(torch.int8)),
        (lambda x: x.argsort(), lambda x: x.argsort().int()),
    ],
)
def test_whole_numbers_of_another_dtype(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor]) -> None:
    assert prove(first, second, (X,)).kind is Kind.REFUTED


def test_parameters_of_eight_bits() -> None:
    weight = torch.randn(4, 4, generator=GENERATOR).to(torch.float8_e4m3fn)
    once, more = (Module(lambda s, x, c=c: x @ s.w.float() * c, w=weight) for c in (1.0, 1.1))
    assert prove(once, more, (X,)).kind is Kind.REFUTED
    assert prove(once, Module(lambda s, x: x @ s.w.float(), w=weight), (X,)).kind is Kind.PROVED
    assert prove(lambda x: x.float(), lambda x: x.float() * 1.5, (weight,)).kind is Kind.REFUTED
