"""Difficult cases: each is folded correctly, or declined with a reason."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from fusion_programs import FORMS, largest_error, norms, run
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

import foldproof
from foldproof import Kind
from foldproof.fusion import FuseResult
from foldproof.fusion.examples import chain, made

conv, norm = partial(nn.Conv2d, 3, 6, 3), partial(nn.BatchNorm2d, 6)
IMAGE = (2, 3, 7, 8)


def conv_bn() -> tuple[nn.Sequential, tuple[Tensor, ...]]:
    model, inputs = chain(IMAGE, conv, norm)()
    assert isinstance(model, nn.Sequential)
    return model, inputs


def fuse(model: nn.Module, inputs: tuple[Any, ...], **options: Any) -> tuple[ExportedProgram, FuseResult]:
    program = torch.export.export(model, inputs, **options)
    return program, foldproof.fuse(program, inputs)


def assert_folded(program: ExportedProgram, result: FuseResult, inputs: tuple[Any, ...], tolerance: float) -> None:
    assert not result.declined and not norms(result.program)
    assert {rewrite.verdict.kind for rewrite in result.rewrites} == {Kind.PROVED}
    assert result.verdict.kind is Kind.PROVED, result.verdict
    assert largest_error(run(program, inputs), run(result.program, inputs)) < tolerance


def reasons(result: FuseResult) -> list[str]:
    return [declined.reason for declined in result.declined]


class TestForms:
    def test_partly_decomposed(self) -> None:
        model, inputs = made(
            nn.Sequential(conv(), norm(), nn.Flatten(), nn.Linear(6 * 5 * 6, 4), nn.BatchNorm1d(4)), IMAGE
        )
        program = FORMS["partly decomposed"](torch.export.export(model, inputs))
        result = foldproof.fuse(program, inputs)
        assert len(result.rewrites) == 2
        assert_folded(program, result, inputs, 2e-6)

    @pytest.mark.parametrize("model_format", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("input_format", [torch.contiguous_format, torch.channels_last])
    def test_memory_formats(self, model_format: torch.memory_format, input_format: torch.memory_format) -> None:
        model, (x,) = conv_bn()
        inputs = (x.to(memory_format=input_format),)
        program, result = fuse(model.to(memory_format=model_format), inputs)
        assert_folded(program, result, inputs, 2e-6)
        weight = result.program.state_dict["0.weight_folded"]
        assert weight.is_contiguous(memory_format=model_format)
        [placeholder] = [n for n in result.program.graph.nodes if n.name == "p_0_weight_folded"]
        assert placeholder.meta["val"].stride() == weight.stride()

    def test_weight_that_is_a_view_of_another(self) -> None:
        model, inputs = conv_bn()
        store = torch.randn(3, 3, 3, 12)  # every second channel, and transposed
        model[0].weight = nn.Parameter(store.permute(3, 0, 1, 2)[::2])
        program, result = fuse(model, inputs)
        assert_folded(program, result, inputs, 2e-6)

    def test_keyword_arguments(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.norm = conv(), norm(eps=0.25)

            def forward(self, x: Tensor) -> Tensor:
                n = self.norm
                y = torch.conv2d(input=x, weight=self.conv.weight, bias=self.conv.bias, stride=2)
                return torch.nn.functional.batch_norm(
                    input=y,
                    running_mean=n.running_mean,
                    running_var=n.running_var,
                    bias=n.bias,
                    weight=n.weight,
                    eps=n.eps,
                    training=False,
                )

        model, inputs = made(Model(), IMAGE)
        program = torch.export.export(model, inputs)
        # torch.export writes positions; other tools write names.
        for node in program.graph.nodes:
            if node.op == "call_function":
                names = [argument.name for argument in node.target._schema.arguments]
                node.kwargs = dict(zip(names[1:], node.args[1:]))
                node.args = node.args[:1]
        program.graph_module.recompile()
        result = foldproof.fuse(program, inputs)
        assert_folded(program, result, inputs, 2e-6)


class TestShapes:
    @pytest.mark.parametrize("batch", [0, 1])
    def test_batch_of_zero_or_one(self, batch: int) -> None:
        model, inputs = chain((batch, *IMAGE[1:]), conv, norm)()
        program, result = fuse(model, inputs)
        assert not norms(result.program)
        assert [rewrite.verdict.kind for rewrite in result.rewrites] == [Kind.PROVED]
        assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6

    def test_dynamic_batch_and_size(self) -> None:
        model, inputs = conv_bn()
        program, result = fuse(model, inputs, dynamic_shapes=(dict.fromkeys((0, 2, 3), Dim.DYNAMIC),))
        assert_folded(program, result, inputs, 2e-6)
        for shape in ((5, 3, 9, 11), (2, 3, 30, 4)):
            other = (torch.randn(shape),)
            assert largest_error(run(program, other), run(result.program, other)) < 2e-6
        assert result.program.range_constraints == program.range_constraints

    def test_size_that_depends_on_the_data(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear, self.norm = nn.Linear(3, 6), nn.BatchNorm1d(6)

            def forward(self, x: Tensor) -> Tensor:
                kept = x[x.sum(1) > 0]
                torch._check(kept.shape[0] > 1)
                return self.norm(self.linear(kept))

        model, inputs = made(Model(), (8, 3))
        program, result = fuse(model, inputs)
        assert [rewrite.verdict.kind for rewrite in result.rewrites] == [Kind.PROVED]
        assert largest_error(run(program, inputs), run(result.program, inputs)) < 2e-6

    def test_reader_of_the_shape_is_no_reader(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.norm = conv(), norm()

            def forward(self, x: Tensor) -> Tensor:
                y = self.conv(x)
                return self.norm(y) * y.shape[2]

        model, inputs = made(Model(), IMAGE)
        program, result = fuse(model, inputs, dynamic_shapes=({2: Dim.DYNAMIC},))
        assert "sym_size" in str(program.graph)
        assert_folded(program, result, inputs, 2e-6)


class TestNumbers:
    """Statistics as of trained networks, which vary more than random ones."""

    @pytest.mark.parametrize(
        ("variance", "scale"), [(0.0, 1.0), (5e-45, -1.0), (1e10, 1.0), (1.0, 0.0), (1e-12, -1900.0), (1.0, -1.0)]
    )
    def test_extreme_statistics(self, variance: float, scale: float) -> None:
        model, inputs = conv_bn()
        with torch.no_grad():
            model[1].running_var[::2] = variance
            model[1].weight[::2] = scale
        program, result = fuse(model, inputs)
        assert_folded(program, result, inputs, 2e-6)

    def test_weights_are_rounded_once(self) -> None:
        model, inputs = conv_bn()
        _, result = fuse(model, inputs)
        convolution, normalisation = model[0].double(), model[1].double()
        scale = normalisation.weight / (normalisation.running_var + normalisation.eps).sqrt()
        weight = (convolution.weight * scale[:, None, None, None]).float()
        bias = (convolution.bias * scale + normalisation.bias - normalisation.running_mean * scale).float()
        # Two ways of writing it in float64 differ by less than rounding to float32 shows, but for rare ties.
        folded = result.program.state_dict
        for name, expected in (("0.weight_folded", weight), ("0.bias_folded", bias)):
            assert (folded[name] != expected).float().mean() < 0.01
            torch.testing.assert_close(folded[name], expected, rtol=1.2e-7, atol=0)

    def test_infinite_scale_is_declined(self) -> None:
        model, inputs = conv_bn()
        model[1].eps = 0.0
        model[1].running_var[0] = 0
        _, result = fuse(model, inputs)
        assert reasons(result) == [
            "the folded 0.weight would not be finite in float32: a variance + eps is 0 or negative, or a scale is too"
            " large"
        ]

    def test_overflow_of_the_dtype_is_declined(self) -> None:
        model, (x,) = conv_bn()
        with torch.no_grad():
            model[1].weight.fill_(60000.0)
            model[0].weight.fill_(60000.0)
        _, result = fuse(model.half(), (x.half(),))
        assert ["not be finite in float16" in reason for reason in reasons(result)] == [True]


class TestDtypes:
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
    @pytest.mark.parametrize("mixed", [False, True])
    def test_half_weights(self, dtype: torch.dtype, tolerance: float, mixed: bool) -> None:
        """Also with a float32 normalisation of half values, whose result is half."""
        model, (x,) = conv_bn()
        model[0].to(dtype)
        if not mixed:
            model[1].to(dtype)
        program, result = fuse(model, (x.to(dtype),))
        assert_folded(program, result, (x.to(dtype),), tolerance)
        assert {t.dtype for t in result.program.state_dict.values()} == {dtype}

    def test_a_normalisation_that_changes_the_dtype_is_declined(self) -> None:
        """Metadata that eager code can't produce, but a rewrite by other tools may leave."""
        model, inputs = conv_bn()
        program = torch.export.export(model, inputs)
        [node] = [n for n in program.graph.nodes if n.name == "batch_norm"]
        node.meta["val"] = node.meta["val"].double()
        result = foldproof.fuse(program, inputs)
        assert reasons(result) == ["it converts torch.float32 to torch.float64, so the dtype would change without it"]


class TestSharing:
    def test_one_copy_where_convolution_and_normalisation_are_called_twice(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.norm = conv(), norm()

            def forward(self, x: Tensor) -> Tensor:
                return self.norm(self.conv(x)) * self.norm(self.conv(x.relu()))

        model, inputs = made(Model(), IMAGE)
        program, result = fuse(model, inputs)
        assert_folded(program, result, inputs, 2e-6)
        assert list(result.program.state_dict) == ["conv.weight_folded", "conv.bias_folded"]

    def test_own_copies_where_the_normalisations_differ(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.one, self.two = conv(), norm(), norm()

            def forward(self, x: Tensor) -> Tensor:
                return self.one(self.conv(x)) * self.two(self.conv(x)) * self.conv(x)

        model, inputs = made(Model(), IMAGE)
        with torch.no_grad():
            model.two.weight.mul_(3)
        program, result = fuse(model, inputs)
        assert_folded(program, result, inputs, 2e-6)
        assert sorted(result.program.state_dict) == [
            "conv.bias",
            "conv.bias_folded",
            "conv.bias_folded_1",
            "conv.weight",
            "conv.weight_folded",
            "conv.weight_folded_1",
        ]
        assert result.program.state_dict["conv.weight"] is program.state_dict["conv.weight"]

    def test_tied_bias(self) -> None:
        model, inputs = made(nn.Sequential(conv(), norm(), nn.Conv2d(6, 6, 1)), IMAGE)
        model[2].bias = model[0].bias
        program, result = fuse(model, inputs)
        assert_folded(program, result, inputs, 2e-6)

    def test_bias_that_is_the_normalisations_own(self) -> None:
        model, inputs = conv_bn()
        model[1].bias = model[0].bias
        model[1].running_mean = model[0].bias.detach()
        program, result = fuse(model, inputs)
        assert_folded(program, result, inputs, 2e-6)

    def test_weight_that_is_also_the_bias(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.weight, self.norm = nn.Parameter(torch.randn(6, 6)), nn.BatchNorm1d(6)

            def forward(self, x: Tensor) -> Tensor:
                return self.norm(torch.addmm(self.weight, x, self.weight))

        model, inputs = made(Model(), (6, 6))
        program, result = fuse(model, inputs)
        assert_folded(program, result, inputs, 2e-6)
        assert len({t.data_ptr() for t in result.program.state_dict.values()}) == 2


class Changing(nn.Module):
    """A convolution and a normalisation, and a way to change one of their tensors after they are used."""

    def __init__(self, change: str) -> None:
        super().__init__()
        self.conv, self.norm, self.change = conv(), norm(), change
        weight = self.conv.weight.detach()
        del self.conv.weight
        self.conv.register_buffer("weight", weight)
        if "shared" in change:
            self.conv.register_buffer("part", weight[0, 0])

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        match self.change:
            case "statistic":
                self.norm.running_mean.add_(1)
            case "view of the weight":
                self.conv.weight.view(-1)[:3].mul_(2)
            case "memory shared with the weight":
                self.conv.part.add_(1)
            case "statistic, by another normalisation":
                n = self.norm
                y = y + nn.functional.batch_norm(self.conv(x), n.running_mean, n.running_var, training=True)
        return y


class TestChanges:
    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ("statistic", "running mean, norm.running_mean, is written to by add_"),
            ("view of the weight", "weight of conv2d, conv.weight, is written to by mul_"),
            ("memory shared with the weight", "conv.weight, shares memory with a tensor that the program writes to"),
            ("statistic, by another normalisation", "norm.running_mean, is written to by batch_norm_1"),
        ],
    )
    @pytest.mark.parametrize("form", ["training IR", "core ATen"])
    def test_what_the_program_changes_is_not_constant(self, change: str, reason: str, form: str) -> None:
        model, inputs = made(Changing(change), IMAGE)
        program = torch.export.export(model, inputs)
        if form == "core ATen":
            if "shared" in change:
                return  # PyTorch 2.13 can't decompose it
            program, reason = program.run_decompositions(), "is updated by the program"
        result = foldproof.fuse(program, inputs, prove=False)
        assert result.rewrites == ()
        assert reason in result.declined[0].reason
        # They run side by side without touching each other's buffers.
        for _ in range(2):
            for a, b in zip(run(program, inputs), run(result.program, inputs), strict=True):
                assert torch.equal(a, b)

    def test_input_changed_between_the_two_operators(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.norm = conv(), norm()

            def forward(self, x: Tensor) -> Tensor:
                y = self.conv(x * 1)
                x = x * 1
                z = self.conv(x)
                x.add_(1)
                return self.norm(z) + y + x.sum()

        model, inputs = made(Model(), IMAGE)
        program, result = fuse(model, inputs)
        assert_folded(program, result, inputs, 2e-6)


class TestSubgraphs:
    def test_are_left_whole_and_reported(self) -> None:
        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.norm = conv(), norm()

            def forward(self, x: Tensor) -> Tensor:
                y = self.norm(self.conv(x))
                return torch.cond(
                    y.sum() > 0,
                    lambda x: self.norm(self.conv(x)).sum((1, 2, 3), keepdim=True),
                    lambda x: x.sum((1, 2, 3), keepdim=True),
                    (x,),
                )

        model, inputs = made(Model().requires_grad_(False), IMAGE)
        program = torch.export.export(model, inputs)
        result = foldproof.fuse(program, inputs, prove=False)
        assert [rewrite.nodes for rewrite in result.rewrites] == [("conv2d", "batch_norm")]
        assert [declined.node for declined in result.declined] == ["true_graph_0.batch_norm"]
        assert "inside the subgraph true_graph_0" in result.declined[0].reason
        for sign in (1, -1):
            other = (sign * inputs[0],)
            assert largest_error(run(program, other), run(result.program, other)) < 2e-6
        assert result.program.graph_module.true_graph_0 is not program.graph_module.true_graph_0

    def test_of_a_loop(self) -> None:
        """The data decides the number of iterations: folds before the loop are made, those inside are reported."""
        from torch._higher_order_ops.while_loop import while_loop

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv, self.norm = conv(), norm()
                self.inner, self.inner_norm = nn.Conv2d(6, 6, 1), norm()

            def forward(self, x: Tensor) -> Tensor:
                def again(i: Tensor, y: Tensor) -> Tensor:
                    return i < 3

                def body(i: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
                    return i + 1, self.inner_norm(self.inner(y))

                return while_loop(again, body, (torch.tensor(0), self.norm(self.conv(x))))[1]

        model, inputs = made(Model().requires_grad_(False), IMAGE)
        program = torch.export.export(model, inputs)
        result = foldproof.fuse(program, inputs, prove=False)
        assert [rewrite.nodes for rewrite in result.rewrites] == [("conv2d", "batch_norm")]
        [declined] = result.declined
        assert "inside the subgraph while_loop_body_graph_0" in declined.reason
        assert largest_error(run(program, inputs), run(result.program, inputs)) < 1e-5
        assert foldproof.prove(program, result.program, inputs).kind is foldproof.Kind.PROVED
        assert foldproof.fuse(program, inputs).verdict.kind is foldproof.Kind.PROVED
