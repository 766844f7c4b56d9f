"""Proofs cover the program that is called: hooks, forwards of instances, stale code, storages, gradients, threads."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.infra.pass_base import PassBase, PassResult

import foldproof
from foldproof import Kind

from .programs import Module, normal

X = normal(6, 8)


@pytest.fixture
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    return fx.symbolic_trace(nn.Sequential(nn.Linear(8, 8), nn.ReLU())).eval()


def clamp_output(module: fx.GraphModule) -> None:
    module.register_forward_hook(lambda m, i, o: o.clamp(max=50.0))


def clamp_input(module: fx.GraphModule) -> None:
    module.register_forward_pre_hook(lambda m, i: (i[0].clamp(-50, 50),))


def clamp_kwargs(module: fx.GraphModule) -> None:
    module.register_forward_pre_hook(lambda m, a, k: ((a[0] * 2,), k), with_kwargs=True)


def hook_a_child(module: fx.GraphModule) -> None:
    module.get_submodule("0").register_forward_hook(lambda m, i, o: o * 2)


def replace_forward(module: fx.GraphModule) -> None:
    forward = module.forward
    module.forward = lambda x: forward(x).clamp(max=50.0)  # type: ignore[method-assign]


def edit_without_recompile(module: fx.GraphModule) -> None:
    """The call is still relu, although the graph says tanh: for the owner, nothing has changed."""
    for node in module.graph.nodes:
        if node.op == "call_module" and isinstance(module.get_submodule(node.target), nn.ReLU):
            with module.graph.inserting_after(node):
                new = module.graph.call_function(torch.tanh, (node.args[0],))
            node.replace_all_uses_with(new)


@pytest.mark.parametrize("change", [clamp_output, clamp_input, clamp_kwargs, hook_a_child, replace_forward])
def test_what_hangs_on_a_graph_is_run(graph: fx.GraphModule, change: Callable[[fx.GraphModule], None]) -> None:
    changed = copy.deepcopy(graph)
    change(changed)
    verdict = foldproof.prove(graph, changed, (X,))
    assert verdict.kind is Kind.REFUTED, str(verdict)
    same = copy.deepcopy(graph)
    change(same)
    assert foldproof.prove(changed, same, (X,)).kind in (Kind.PROVED, Kind.UNDECIDED, Kind.ROUNDING)


def test_stale_code_is_what_runs(graph: fx.GraphModule) -> None:
    stale = copy.deepcopy(graph)
    edit_without_recompile(stale)
    assert foldproof.prove(graph, stale, (X,)).kind is Kind.PROVED
    stale.recompile()
    assert foldproof.prove(graph, stale, (X,)).kind is Kind.REFUTED


def test_numbers_read_from_storages() -> None:
    first, whole = float(X[0, 0]), X.clone()
    for before, after in (
        (lambda x: x + x.storage()[0], lambda x: x + first),
        (lambda x: torch.tensor([]).set_(x.untyped_storage()).reshape(6, 8) + 1, lambda x: whole + 1),
        (lambda x: x + torch.from_dlpack(x), lambda x: x + whole),
    ):
        verdict = foldproof.prove(before, after, (X,))
        assert not (verdict.kind is Kind.PROVED and verdict.claim.is_general), str(verdict)  # type: ignore[union-attr]


def test_a_number_that_is_read_is_told_with_the_line_that_reads_it() -> None:
    verdict = foldproof.prove(lambda x: x * 2 if x.sum().item() > 1e5 else x, lambda x: x * 1.0, (X,))
    assert any(f"{__file__}:" in note for note in verdict.notes), str(verdict)


def test_code_that_asks_for_gradients() -> None:
    """The program gives other numbers when gradients are recorded."""
    asks = Module(lambda s, x: s.linear(x) * (2 if torch.is_grad_enabled() else 1), linear=nn.Linear(8, 8))
    plain = Module(lambda s, x: s.linear(x), linear=asks.linear)
    needs = Module(lambda s, x: s.linear(x) * (2 if s.linear.weight.requires_grad else 1), linear=asks.linear)
    for program in (asks, needs):
        verdict = foldproof.prove(program, plain, (X,))
        assert verdict.kind in (Kind.UNDECIDED, Kind.REFUTED), str(verdict)
    with torch.no_grad():
        assert foldproof.prove(asks, plain, (X,)).kind is Kind.PROVED


def test_the_module_can_be_served_meanwhile() -> None:
    model = nn.Sequential(nn.Linear(8, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 8)).eval()
    with torch.no_grad():
        right = model(X)
    wrong: list[Any] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            with torch.no_grad():
                if not torch.equal(model(X), right):
                    wrong.append(1)

    verdicts: list[Kind] = []

    def prove() -> None:
        verdicts.append(foldproof.prove(model, model, (X,)).kind)

    serving, provers = threading.Thread(target=serve), [threading.Thread(target=prove) for _ in range(3)]
    for thread in (serving, *provers):
        thread.start()
    for thread in provers:
        thread.join()
    stop.set()
    serving.join()
    assert not wrong and verdicts == [Kind.PROVED] * 3
    compiled: list[Any] = []
    torch.compile(lambda x: x + 1, backend=lambda graph, _: compiled.append(graph) or graph.forward)(X)
    assert compiled, "PyTorch's flags say that a mode is active still, and nothing is compiled any more"


def test_relu_of_another_name_is_still_relu() -> None:
    assert foldproof.prove(F.relu, lambda x: Tensor.relu(x), (X,)).kind is Kind.PROVED


class Ref:
    """An object with a reference to a module that no mirror replaces."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module


def closes_over_itself() -> nn.Module:
    module = Module(lambda s, x: x, s=torch.tensor(2.0))
    module.forward = lambda x: x * module.s  # type: ignore[method-assign, operator]
    return module


def hook_closes_over_itself() -> nn.Module:
    module = Module(lambda s, x: x, s=torch.tensor(2.0))
    module.register_forward_hook(lambda m, i, o: o * module.s)
    return module


def hook_is_given_itself() -> nn.Module:
    module = Module(lambda s, x: x, s=torch.tensor(2.0))
    module.register_forward_hook(functools.partial(lambda owner, m, i, o: o * owner.s, module))
    return module


def refers_to_itself(read: Callable[[Any], Tensor]) -> nn.Module:
    module = Module(lambda s, x: x * read(s.ref.module.s), s=torch.tensor(2.0))
    module.ref = Ref(module)  # type: ignore[assignment]
    return module


@pytest.mark.parametrize(
    "module",
    [
        closes_over_itself(),
        hook_closes_over_itself(),
        hook_is_given_itself(),
        refers_to_itself(lambda s: s),
        refers_to_itself(lambda s: s.data),
        refers_to_itself(lambda s: s[None]),
    ],
)
def test_a_module_that_reaches_its_own_tensors(module: nn.Module) -> None:
    """Such tensors keep their values, so the proof does not cover other values."""
    verdict = foldproof.prove(module, lambda x: x * 2.0, (X,))
    assert verdict.kind is not Kind.PROVED or not verdict.claim.all_parameters, str(verdict)  # type: ignore[union-attr]


def test_a_function_that_reaches_the_module_is_proved_for_all_parameters() -> None:
    same = Module(lambda s, x: x * s.s, s=torch.tensor(2.0))
    verdict = foldproof.prove(closes_over_itself(), same, (X,))
    assert verdict.kind is Kind.PROVED and verdict.claim.is_general, str(verdict)  # type: ignore[union-attr]


def test_a_function_that_reaches_itself() -> None:
    module = nn.Linear(8, 8)
    known: list[Any] = [module]

    def forward(x: Tensor) -> Tensor:
        y: Tensor = F.linear(x, known[0].weight, known[0].bias)
        return y

    known.append(forward)
    module.forward = forward  # type: ignore[method-assign]
    verdict = foldproof.prove(module, nn.Linear.forward.__get__(module), (X,))
    assert verdict.kind is Kind.PROVED, str(verdict)


def test_a_write_through_a_closure_is_not_the_users() -> None:
    module = Module(lambda s, x: x, s=torch.tensor(2.0))
    module.forward = lambda x: x + module.s.add_(1)  # type: ignore[method-assign, operator]
    foldproof.prove(module, lambda x: x + 3, (X,))
    assert module.s.item() == 2.0  # type: ignore[operator, union-attr]


def hang_a_hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda m, i, o: o * 3)


def test_a_pass_on_a_graph_with_hooks(graph: fx.GraphModule) -> None:
    """FX's own copies drop hooks; the owner's module has them before and after the pass."""
    graph.register_forward_hook(lambda m, i, o: o * 2)
    nothing = foldproof.prove_pass(lambda m: m, graph, (X,))
    assert nothing.kind is Kind.PROVED and "the pass changed nothing" in nothing.reason, str(nothing)
    assert foldproof.prove_pass(hang_a_hook, graph, (X,), must_change=True).kind is Kind.REFUTED


def test_a_pass_on_a_graph_that_is_not_called(graph: fx.GraphModule) -> None:
    replace_forward(graph)
    with pytest.raises(foldproof.FoldproofError, match="does not run its graph"):
        foldproof.prove_pass(lambda m: m, graph, (X,))


def test_a_watched_pass_that_hangs_a_hook(graph: fx.GraphModule) -> None:
    class Hangs(PassBase):
        def call(self, module: fx.GraphModule) -> PassResult:
            hang_a_hook(module)
            return PassResult(module, True)

    class Copies(PassBase):
        def call(self, module: fx.GraphModule) -> PassResult:
            return PassResult(fx.GraphModule(module, module.graph), True)

    for made in (Hangs(), Copies()):  # a new GraphModule loses the hook
        with foldproof.watch((X,)) as watched:
            made(graph)
        (step,) = watched.steps
        assert step.fired and step.verdict.kind is Kind.UNDECIDED and "hooks" in step.verdict.reason, str(step.verdict)


def change_the_class(module: fx.GraphModule) -> None:
    class Doubling(type(module)):  # type: ignore[misc]
        def __call__(self, x: Tensor) -> Tensor:
            return super().__call__(x) * 2  # type: ignore[no-any-return]

    module.__class__ = Doubling


def change_the_code_generator(module: fx.GraphModule) -> None:
    module.graph._codegen.process_outputs = lambda out: out * 2  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [change_the_class, change_the_code_generator])
def test_a_watched_pass_that_changes_what_a_call_runs(
    graph: fx.GraphModule, change: Callable[[fx.GraphModule], None]
) -> None:
    class Changes(PassBase):
        def call(self, module: fx.GraphModule) -> PassResult:
            change(module)
            return PassResult(module, True)

    with foldproof.watch((X,)) as watched:
        Changes()(graph)
    (step,) = watched.steps
    assert step.fired and step.verdict.kind is Kind.UNDECIDED and "the class" in step.verdict.reason, str(step.verdict)


OUTSIDE: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda w: w.numpy().__imul__(1.5),
    "numpy of a view": lambda w: w.view(-1)[:4].numpy().__imul__(1.5),
    "numpy of data": lambda w: w.data.numpy().__imul__(1.5),
    "numpy by force": lambda w: w.numpy(force=True).__imul__(1.5),
    "from_numpy": lambda w: torch.from_numpy(w.detach().numpy()).mul_(1.5),
    "asarray": lambda w: np.asarray(w).__imul__(1.5),
    "an output of numpy": lambda w: np.multiply(w.numpy(), 1.5, out=w.numpy()),
    "memoryview": lambda w: memoryview(w.numpy()).cast("B").__setitem__(3, 0),  # type: ignore[arg-type]
    "dlpack": lambda w: torch.from_dlpack(w.detach()).mul_(1.5),
    "storage": lambda w: w.storage().fill_(0.0),
    "untyped storage": lambda w: w.untyped_storage().fill_(0),
}
"""Writes that PyTorch does not see."""


def weighted(write: Callable[[Tensor], Any]) -> Module:
    def forward(s: Any, x: Tensor) -> Tensor:
        write(s.w)
        return x @ s.w  # type: ignore[no-any-return]

    return Module(forward, w=torch.ones(4, 4))


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_write_that_pytorch_does_not_see(name: str) -> None:
    """It changes neither the owner's tensors, nor a value without its residue."""
    write, x = OUTSIDE[name], normal(3, 4)
    graph = torch.export.export(weighted(lambda w: w), (x,)).module()

    def writing(graph: fx.GraphModule) -> None:
        write(graph.w)

    class Writing(PassBase):
        def call(self, graph: fx.GraphModule) -> PassResult:
            writing(graph)
            return PassResult(graph, True)

    assert foldproof.prove_pass(writing, graph, (x,)).kind in (Kind.REFUTED, Kind.UNDECIDED)
    assert torch.equal(graph.w, torch.ones(4, 4))  # type: ignore[arg-type]
    model, other = weighted(write), weighted(lambda w: w)
    assert foldproof.prove(model, other, (x,)).kind in (Kind.REFUTED, Kind.UNDECIDED)
    assert torch.equal(model.w, torch.ones(4, 4))
    with foldproof.watch((x,)) as watched:
        Writing()(graph)
    [step] = watched.steps
    assert step.fired and step.verdict.kind in (Kind.REFUTED, Kind.UNDECIDED), str(step.verdict)


INNER = nn.Linear(8, 8)


def one_by_one(x: Tensor) -> Tensor:
    return torch.stack([INNER(row) for row in x])


def in_a_lambda(x: Tensor) -> Tensor:
    return (lambda y: INNER(y))(x)


def other(x: Tensor) -> Tensor:
    return torch.stack([INNER(row) for row in x]) + INNER.bias * 1e-3


def test_a_module_that_only_inner_code_names_is_the_programs_own() -> None:
    """A comprehension and a lambda have code of their own: its modules are varied, and told."""
    for inner in (one_by_one, in_a_lambda):
        verdict = foldproof.prove(lambda x: INNER(x), inner, (X,))
        assert verdict.kind is Kind.PROVED, verdict
        assert verdict.claim is not None and verdict.claim.is_general, verdict
    assert foldproof.prove(one_by_one, other, (X,)).kind is Kind.REFUTED
