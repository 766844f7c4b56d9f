"""Folds that somebody else made are proved for all inputs, and wrong ones are not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import foldproof
from foldproof import Kind


class Net(nn.Module):
    """A convolution and a linear, each with its BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.bn = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.fc, self.bn2 = nn.Linear(8, 4), nn.BatchNorm1d(4)
        for one in (self.bn, self.bn2):
            assert one.running_mean is not None and one.running_var is not None
            one.running_mean.normal_()
            one.running_var.uniform_(0.5, 2)
            nn.init.normal_(one.weight)
            nn.init.normal_(one.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn2(self.fc(self.bn(self.conv(x)).relu().mean((2, 3))))
        return out


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def folded(model: Net) -> nn.Module:
    """Fold both by PyTorch's own functions."""
    out = copy.deepcopy(model)
    out.conv, out.fc = fuse_conv_bn_eval(out.conv, out.bn), fuse_linear_bn_eval(out.fc, out.bn2)  # type: ignore[assignment]
    out.bn = out.bn2 = nn.Identity()  # type: ignore[assignment]
    return out


def by_hand(model: Net) -> Callable[[Tensor], Tensor]:
    """Fold both as in a program without modules, with names of its own."""
    assert model.bn.running_var is not None and model.bn.running_mean is not None
    scale = model.bn.weight / torch.sqrt(model.bn.running_var + model.bn.eps)

    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter((model.conv.weight * scale.view(-1, 1, 1, 1)).detach())
            self.register_buffer("shift", (model.bn.bias - model.bn.running_mean * scale).detach())
            self.fc, self.bn2 = model.fc, model.bn2

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.bn2(self.fc(torch.conv2d(x, self.kernel, self.shift).relu().mean((2, 3))))
            return out

    return Folded().eval()


@pytest.mark.parametrize("fold", [folded, by_hand])
def test_a_right_fold_is_proved(fold: Callable[[Net], nn.Module]) -> None:
    model = Net().eval()
    verdict = foldproof.prove(model, fold(model), (X,))
    assert verdict.kind is Kind.PROVED, verdict
    assert str(verdict.claim).startswith("all inputs, for these parameter values; the second program's new parameters")
    assert any("as a fold of the first program computes them" in note for note in verdict.notes)


class Shifted(Net):
    """A scale and a shift before the linear, which `fuse` folds and other tools leave."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor([1.5])), nn.Parameter(torch.tensor([0.25]))

    def forward(self, x: Tensor) -> Tensor:
        read = self.bn(self.conv(x)).relu().mean((2, 3)) * self.scale + self.shift
        out: Tensor = self.bn2(self.fc(read))
        return out


def test_a_fold_of_normalisations_alone_is_proved() -> None:
    model = Shifted().eval()
    verdict = foldproof.prove(model, folded(model), (X,))
    assert verdict.kind is Kind.PROVED, verdict
    wrong = folded(model)
    with torch.no_grad():
        wrong.get_parameter("fc.weight")[0, 0] += 1
    assert foldproof.prove(model, wrong, (X,)).kind is Kind.REFUTED


def test_exported_programs_and_half_precision() -> None:
    model = Net().eval().to(torch.bfloat16)
    program = torch.export.export(model, (X.bfloat16(),))
    assert foldproof.prove(program, folded(model), (X.bfloat16(),)).kind is Kind.PROVED


def test_a_wrong_fold_is_told() -> None:
    model = Net().eval()
    wrong = folded(model)
    with torch.no_grad():
        wrong.conv.weight[0] *= 1.001
    verdict = foldproof.prove(model, wrong, (X,))
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict
    assert any(note.startswith("conv.weight is near to a fold") for note in verdict.notes), verdict.notes


def test_a_fold_that_is_right_by_chance_is_proved_for_these_values() -> None:
    """One that forgets the shift of a BatchNorm gives the same parameters where the shift is 0."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    verdict = foldproof.prove(model, nn.Sequential(fuse_conv_bn_eval(model[0], model[1])), (X,))
    assert verdict.kind is Kind.PROVED
    assert verdict.claim is not None and not verdict.claim.all_parameters and not verdict.claim.is_general


def test_a_fold_with_another_epsilon_is_not_proved() -> None:
    model = Net().eval()
    other = copy.deepcopy(model)
    other.bn.eps = 1e-3
    verdict = foldproof.prove(model, folded(other), (X,))
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


def test_swapped_biases_are_refuted() -> None:
    model = Net().eval()
    wrong = folded(model)
    with torch.no_grad():
        wrong.fc.bias.copy_(wrong.fc.bias.flip(0))
    assert foldproof.prove(model, wrong, (X,)).kind is Kind.REFUTED


class Affine(nn.Module):
    """A BatchNorm as a scale and a shift, which somebody computed in the shape that broadcasts."""

    def __init__(self, bn: nn.BatchNorm2d, *shape: int, factor: float = 1.0) -> None:
        super().__init__()
        assert bn.running_var is not None and bn.running_mean is not None
        scale = bn.weight / torch.sqrt(bn.running_var + bn.eps) * factor
        self.register_buffer("scale", scale.detach().view(shape))
        self.register_buffer("shift", (bn.bias - bn.running_mean * scale).detach().view(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift  # type: ignore[operator]


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1)])
def test_a_batch_norm_by_itself(shape: tuple[int, ...]) -> None:
    bn = nn.BatchNorm2d(3).eval()
    assert bn.running_var is not None and bn.running_mean is not None
    bn.running_mean.normal_()
    bn.running_var.uniform_(0.5, 2)
    assert foldproof.prove(bn, Affine(bn, *shape), (X,)).kind is Kind.PROVED
    assert foldproof.prove(bn, Affine(bn, *shape, factor=1.001), (X,)).kind is Kind.REFUTED


class Scaled(nn.Module):
    """A function of scaled features."""

    def __init__(self, weight: Tensor, scale: Tensor | None, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.register_buffer("w", weight)
        self.register_buffer("s", scale)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        y = x @ self.w.t()  # type: ignore[operator]
        return self.then(y if self.s is None else y * self.s)  # type: ignore[operator]


def _scaled(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> foldproof.Verdict:
    generator = torch.Generator().manual_seed(0)
    w, s = torch.randn(4, 8, generator=generator), torch.rand(4, generator=generator) + 0.5
    return foldproof.prove(Scaled(w, s, one), Scaled(w * s[:, None], None, other), (X.flatten(1)[:, :8],))


def test_a_fold_and_another_form_of_a_continuous_function() -> None:
    """|x| is made of the signs of x, whose jumps cancel."""
    verdict = _scaled(lambda y: torch.exp(-y.abs()), lambda y: 1 / torch.exp(y.abs()))
    assert verdict.kind is Kind.PROVED, verdict


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda y: y + torch.sign(y).exp(), lambda y: y + 1 / torch.exp(-torch.sign(y))),
        (lambda y: torch.exp(-y.abs()) + (y > 0.5) * 1.0, lambda y: 1 / torch.exp(y.abs()) + (y > 0.5) * 1.0),
        (
            lambda y: torch.exp(-y.abs()) + torch.where(y > 0.5, y, -y),
            lambda y: 1 / torch.exp(y.abs()) + torch.where(y > 0.5, y, -y),
        ),
        (lambda y: torch.floor(y).exp(), lambda y: 1 / torch.exp(-torch.floor(y))),
        (
            lambda y: torch.zeros_like(y).copy_(y > 0.5).exp(),
            lambda y: 1 / torch.exp(-torch.zeros_like(y).copy_(y > 0.5)),
        ),
        (lambda y: F.hardshrink(y, 0.4), lambda y: F.hardshrink(y, 0.4)),
        (lambda y: F.threshold(y, 0.4, 3.0), lambda y: F.threshold(y, 0.4, 3.0)),
        (lambda y: torch.atan2(y, y.roll(1, -1)), lambda y: torch.atan2(y, y.roll(1, -1))),
        (lambda y: torch.copysign(y.exp(), y), lambda y: torch.copysign(y.exp(), y)),
        (lambda y: torch.frexp(y).mantissa, lambda y: torch.frexp(y).mantissa),
        (torch.unique, torch.unique),
        (lambda y: y.angle(), lambda y: y.angle()),
    ],
)
def test_a_fold_before_a_jump_is_not_proved(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor]) -> None:
    """The rounding of the parameter may move an output by a whole step."""
    verdict = _scaled(one, other)
    assert verdict.kind not in (Kind.PROVED, Kind.PROVED_WITHIN), verdict


class Doubled(nn.Module):
    """A linear and its BatchNorm, times a number that is a tensor of the program's own."""

    def __init__(self, linear: nn.Linear, bn: nn.Module, number: float) -> None:
        super().__init__()
        self.linear, self.bn, self.number = linear, bn, number

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.linear(x)) * torch.tensor(self.number)
        return out


def test_a_fold_of_a_number_that_is_no_parameter() -> None:
    net = Net().eval()
    fused = fuse_linear_bn_eval(net.fc, net.bn2)
    with torch.no_grad():
        fused.weight *= 2
        fused.bias *= 2
    x = X.flatten(1)[:, :8]
    before = torch.fx.symbolic_trace(Doubled(net.fc, net.bn2, 2.0))
    assert foldproof.prove(before, fused, (x,)).kind is Kind.PROVED
    other = torch.fx.symbolic_trace(Doubled(net.fc, net.bn2, 2.5))
    assert foldproof.prove(other, fused, (x,)).kind is Kind.REFUTED


class Positions(nn.Module):
    """Adds a projected table of positions, which are whole numbers computed with a tensor of the program's own."""

    def __init__(self, step: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.step = step
        self.register_buffer("places", torch.arange(4))
        self.register_buffer("frequencies", torch.rand(16, generator=generator))
        self.weight = nn.Parameter(torch.randn(16, 8, generator=generator))

    def table(self) -> Tensor:
        places = self.places // torch.tensor(self.step)  # type: ignore[operator]
        return torch.sin(places[:, None] * self.frequencies) @ self.weight

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table()


class Added(nn.Module):
    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table  # type: ignore[operator]


def traced_with_number(model: Positions) -> torch.fx.GraphModule:
    """The graph makes the number at each call, as translations of ONNX files do."""
    tracer = torch.fx.Tracer()
    tracer.proxy_buffer_attributes = True
    graph = tracer.trace(model)
    traced = torch.fx.GraphModule(tracer.root, graph)
    (held,) = (node for node in traced.graph.nodes if node.target == "_tensor_constant0")
    with traced.graph.inserting_before(held):
        held.replace_all_uses_with(traced.graph.call_function(torch.tensor, (model.step,)))
    traced.graph.erase_node(held)
    traced.recompile()
    return traced


def test_a_fold_of_a_whole_number_that_is_no_parameter() -> None:
    model, x = Positions(2), torch.randn(4, 8)
    folded = Added(model.table().detach())
    assert foldproof.prove(traced_with_number(model), folded, (x,)).kind is Kind.PROVED
    for step in (1, 3):
        assert foldproof.prove(traced_with_number(Positions(step)), folded, (x,)).kind is Kind.REFUTED


class Rotary(nn.Module):
    """Rotates halves of features by angles that it computes from frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.rand(4, generator=torch.Generator().manual_seed(0)))

    def angles(self) -> Tensor:
        angles = torch.arange(6.0)[:, None] * self.frequencies  # type: ignore[operator]
        return torch.cat([angles, angles], dim=-1)

    def tables(self) -> tuple[Tensor, Tensor]:
        return self.angles().cos(), self.angles().sin()

    def forward(self, x: Tensor) -> Tensor:
        cos, sin = self.tables()
        return x * cos + torch.cat([-x[..., 4:], x[..., :4]], dim=-1) * sin


class Tabled(Rotary):
    """The same with the tables computed once, in float32."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        cos, sin = super().tables()
        self.register_buffer("cos", cos)
        self.register_buffer("sin", scale * sin)

    def tables(self) -> tuple[Tensor, Tensor]:
        return self.cos, self.sin  # type: ignore[return-value]


def test_tables_that_fuse_would_fold_more_into_are_known() -> None:
    """The sign of the rotated half goes into the table that `fuse` makes."""
    x = torch.randn(2, 6, 8)
    verdict = foldproof.prove(Rotary(), Tabled(), (x,))
    assert verdict.kind in (Kind.PROVED, Kind.PROVED_WITHIN), verdict
    assert foldproof.prove(Rotary(), Tabled(1.001), (x,)).kind is Kind.REFUTED
