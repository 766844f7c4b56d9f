"""Broken rules: whatever is wrong in a rule's algebra or guards, the proof of the region withdraws the fold."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import torch
from fusion_programs import largest_error, norms, run
from torch import Tensor, nn
from torch.fx import Node

import foldproof
from foldproof import Kind
from foldproof.fusion import absorb, affine, expression, rewriter, surgery
from foldproof.fusion.examples import Made, chain, functional
from foldproof.fusion.nodes import aten, set_argument

Make = Callable[[], Made]
Patch = tuple[Any, str, Any]

norm = partial(nn.BatchNorm2d, 3)
conv: Make = chain((2, 3, 7, 8), partial(nn.Conv2d, 3, 3, 3), norm)  # every axis of the weight has size 3
depthwise: Make = chain((2, 3, 7, 8), partial(nn.Conv2d, 3, 3, 3, groups=3), norm)
transposed: Make = chain((2, 3, 7, 8), partial(nn.ConvTranspose2d, 3, 3, 3), norm)
grouped: Make = chain((2, 4, 7, 8), partial(nn.ConvTranspose2d, 4, 4, 3, groups=2), partial(nn.BatchNorm2d, 4))
linear: Make = chain((4, 6), partial(nn.Linear, 6, 6), partial(nn.BatchNorm1d, 6))
linear_3d: Make = chain((2, 6, 6), partial(nn.Linear, 6, 6), partial(nn.BatchNorm1d, 6))
linear_4d: Make = chain((2, 3, 3, 3), partial(nn.Linear, 3, 3), norm)
unbatched: Make = chain((3, 5), partial(nn.Conv1d, 3, 3, 3), partial(nn.BatchNorm1d, 3))
unbatched_transposed: Make = chain((3, 1), partial(nn.ConvTranspose1d, 3, 3, 3), partial(nn.BatchNorm1d, 3))


def square(function: Callable[..., Tensor]) -> Make:
    """A function of the model and its input, then a normalisation; the weight is square."""
    return functional(
        ((6, 6),),
        lambda m, x: m.n(function(m, x)),
        w=lambda: torch.randn(6, 6),
        b=lambda: torch.randn(6),
        n=partial(nn.BatchNorm1d, 6),
    )


addmm = square(lambda m, x: torch.addmm(m.b, x, m.w))
addmm_t = square(lambda m, x: torch.addmm(m.b, x, m.w.t()))
addmm_factors = square(lambda m, x: torch.addmm(m.b, x, m.w, alpha=2, beta=3))
two_readers: Make = functional(
    ((2, 3, 7, 8),), lambda m, x: m.n(y := m.c(x)) + y, c=partial(nn.Conv2d, 3, 3, 3), n=norm
)
also_output: Make = functional(
    ((2, 3, 7, 8),), lambda m, x: (m.n(y := m.c(x)), y), c=partial(nn.Conv2d, 3, 3, 3), n=norm
)


def along(axis: int) -> Callable[[Tensor, Tensor], Tensor]:
    def scale(weight: Tensor, scale: Tensor) -> Tensor:
        shape = [1] * weight.dim()
        shape[axis] = -1
        return weight * scale.reshape(shape)

    return scale


def swapped_groups(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    inputs, outputs, *kernel = weight.shape
    split = weight.reshape(inputs // groups, groups, outputs, *kernel)
    return (split * scale.reshape(1, groups, outputs, *[1] * len(kernel))).reshape(weight.shape)


def swapped_outputs(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    inputs, outputs, *kernel = weight.shape
    split = weight.reshape(groups, inputs // groups, outputs, *kernel)
    return (split * scale.reshape(outputs, groups).t().reshape(groups, 1, outputs, *[1] * len(kernel))).reshape(
        weight.shape
    )


def install_without(role: str) -> Callable[..., None]:
    def install(self: Any, node: Node, new: Mapping[str, Node]) -> None:
        for name in {"weight", "bias"} - {role}:
            set_argument(node, name, new[name])

    return install


def untransposed(self: Any, node: Node, new: Mapping[str, Node]) -> None:
    node.args = (new["bias"], absorb.arguments(node)["mat1"], new["weight"])


def old_factors(self: Any, node: Node, new: Mapping[str, Node]) -> None:
    node.args = (new["bias"], node.args[1], new["weight"])


def no_factors(self: Any, node: Node, new: Mapping[str, Node]) -> None:
    node.args, node.kwargs = (new["bias"], node.args[1], new["weight"]), {}


def any_axis(*_: object) -> None:
    return None


def blind_takes(self: Any, node: Node) -> bool:
    return node.target is aten.conv_transpose2d.input or node.target is aten.conv2d.default


def patch(home: ModuleType | type, name: str, new: Any) -> Patch:
    return home, name, new


Convolution, Linear, Matrix = absorb.Convolution, absorb.Linear, absorb.MatrixProduct

# How a rule is broken, on a model where that matters.
MUTANTS: dict[str, tuple[Make, Patch]] = {
    # batch_norm's scale
    "no eps": (conv, patch(affine, "batch_norm_scale", lambda w, v, e: w * torch.rsqrt(v))),
    "eps outside the root": (conv, patch(affine, "batch_norm_scale", lambda w, v, e: w / (torch.sqrt(v) + e))),
    "eps twice": (conv, patch(affine, "batch_norm_scale", lambda w, v, e: w * torch.rsqrt(v + e + e))),
    "eps subtracted": (conv, patch(affine, "batch_norm_scale", lambda w, v, e: w * torch.rsqrt(v - e))),
    "no root": (conv, patch(affine, "batch_norm_scale", lambda w, v, e: w / (v + e))),
    "root, not its inverse": (conv, patch(affine, "batch_norm_scale", lambda w, v, e: w * torch.sqrt(v + e))),
    "no gamma": (conv, patch(affine, "batch_norm_scale", lambda w, v, e: torch.rsqrt(v + e))),
    "gamma twice": (conv, patch(affine, "batch_norm_scale", lambda w, v, e: w * w * torch.rsqrt(v + e))),
    "gamma without sign": (conv, patch(affine, "batch_norm_scale", lambda w, v, e: w.abs() * torch.rsqrt(v + e))),
    "channels reversed": (conv, patch(affine, "batch_norm_scale", lambda w, v, e: (w * torch.rsqrt(v + e)).flip(0))),
    "a scale of all channels": (
        conv,
        patch(affine, "batch_norm_scale", lambda w, v, e: (w * (v + e)).mean().expand(3)),
    ),
    # its shift
    "mean added": (conv, patch(affine, "batch_norm_shift", lambda b, m, s: b + m * s)),
    "mean not scaled": (conv, patch(affine, "batch_norm_shift", lambda b, m, s: b - m)),
    "no mean": (conv, patch(affine, "batch_norm_shift", lambda b, m, s: b + 0 * s)),
    "no beta": (conv, patch(affine, "batch_norm_shift", lambda b, m, s: -m * s)),
    "beta scaled": (conv, patch(affine, "batch_norm_shift", lambda b, m, s: (b - m) * s)),
    "beta subtracted": (conv, patch(affine, "batch_norm_shift", lambda b, m, s: -b - m * s)),
    "mean divided": (conv, patch(affine, "batch_norm_shift", lambda b, m, s: b - m / s)),
    # weights
    "weight not scaled": (conv, patch(absorb, "scale_rows", lambda w, s: w * 1)),
    "weight divided": (conv, patch(absorb, "scale_rows", lambda w, s: w / s.reshape(-1, 1, 1, 1))),
    "weight scaled twice": (conv, patch(absorb, "scale_rows", lambda w, s: w * s.square().reshape(-1, 1, 1, 1))),
    "weight shifted": (conv, patch(absorb, "scale_rows", lambda w, s: w + s.reshape(-1, 1, 1, 1))),
    "input channels scaled": (conv, patch(absorb, "scale_rows", along(1))),
    "rows of the kernel scaled": (conv, patch(absorb, "scale_rows", along(2))),
    "columns of the kernel scaled": (conv, patch(absorb, "scale_rows", along(3))),
    "columns of a depthwise kernel scaled": (depthwise, patch(absorb, "scale_rows", along(3))),
    "input features scaled": (linear, patch(absorb, "scale_rows", along(1))),
    "transposed as if it were not": (transposed, patch(absorb, "scale_transposed", lambda w, s, g: along(0)(w, s))),
    "transposed, rows of the kernel": (transposed, patch(absorb, "scale_transposed", lambda w, s, g: along(2)(w, s))),
    "transposed, groups ignored": (grouped, patch(absorb, "scale_transposed", lambda w, s, g: along(1)(w, s[:2]))),
    "transposed, groups as rows": (grouped, patch(absorb, "scale_transposed", lambda w, s, g: along(0)(w, s))),
    "transposed, groups of inputs swapped": (grouped, patch(absorb, "scale_transposed", swapped_groups)),
    "transposed, groups of outputs swapped": (grouped, patch(absorb, "scale_transposed", swapped_outputs)),
    "taken for a convolution": (transposed, patch(Convolution, "takes", blind_takes)),
    "matrix scaled along rows": (addmm, patch(absorb, "scale_columns", along(0))),
    "transposed matrix scaled along columns": (addmm_t, patch(absorb, "scale_rows", along(1))),
    # biases
    "bias not scaled": (conv, patch(absorb, "scale_and_shift", lambda b, a, c, f: b + c)),
    "bias not shifted": (conv, patch(absorb, "scale_and_shift", lambda b, a, c, f: b * a)),
    "bias dropped": (conv, patch(absorb, "scale_and_shift", lambda b, a, c, f: c * 1)),
    "bias kept": (conv, patch(absorb, "scale_and_shift", lambda b, a, c, f: b * 1)),
    "shift scaled": (conv, patch(absorb, "scale_and_shift", lambda b, a, c, f: (b + c) * a)),
    "shift subtracted": (conv, patch(absorb, "scale_and_shift", lambda b, a, c, f: b * a - c)),
    "bias divided": (conv, patch(absorb, "scale_and_shift", lambda b, a, c, f: b / a + c)),
    "linear's bias not scaled": (linear, patch(absorb, "scale_and_shift", lambda b, a, c, f: b + c)),
    "beta ignored": (addmm_factors, patch(absorb, "scale_and_shift", lambda b, a, c, f: b * a + c)),
    "beta on the shift": (addmm_factors, patch(absorb, "scale_and_shift", lambda b, a, c, f: (b * a + c) * f)),
    # installing
    "old weight kept": (conv, patch(Convolution, "install", install_without("weight"))),
    "old bias kept": (conv, patch(Convolution, "install", install_without("bias"))),
    "linear's old weight kept": (linear, patch(Linear, "install", install_without("weight"))),
    "transposition lost": (addmm_t, patch(Matrix, "install", untransposed)),
    "alpha and beta kept": (addmm_factors, patch(Matrix, "install", old_factors)),
    "alpha lost": (addmm_factors, patch(Matrix, "install", no_factors)),
    # guards: this one missing is the mistake of torchao before #4242
    "axis of a 3-D linear": (linear_3d, patch(absorb, "_require_axis", any_axis)),
    "axis of a 4-D linear": (linear_4d, patch(absorb, "_require_axis", any_axis)),
    "axis without a batch": (unbatched, patch(absorb, "_require_axis", any_axis)),
    "axis without a batch, transposed": (unbatched_transposed, patch(absorb, "_require_axis", any_axis)),
    "two readers": (two_readers, patch(rewriter, "_require_one_reader", any_axis)),
    "an output": (also_output, patch(rewriter, "_require_one_reader", any_axis)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_is_withdrawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, (home, attribute, broken) = MUTANTS[name]
    model, inputs = make()
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.eps = 0.125  # 1e-5 would hide in rounding
                part.weight[0] = -2
    program = torch.export.export(model, inputs)
    monkeypatch.setattr(home, attribute, broken)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trusting = foldproof.fuse(program, inputs, prove=False)
        result = foldproof.fuse(program, inputs)
    truth = run(program, inputs)
    assert largest_error(truth, run(trusting.program, inputs)) > 1e-3, "the mutant does no harm"
    assert result.rewrites == ()
    assert "was withdrawn" in result.declined[0].reason
    assert norms(result.program) == norms(program)
    assert all(torch.equal(a, b) for a, b in zip(truth, run(result.program, inputs), strict=True))


def test_constants_that_are_not_what_was_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof is about expressions; it also ties the tensors that the program holds to them."""
    model, inputs = conv()

    def careless(e: expression.Expression, parameters: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        return expression.rounded(e, parameters, dtype) * 1.01

    monkeypatch.setattr(surgery, "rounded", careless)
    result = foldproof.fuse(model, inputs)
    assert result.rewrites == () or result.verdict.kind is Kind.REFUTED


def test_constants_that_are_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions can't see that two folds were given the same constant; the whole program can."""
    model, inputs = functional(
        ((2, 3, 7, 8),), lambda m, x: m.n(m.c(x)) * m.o(m.c(x)), c=partial(nn.Conv2d, 3, 3, 3), n=norm, o=norm
    )()
    with torch.no_grad():
        model.o.weight.mul_(2)
    monkeypatch.setattr(surgery.Surgery, "_free_name", lambda self, base: f"{base}_folded")
    result = foldproof.fuse(model, inputs)
    assert {rewrite.verdict.kind for rewrite in result.rewrites} == {Kind.PROVED}
    assert result.verdict.kind is Kind.REFUTED
