"""The public function: its arguments, errors and reports."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from fusion_programs import norms
from torch import Tensor, nn

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.fusion.examples import chain, functional, made

conv, norm = partial(nn.Conv2d, 3, 6, 3), partial(nn.BatchNorm2d, 6)
IMAGE = (2, 3, 7, 8)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.other = conv(), norm(), norm()

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.norm(self.conv(x)).relu())  # line 30


def test_a_module_is_exported_as_it_is_and_left_alone() -> None:
    model, inputs = chain(IMAGE, conv, norm, nn.Dropout)()
    model[0].train()  # no effect on what it computes
    state = {name: (id(t), t.clone()) for name, t in model.state_dict(keep_vars=True).items()}
    result = foldproof.fuse(model, inputs)
    assert len(result.rewrites) == 1
    assert [part.training for part in model] == [True, False, False]
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert id(tensor) == state[name][0] and torch.equal(tensor, state[name][1])


def test_kwargs_and_dynamic_shapes_of_a_module() -> None:
    model, (x,) = chain(IMAGE, conv, norm)()
    result = foldproof.fuse(model, (), {"input": x}, dynamic_shapes={"input": {0: torch.export.Dim("batch")}})
    assert result.verdict.kind is Kind.PROVED
    assert result.program.module()(input=torch.randn(5, 3, 7, 8)).shape == (5, 6, 5, 6)


def test_the_report() -> None:
    model, inputs = made(Block(), IMAGE)
    result = foldproof.fuse(model, inputs)
    [rewrite], [declined] = result.rewrites, result.declined
    assert (rewrite.rule, rewrite.nodes, rewrite.result) == (
        "batch_norm into convolution",
        ("conv2d", "batch_norm"),
        "conv2d",
    )
    assert rewrite.verdict.proof is not None and rewrite.verdict.claim.shapes == (str(IMAGE),)
    assert (declined.node, declined.operator) == ("batch_norm_1", "aten.batch_norm.default")
    assert "a shift does not pass relu (relu)" in declined.reason
    for one in (rewrite, declined):
        assert one.source is not None and one.source.endswith("test_fuse_api.py:30")
    assert result.operators_before == {"aten.conv2d.default": 1, "aten.batch_norm.default": 2, "aten.relu.default": 1}
    assert result.operators_after == {"aten.conv2d.default": 1, "aten.batch_norm.default": 1, "aten.relu.default": 1}
    weights = 4 * (6 * 27 + 6)
    assert result.bytes_before == weights + 2 * (4 * 4 * 6 + 8)
    assert result.bytes_after == weights + 4 * 4 * 6
    assert result.seconds > 0
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["rewrites"][0]["verdict"]["kind"] == plain["verdict"]["kind"] == "PROVED"
    assert plain["declined"][0]["reason"] == declined.reason
    assert "program" not in plain
    assert "GraphModule" not in repr(result)


def test_source_of_a_stock_module_is_its_path() -> None:
    model, inputs = chain(IMAGE, conv, norm)()
    [rewrite] = foldproof.fuse(model, inputs).rewrites
    assert rewrite.source == "module 1"


def test_memory_that_is_shared_is_counted_once() -> None:
    model, inputs = made(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), (2, 4))
    model[1].weight = model[0].weight
    assert foldproof.fuse(model, inputs).bytes_before == 4 * (16 + 4 + 4)


def test_progress_counts_to_the_end() -> None:
    model, inputs = made(Block(), IMAGE)
    seen: list[tuple[int, int, str]] = []
    foldproof.fuse(model, inputs, progress=lambda *step: seen.append(step))
    assert seen == [(0, 3, "batch_norm"), (1, 3, "batch_norm_1"), (2, 3, "the whole program")]


def test_without_proofs() -> None:
    model, inputs = chain(IMAGE, conv, norm)()
    result = foldproof.fuse(model, inputs, prove=False)
    assert not norms(result.program)
    for verdict in (result.verdict, result.rewrites[0].verdict):
        assert verdict.kind is Kind.UNDECIDED
        assert "switched off" in verdict.reason


def test_nothing_to_fold() -> None:
    result = foldproof.fuse(nn.ReLU(), (torch.randn(3),))
    assert (result.rewrites, result.declined) == ((), ())
    assert (result.verdict.kind, result.verdict.reason) == (
        Kind.PROVED,
        "nothing was rewritten, so the program is the same",
    )


class Pooled(nn.Module):
    """A scale that moves past a maximum for some signs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(), norm()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(nn.functional.max_pool2d(self.conv(x), 2))


def test_weights_without_values() -> None:
    def make() -> nn.Module:
        return nn.Sequential(conv(), norm(), nn.ReLU()).eval()

    full = foldproof.fuse(make(), (torch.randn(IMAGE),))
    with torch.device("meta"):
        model = make()
        program = torch.export.export(model, (torch.randn(IMAGE),))
    for given, x in ((model, torch.randn(IMAGE, device="meta")), (program, torch.randn(IMAGE))):
        result = foldproof.fuse(given, (x,))
        assert result.verdict.kind is Kind.PROVED
        assert len(result.rewrites) == len(full.rewrites) == 1
        assert result.rewrites[0].accuracy is None
        assert {t.device.type for t in result.program.state_dict.values()} == {"meta"}
        assert {n: t.shape for n, t in result.program.state_dict.items() if t.ndim} == {
            n: t.shape for n, t in full.program.state_dict.items() if t.ndim
        }
        assert "new ones have none" in " ".join(result.verdict.notes)
        assert all(t.device.type == "meta" for t in program.state_dict.values())


def test_a_fold_that_depends_on_values_that_are_missing() -> None:
    assert len(foldproof.fuse(Pooled().eval(), (torch.randn(IMAGE),)).rewrites) == 1
    with torch.device("meta"):
        model = Pooled().eval()
    result = foldproof.fuse(model, (torch.randn(IMAGE, device="meta"),))
    assert not result.rewrites
    assert "which has none" in result.declined[0].reason
    assert foldproof.explain(model, (torch.randn(IMAGE, device="meta"),)) == result.declined


def test_weights_of_a_class_that_proofs_cannot_read() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    x = torch.randn(3, 4)
    result = foldproof.fuse(model, (x,))
    assert result.rewrites and {one.verdict.kind for one in result.rewrites} == {Kind.PROVED}
    assert result.verdict.kind is Kind.UNDECIDED and "Int8Tensor" in result.verdict.reason
    assert torch.allclose(result.program.module()(x), model(x))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "inputs", "options", "message"),
    [
        (nn.ReLU(), torch.randn(3), {}, "inputs must be a tuple of example inputs, not Tensor: write (x,)"),
        (torch.relu, (torch.randn(3),), {}, "can't fuse builtin_function_or_method: give an nn.Module or"),
        (nn.Conv2d(3, 6, 3), (torch.randn(1, 5, 7, 7),), {}, "Conv2d can't be exported with these inputs: "),
        (Branching(), (torch.randn(3),), {}, "Branching can't be exported with these inputs: "),
        (
            torch.export.export(nn.ReLU(), (torch.randn(3),)),
            (torch.randn(3),),
            {"dynamic_shapes": ({},)},
            "dynamic_shapes is for modules",
        ),
    ],
)
def test_bad_arguments(model: Any, inputs: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(FoldproofError) as caught:
        foldproof.fuse(model, inputs, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def _module(model: nn.Module, x: Tensor) -> nn.Module:
    return model


def _program(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return torch.export.export(model, (x,))


def _decomposed(model: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    return _program(model, x).run_decompositions({})


def _graph(model: nn.Module, x: Tensor) -> nn.Module:
    return _program(model, x).module()


class InSubgraph(nn.Module):
    """The layers are inside a subgraph, which a checkpoint makes."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(not torch.is_grad_enabled()):
            return self.layers(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", [_module, _program, _decomposed, _graph])
@pytest.mark.parametrize("whole", [nn.Sequential, InSubgraph])
def test_in_training_mode_nothing_is_fused(
    form: Callable[..., Any], whole: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is proved first."""
    model = whole(conv(), norm(), nn.ReLU(), nn.InstanceNorm2d(6, track_running_stats=True)).train()
    x = torch.randn(IMAGE)
    given = form(model, x)
    monkeypatch.setattr("foldproof.fusion.rewriter.Rewriter.run", None)
    with pytest.raises(FoldproofError, match=r"^the model is in training mode: 2 normalisations would take the"):
        foldproof.fuse(given, (x,))


def test_one_layer_in_training_mode_is_enough() -> None:
    model = nn.Sequential(conv(), norm(), nn.Conv2d(6, 6, 1), norm()).eval()
    model[3].train()
    with pytest.raises(FoldproofError, match="training mode: 1 normalisation would"):
        foldproof.fuse(model, (torch.randn(IMAGE),))


def test_batch_statistics_in_evaluation_are_no_training_mode() -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        return m.n(m.a(nn.functional.batch_norm(x, m.mean, m.mean, training=True)))  # type: ignore[no-any-return]

    model, inputs = functional((IMAGE,), function, a=conv, n=norm, mean=lambda: torch.ones(3))()
    result = foldproof.fuse(model, inputs)
    assert len(result.rewrites) == 1 and len(result.declined) == 1


def test_dropouts_in_training_mode_are_told() -> None:
    model = nn.Sequential(conv(), nn.Dropout(), norm()).eval()
    model[1].train()
    [note] = foldproof.fuse(model, (torch.randn(IMAGE),)).verdict.notes
    assert note == "1 dropout drops elements at random, as in training; model.eval() switches that off"
    assert foldproof.fuse(model.eval(), (torch.randn(IMAGE),)).verdict.notes == ()


def test_an_edge_program() -> None:
    to_edge = pytest.importorskip("executorch.exir").to_edge
    model, inputs = chain(IMAGE, conv, norm)()
    edge = to_edge(torch.export.export(model, inputs)).exported_program()
    result = foldproof.fuse(edge, inputs)
    assert result.verdict.kind is Kind.PROVED and result.program.dialect == "EDGE"
    assert norms(edge) and not norms(result.program)
    assert (result.program.module()(*inputs) - model(*inputs)).abs().max() < 1e-5


def test_passes_by_name() -> None:
    model, inputs = made(Block(), IMAGE)
    assert foldproof.fuse(model, inputs, passes=["arithmetic"]).rewrites == ()
    assert len(foldproof.fuse(model, inputs, passes=["batch_norm"]).rewrites) == 1
    with pytest.raises(FoldproofError, match="there is no pass 'batchnorm': choose from batch_norm, instance_norm"):
        foldproof.fuse(model, inputs, passes=["batchnorm"])
    with pytest.raises(FoldproofError, match="accuracy_limit is nan, but must be a number above 0"):
        foldproof.fuse(model, inputs, accuracy_limit=float("nan"))
    with pytest.raises(FoldproofError, match="must be a list of names"):
        foldproof.fuse(model, inputs, passes="batch_norm")


class Centred(nn.Module):
    """Values near 1000, which a mean is taken from first: folded, the sum of the products cancels instead."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.linear = nn.Parameter(torch.full((6,), 1000.0)), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x - self.mean)


def test_a_fold_that_loses_digits_is_declined() -> None:
    torch.manual_seed(0)
    model, inputs = Centred().eval(), (1000 + torch.randn(64, 6),)
    result = foldproof.fuse(model, inputs)
    assert result.rewrites == ()
    assert "it is right, but loses digits: folded, the result is" in result.declined[0].reason
    anyway = foldproof.fuse(model, inputs, accuracy_limit=1e6)
    [rewrite] = anyway.rewrites
    assert rewrite.accuracy is not None and rewrite.accuracy.ratio > 100
    truth = copy.deepcopy(model).double()(inputs[0].double())
    worse, fine = ((r.program.module()(*inputs).double() - truth).abs().max() for r in (anyway, result))
    assert worse > 50 * fine


def test_tied_weights_are_not_copied_for_little() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.scale = nn.Embedding(500, 64), nn.Parameter(torch.randn(64))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear((self.table(x) * self.scale).relu(), self.table.weight)

    result = foldproof.fuse(Tied().eval(), (torch.arange(4),))
    assert result.rewrites == ()
    assert "128000 more bytes of weights" in result.declined[0].reason


def test_a_fold_past_a_maximum_speaks_of_these_weights_only() -> None:
    """With a negative scale, the folded program would take the smallest: the whole may claim no more than the fold."""
    torch.manual_seed(0)
    model, inputs = chain(
        (2, 6, 8, 8), nn.ReLU, norm, partial(nn.MaxPool2d, 2), nn.Flatten, partial(nn.Linear, 96, 3)
    )()
    with torch.no_grad():
        model[1].weight.abs_()
    result = foldproof.fuse(model, inputs)
    [rewrite] = result.rewrites
    assert rewrite.conditional
    for verdict in (rewrite.verdict, result.verdict):
        assert verdict.kind is Kind.PROVED
        assert str(verdict.claim).startswith("all inputs, for these parameter values, where they make the same choices")


def test_inputs_that_the_program_writes_to_stay_what_they_were() -> None:
    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            x.add_(x)
            return self.linear(self.norm(x))

    program = torch.export.export(Writes().eval(), (torch.randn(4, 6),))
    x = torch.randn(4, 6)
    untouched = x.clone()
    result = foldproof.fuse(program, (x,))
    assert result.verdict.kind is Kind.PROVED
    assert torch.equal(x, untouched)
