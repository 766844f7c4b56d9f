"""Changes that leave no trace in the nodes of a graph, and graphs that only look changed."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  (registers the operators)
from torch.fx.passes.infra.pass_base import PassBase, PassResult
from torch.utils._pytree import tree_flatten

import foldproof
from foldproof import Kind, Verdict
from foldproof.auditing import api
from foldproof.auditing.copies import Copies
from foldproof.auditing.judge import judge
from foldproof.auditing.log import Change
from foldproof.auditing.snapshot import Snapshot
from tests.proof.models import trained

X = torch.randn(2, 3, 6, 6)
aten = torch.ops.aten
DECOMPOSED = torch.ops.quantized_decomposed


class Edit(PassBase):
    """A pass that is a function."""

    def __init__(self, edit: Callable[[fx.GraphModule], Any]) -> None:
        self.edit = edit

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        self.edit(graph_module)
        graph_module.recompile()
        return PassResult(graph_module, True)


def verdict_on(module: fx.GraphModule, edit: Callable[[fx.GraphModule], Any], *inputs: Tensor) -> Verdict | None:
    """Return the verdict on one pass; None if it is not recorded."""
    with foldproof.watch(inputs or (X,)) as log:
        Edit(edit)(module)
    (step,) = log.steps
    return step.verdict if step.fired else None


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1)).eval()


def exported(model: nn.Module, x: Tensor = X) -> fx.GraphModule:
    return torch.export.export(model, (x,)).module()  # type: ignore[return-value]


FORMS = {"traced": fx.symbolic_trace, "exported": exported}


def multiply(module: fx.GraphModule) -> None:
    with torch.no_grad():
        next(module.parameters()).mul_(2)


def multiply_data(module: fx.GraphModule) -> None:
    next(module.parameters()).data.mul_(2)  # no version counter shows this


def replace_data(module: fx.GraphModule) -> None:
    first = next(module.parameters())
    first.data = first.data * 2


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("edit", [multiply, multiply_data, replace_data])
def test_a_parameter_that_is_written_to(form: str, edit: Callable[[fx.GraphModule], None]) -> None:
    verdict = verdict_on(FORMS[form](layers()), edit)
    assert verdict is not None
    assert verdict.kind is Kind.REFUTED


def test_a_right_pass_that_writes_into_parameters() -> None:
    """It is run again on shadows of the parameters as they were, so it is proved for all of them."""

    def fold(module: fx.GraphModule) -> None:
        conv, norm = module.get_submodule("0"), module.get_submodule("1")
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        conv.bias.data = (conv.bias - norm.running_mean) * scale + norm.bias  # type: ignore
        conv.weight.data = conv.weight * scale.view(-1, 1, 1, 1)  # type: ignore
        (node,) = (n for n in module.graph.nodes if n.target == "1")
        node.replace_all_uses_with(node.args[0])
        module.graph.erase_node(node)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    verdict = verdict_on(fx.symbolic_trace(model), fold)
    assert verdict is not None
    assert verdict.kind is Kind.PROVED
    assert str(verdict.claim).startswith("all inputs and all parameters")


def test_a_pass_that_does_something_else_when_it_is_run_again() -> None:
    """A proof about the second run does not hold for the first."""
    calls: list[int] = []

    def fold(module: fx.GraphModule) -> None:
        calls.append(1)
        conv, norm = module.get_submodule("0"), module.get_submodule("1")
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # type: ignore
        mean = norm.running_mean if len(calls) > 1 else 0  # forgotten the first time
        conv.bias.data = (conv.bias - mean) * scale + norm.bias  # type: ignore
        conv.weight.data = conv.weight * scale.view(-1, 1, 1, 1)  # type: ignore
        (node,) = (n for n in module.graph.nodes if n.target == "1")
        node.replace_all_uses_with(node.args[0])
        module.graph.erase_node(node)

    model = trained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    verdict = verdict_on(fx.symbolic_trace(model), fold)
    assert verdict is not None
    assert verdict.kind is Kind.REFUTED


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = 2.0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Leaves(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def test_an_attribute_of_a_module() -> None:
    def edit(module: fx.GraphModule) -> None:
        module.get_submodule("0").factor = 3.0  # type: ignore

    model = nn.Sequential(Scale())
    verdict = verdict_on(fx.GraphModule(model, Leaves().trace(model)), edit)
    assert verdict is not None
    assert verdict.kind is Kind.REFUTED


class Configured(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(factor=2.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.config.factor  # type: ignore[no-any-return]


def test_what_a_module_is_configured_by() -> None:
    def edit(module: fx.GraphModule) -> None:
        module.get_submodule("0").config.factor = 3.0  # type: ignore

    model = nn.Sequential(Configured())
    verdict = verdict_on(fx.GraphModule(model, Leaves().trace(model)), edit)
    assert verdict is not None
    assert verdict.kind is Kind.REFUTED


def test_another_function_of_the_same_name() -> None:
    def times(factor: float) -> Callable[[Tensor], Tensor]:
        return lambda x: x * factor

    def edit(module: fx.GraphModule) -> None:
        (node,) = (n for n in module.graph.nodes if n.op == "call_function")
        node.target = times(3.0)

    graph = fx.Graph()
    graph.output(graph.call_function(times(2.0), (graph.placeholder("x"),)))
    verdict = verdict_on(fx.GraphModule({}, graph), edit)
    assert verdict is not None
    assert verdict.kind is Kind.REFUTED


@torch.library.custom_op("foldproof_tests::noise", mutates_args=())
def noise(x: Tensor) -> Tensor:
    return torch.randn(x.shape)


@pytest.mark.parametrize(
    "drawn",
    [lambda x: x.bernoulli(0.5), lambda x: torch._standard_gamma(x), lambda x: torch.ops.foldproof_tests.noise(x)],
)
def test_two_draws_are_not_one(drawn: Callable[[Any], Any]) -> None:
    def merge(module: fx.GraphModule) -> None:
        first, second = list(module.graph.nodes)[1:3]
        second.replace_all_uses_with(first)
        module.graph.erase_node(second)

    graph = fx.symbolic_trace(lambda x: sum(two) if len(two := [drawn(x), drawn(x)]) == 2 else two)
    verdict = verdict_on(graph, merge, torch.rand(4))
    assert verdict is not None
    assert verdict.kind in (Kind.UNDECIDED, Kind.REFUTED)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x * 3, (x,))  # type: ignore[no-any-return]


def test_a_graph_inside_of_another() -> None:
    def edit(module: fx.GraphModule) -> None:
        for name, part in module.named_modules():
            if name and isinstance(part, fx.GraphModule):
                for node in part.graph.nodes:
                    if node.op == "call_function":
                        node.args = (node.args[0], 7)
                part.recompile()

    verdict = verdict_on(exported(Branches()), edit)
    assert verdict is not None
    assert verdict.kind is Kind.REFUTED


def test_a_pass_that_raises_half_way() -> None:
    def edit(module: fx.GraphModule) -> None:
        multiply_data(module)
        raise ValueError("half way")

    with foldproof.watch((X,)) as log, pytest.raises(ValueError, match="half way"):
        Edit(edit)(fx.symbolic_trace(layers()))
    assert [step.verdict.kind for step in log.steps] == [Kind.REFUTED]


def test_outputs_that_are_dropped() -> None:
    def edit(module: fx.GraphModule) -> None:
        (end,) = (n for n in module.graph.nodes if n.op == "output")
        end.args = ((end.args[0][0],),)

    verdict = verdict_on(fx.symbolic_trace(lambda x: (x + 1, x * 2)), edit)
    assert verdict is not None
    assert verdict.kind is Kind.REFUTED


def test_nodes_that_nobody_reads() -> None:
    def edit(module: fx.GraphModule) -> None:
        first = next(iter(module.graph.nodes))
        with module.graph.inserting_after(first):
            module.graph.call_function(torch.sin, (first,))

    verdict = verdict_on(exported(layers()), edit)
    assert verdict is not None
    assert verdict.kind is Kind.PROVED


class Counter(nn.Module):
    """Counts its calls, and says the count."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return self.linear(x) * self.count


class Averages(nn.Module):
    """Keeps a moving average, whose factor ExecuTorch makes a tensor of."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.zeros(3))
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.average.mul_(0.9).add_(x.mean(0))
        return self.linear(x) - self.average


class Broken(nn.Module):
    """Dynamo makes two graphs of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        torch._dynamo.graph_break()
        return self.second(x)


class WritesInput(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x.mul_(2)
        return x + 1, x


@pytest.mark.parametrize("compiler", ["inductor", "executorch"])
@pytest.mark.parametrize("model", [Counter, Averages, Broken, WritesInput])
def test_models_with_effects_and_breaks(compiler: str, model: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    if compiler == "executorch":
        pytest.importorskip("executorch")
    monkeypatch.setattr(api, "COMPARED_INPUTS", 3)
    torch.manual_seed(0)
    made, x = model().eval(), torch.randn(2, 3)
    before = {name: t.clone() for name, t in made.state_dict().items()}
    found = foldproof.audit(made, (x,), compiler=compiler)
    fired = [step for step in found.steps if step.fired]
    assert fired
    # ExecuTorch rounds the 0.9 of `Averages` to float32, which the second of two calls shows.
    rounded = {step.name for step in fired if step.verdict.kind is Kind.ROUNDING}
    assert rounded <= {"ScalarToTensorPass"}, str(found)
    assert {step.verdict.kind for step in fired if step.name not in rounded} == {Kind.PROVED}, str(found)
    assert found.kind is Kind.ROUNDING
    assert all(torch.equal(t, before[name]) for name, t in made.state_dict().items()), "the model is the user's"


@pytest.mark.filterwarnings("ignore")
def test_a_model_with_branches_is_proved() -> None:
    found = foldproof.audit(Branches(), (torch.randn(3),))
    assert {step.verdict.kind for step in found.steps if step.fired} == {Kind.PROVED}
    assert "the lowering and the scheduling are proved" in found.conclusion
    assert found.kind is Kind.UNDECIDED  # of the numbers: rounding inside of a branch is not followed


def test_statistics_that_training_updates() -> None:
    """They are written to without a trace, so the verdict is UNDECIDED."""

    def edit(module: fx.GraphModule) -> None:
        (node,) = (n for n in module.graph.nodes if n.target is F.batch_norm)
        node.args = (*node.args[:6], 0.5, node.args[7])

    graph = fx.Graph()
    x, mean, var = (graph.placeholder(name) for name in ("x", "mean", "var"))
    graph.output(graph.call_function(F.batch_norm, (x, mean, var, None, None, True, 0.1, 1e-5)))
    verdict = verdict_on(fx.GraphModule({}, graph), edit, torch.randn(5, 4), torch.zeros(4), torch.ones(4))
    assert verdict is not None
    assert verdict.kind is Kind.UNDECIDED


def test_copies_share_memory_where_the_tensors_do() -> None:
    copies, whole = Copies(), torch.arange(6.0)
    part = whole[2:4]
    (first, copied), (second, view) = copies.of(whole), copies.of(part)
    assert first != second
    copied[2] = 9
    assert view[0] == 9
    assert part[0] == 2


def test_copies_are_made_anew_where_something_was_written() -> None:
    copies, x = Copies(), nn.Parameter(torch.arange(5.0))
    identity, copied = copies.of(x)
    assert copies.of(x) == (identity, copied)
    x.data[3] = 7
    other, now = copies.of(x)
    assert other != identity
    assert copied.tolist() == [0, 1, 2, 3, 4]
    assert now.tolist() == [0, 1, 2, 7, 4]
    assert copies.of(now)[0] == other


class Requantized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        whole = DECOMPOSED.quantize_per_tensor.default(x, 0.1, 0, -128, 127, torch.int8)
        return torch.relu(DECOMPOSED.dequantize_per_tensor.default(whole, 0.1, 0, -128, 127, torch.int8))


def test_a_coarser_quantization_does_not_hide_behind_a_new_one() -> None:
    """The step that was there has another scale now: both are named, with their bounds."""
    gm = torch.export.export(Requantized(), (torch.randn(4),)).module()

    def quantize(module: fx.GraphModule) -> None:
        for node in list(module.graph.nodes):
            if "quantize_per_tensor" in str(node.target):
                node.args = (node.args[0], 5.0, *node.args[2:])
            elif "relu" in str(node.target):
                rest = (0.1, 0, -128, 127, torch.int8)
                with module.graph.inserting_after(node):
                    whole = module.graph.call_function(DECOMPOSED.quantize_per_tensor.default, (node, *rest))
                with module.graph.inserting_after(whole):
                    back = module.graph.call_function(DECOMPOSED.dequantize_per_tensor.default, (whole, *rest))
                node.replace_all_uses_with(back)
                whole.args = (node, *rest)

    verdict = verdict_on(gm, quantize, torch.randn(4))
    assert verdict is not None and verdict.kind is Kind.PROVED_WITHIN
    assert sorted(step.bound for step in verdict.steps) == [0.05, 0.05, 2.5]


def quantized(node: fx.Node, scale: float) -> fx.Node:
    """The node that stands for ``node``, quantized and back."""
    whole = node.graph.call_function(DECOMPOSED.quantize_per_tensor.default, (node, scale, 0, -128, 127, torch.int8))
    return node.graph.call_function(DECOMPOSED.dequantize_per_tensor.default, (whole, *whole.args[1:]))


def test_a_coarser_fake_quantization_does_not_hide_behind_another_name() -> None:
    def program(scale: float, name: str, quantize: bool) -> fx.GraphModule:
        graph = fx.Graph()
        fake = aten.fake_quantize_per_tensor_affine.default
        node = graph.create_node("call_function", fake, (graph.placeholder("x"), scale, 0, -128, 127), name=name)
        node = graph.call_function(aten.sin.default, (node,))
        graph.output(quantized(node, 0.01) if quantize else node)
        return fx.GraphModule({}, graph)

    copies = Copies()

    def judged(after: fx.GraphModule) -> Verdict:
        change = Change("", "", Snapshot(program(0.01, "a", False), copies=copies), Snapshot(after, copies=copies))
        return judge(change, (torch.randn(5),))

    assert judged(program(0.01, "b", True)).kind is Kind.PROVED_WITHIN
    assert judged(program(3.0, "b", True)).kind is not Kind.PROVED_WITHIN


def test_parameters_that_a_quantization_cuts_off() -> None:
    """The weight is 3, of which 127·0.001 is left."""
    graph = fx.Graph()
    x, weight = graph.placeholder("x"), graph.get_attr("weight")
    graph.output(graph.call_function(aten.mul.Tensor, (x, weight)))
    module = fx.GraphModule({"weight": torch.full((4,), 3.0)}, graph)

    def edit(module: fx.GraphModule) -> None:
        out = next(n for n in module.graph.nodes if n.target is aten.mul.Tensor)
        with module.graph.inserting_before(out):
            out.args = (out.args[0], quantized(out.args[1], 0.001))

    verdict = verdict_on(module, edit, torch.randn(4))
    assert verdict is not None and verdict.kind is Kind.PROVED_WITHIN
    assert [step.bound for step in verdict.steps] == [pytest.approx(3 - 0.127)]


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": x + 1, "b": x + 2}


def test_outputs_that_are_put_together_differently() -> None:
    def edit(module: fx.GraphModule) -> None:
        codegen: Any = module.graph._codegen
        swapped = tree_flatten({"b": 0, "a": 0})[1]
        codegen.pytree_info = codegen.pytree_info._replace(out_spec=swapped)

    verdict = verdict_on(exported(Named()), edit)
    assert verdict is not None
    assert verdict.kind is Kind.UNDECIDED
