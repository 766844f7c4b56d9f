"""Products with constants, tables and normalisations that absorb with the wrong constants, or what they should not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from foldproof.fusion.absorb import embedding, matrix, norm, rule
from foldproof.fusion.absorb.embedding import Embedding, EmbeddingBag
from foldproof.fusion.absorb.matrix import Einsum, Linear, MatrixProduct, _Matrix
from foldproof.fusion.absorb.norm import OwnAffine
from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Example, chain, functional
from foldproof.rewriting.expression import Expression
from mutants.convolutions import told
from mutants.mutant import (
    Mutant,
    Patch,
    along,
    around,
    decomposed,
    exported,
    flipped,
    mutant,
    nothing,
    patch,
    turned,
    unscaled,
    unshifted,
)

_norm = partial(nn.BatchNorm1d, 6)
_vector, _matrix = partial(torch.randn, 6), partial(torch.randn, 6, 6)


def _square(function: Callable[..., Tensor], *shape: int, **parts: Any) -> Callable[[], Example]:
    """A function of the model and its input; all sizes are 6."""
    given = {"w": _matrix, "b": _vector, "k": _vector, "n": _norm} | parts
    return functional((shape or (6, 6),), function, **given)


linear = exported(chain((6, 6), partial(nn.Linear, 6, 6), _norm))
linear_without_bias = exported(chain((6, 6), partial(nn.Linear, 6, 6, bias=False), _norm))
linear_before = exported(chain((6, 6), _norm, partial(nn.Linear, 6, 6)))
linear_3d = exported(chain((2, 6, 6), partial(nn.Linear, 6, 6), _norm))
linear_4d = exported(chain((2, 3, 3, 3), partial(nn.Linear, 3, 3), partial(nn.BatchNorm2d, 3)))
linear_3d_before = exported(chain((2, 6, 6), _norm, partial(nn.Linear, 6, 6)))
addmm = exported(_square(lambda m, x: m.n(torch.addmm(m.b, x, m.w))))
addmm_t = exported(_square(lambda m, x: m.n(torch.addmm(m.b, x, m.w.t()))))
addmm_factors = exported(_square(lambda m, x: m.n(torch.addmm(m.b, x, m.w, alpha=2, beta=3))))
addmm_factors_before = exported(_square(lambda m, x: torch.addmm(m.b, m.n(x), m.w, alpha=2, beta=3)))
addmm_scaled_bias = exported(
    functional(((6,), (6, 6)), lambda m, b, x: torch.addmm(b * m.k, x, m.w), w=_matrix, k=_vector)
)
core_linear = decomposed(linear)
mm = exported(_square(lambda m, x: m.n(torch.mm(x, m.w))))
mm_before = exported(_square(lambda m, x: torch.mm(m.n(x), m.w)))
matmul = exported(_square(lambda m, x: torch.matmul(x, m.w) * m.k + m.b, 2, 6, 6))
matmul_before = exported(_square(lambda m, x: torch.matmul((x + m.b) * m.k, m.w), 2, 6, 6))
matmul_rows = exported(_square(lambda m, x: torch.matmul(x, m.w) * m.k.view(6, 1), 2, 6, 6))
left = exported(_square(lambda m, x: torch.matmul(m.w, x) * m.k.view(6, 1), 2, 6, 6))
left_before = exported(_square(lambda m, x: torch.matmul(m.w, x * m.k.view(6, 1)), 2, 6, 6))
left_columns = exported(_square(lambda m, x: torch.matmul(m.w, x) * m.k, 2, 6, 6))
left_shifted = exported(_square(lambda m, x: torch.matmul(m.w, x) * m.k.view(6, 1) + m.b.view(6, 1), 2, 6, 6))
bmm = exported(
    _square(
        lambda m, x: torch.bmm(x, m.v) * m.j + m.b,
        2,
        6,
        6,
        v=partial(torch.randn, 2, 6, 6),
        j=partial(torch.randn, 2, 1, 6),
    )
)
baddbmm = exported(
    _square(
        lambda m, x: torch.baddbmm(m.b, x, m.v, alpha=2, beta=3) * m.k + m.k, 2, 6, 6, v=partial(torch.randn, 2, 6, 6)
    )
)
einsum = exported(_square(lambda m, x: torch.einsum("bik,kn->bin", x, m.w) * m.k, 2, 6, 6))
einsum_turned = exported(_square(lambda m, x: torch.einsum("nk,bik->bni", m.w, x) * m.k.view(6, 1), 2, 6, 6))
einsum_before = exported(_square(lambda m, x: torch.einsum("nk,bik->bni", m.w, x * m.k), 2, 6, 6))
einsum_other_axis = exported(_square(lambda m, x: torch.einsum("bik,kn->bin", x, m.w) * m.k.view(6, 1), 2, 6, 6))
einsum_shifted = exported(_square(lambda m, x: torch.einsum("bik,kn->bin", x, m.w) * m.k + m.b, 2, 6, 6))
table = exported(
    functional(
        ((2, 6),), lambda m, x: m.e(x.abs().long()) * m.k + m.b, e=partial(nn.Embedding, 6, 6), k=_vector, b=_vector
    )
)
bag = exported(_square(lambda m, x: m.e(x.abs().long()) * m.k, 6, 6, e=partial(nn.EmbeddingBag, 6, 6)))
bag_of_largest = exported(
    _square(lambda m, x: m.e(x.abs().long()) * -m.k.abs(), 6, 6, e=partial(nn.EmbeddingBag, 6, 6, mode="max"))
)
bag_shifted = exported(
    _square(
        lambda m, x: m.e(x.abs().long(), torch.tensor([0, 2, 2, 5])) * m.k + m.b,
        6,
        e=partial(nn.EmbeddingBag, 6, 6, mode="sum"),
    )
)
table_of_positions = exported(
    functional(((2, 6),), lambda m, x: m.n(m.e(x.abs().long())), e=partial(nn.Embedding, 6, 6), n=_norm)
)


def _normalised(function: Callable[..., Tensor], *shape: int, **parts: Any) -> Callable[[], Example]:
    """A normalisation with an affine of its own that does something, and an affine."""

    def make() -> Example:
        model, inputs = functional((shape,), function, k=_vector, b=_vector, n=_norm, **parts)()
        with torch.no_grad():
            model.l.weight.normal_()
            if getattr(model.l, "bias", None) is not None:
                model.l.bias.normal_()
        return model, inputs

    return make


layer_norm = exported(_normalised(lambda m, x: m.l(x) * m.k + m.b, 2, 6, 6, l=partial(nn.LayerNorm, 6)))
layer_norm_tokens = exported(_normalised(lambda m, x: m.n(m.l(x)), 2, 6, 6, l=partial(nn.LayerNorm, 6)))
layer_norm_of_two = exported(
    _normalised(lambda m, x: m.l(x) * m.k.view(6, 1) + m.b, 2, 6, 6, l=partial(nn.LayerNorm, (6, 6)))
)
group_norm = exported(_normalised(lambda m, x: m.n(m.l(x)), 2, 6, 6, l=partial(nn.GroupNorm, 2, 6)))
group_norm_places = exported(_normalised(lambda m, x: m.l(x) * m.k, 2, 6, 6, l=partial(nn.GroupNorm, 2, 6)))
rms_norm = exported(_normalised(lambda m, x: m.l(x) * m.k, 2, 6, 6, l=partial(nn.RMSNorm, 6)))
rms_norm_shifted = exported(_normalised(lambda m, x: m.l(x) * m.k + m.b, 2, 6, 6, l=partial(nn.RMSNorm, 6)))
normed_before = exported(
    functional(((2, 6, 6),), lambda m, x: m.l(x * m.k), l=partial(nn.LayerNorm, 6), k=lambda: torch.rand(6) + 0.5)
)


def bias(home: Any, wrong: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Patch:
    """Another bias than scale·bias + shift, where there are all three."""

    def moved(original: Any, b: Any, scale: Any, shift: Any, factor: float = 1) -> Any:
        if b is None or scale is None or shift is None:
            return original(b, scale, shift, factor)
        return Expression(wrong, (original(b, None, None, factor) or b, scale, shift))

    return around(home, "move_bias", moved)


def beta_is(value: float) -> Patch:
    return around(matrix, "move_bias", lambda original, b, scale, shift, factor=1: original(b, scale, shift, value))


def beta_on_all(original: Any, b: Any, scale: Any, shift: Any, factor: float = 1) -> Any:
    return Expression(rule.multiply, (original(b, scale, shift), factor))


def scaled_matrix(wrong: Callable[[Tensor], Tensor]) -> Patch:
    """The matrix is changed before it is scaled."""
    return around(matrix, "product", lambda original, w, scale: original(Expression(wrong, (w,)), scale))


def of_matrix(wrong: Callable[[Affine], Affine]) -> Patch:
    """A matrix is scaled by another affine."""
    return around(_Matrix, "tensors", lambda original, self, affine, *a: original(self, wrong(affine), *a))


def installs_linear(*roles: str) -> Patch:
    return around(Linear, "install", lambda original, node, new: original(node, {r: new[r] for r in roles if r in new}))


def forgets(name: str) -> Patch:
    """An argument is lost when the constants are put in place."""

    def install(original: Any, self: MatrixProduct, node: Node, new: Any) -> None:
        original(self, node, new)
        node.kwargs = {key: value for key, value in node.kwargs.items() if key != name}

    return around(MatrixProduct, "install", install)


def keeps(original: Any, self: MatrixProduct, node: Node, new: Any) -> None:
    """Alpha and beta stay what they were."""
    kwargs = node.kwargs
    original(self, node, new)
    node.kwargs = kwargs


def as_left(original: Any, self: _Matrix, *arguments: Any) -> None:
    original(self, *arguments)
    self.is_left = not self.is_left


def letters(wrong: Callable[[str], str]) -> Patch:
    """The axes of what is scaled have other letters."""
    return around(
        Einsum,
        "_absorb",
        lambda original, self, node, affine, given, *a: original(self, node, affine, wrong(given), *a),
    )


def to_the_last(affine: Affine) -> Affine:
    return replace(affine, channels=affine.channels.reshape([1] * (affine.channels.dim() - 1) + [-1]))


def to_the_second(affine: Affine) -> Affine:
    return replace(affine, channels=affine.channels.reshape([1, -1] + [1] * (affine.channels.dim() - 2)))


MUTANTS: dict[str, Mutant] = {
    # linear
    "input features scaled": mutant(linear, patch(matrix, "scale_rows", along(1))),
    "features not scaled": mutant(linear, patch(matrix, "scale_rows", lambda w, s: w * 1)),
    "features divided": mutant(linear, patch(matrix, "scale_rows", lambda w, s: w / s.reshape(-1, 1))),
    "features in reverse": mutant(linear, patch(matrix, "scale_rows", lambda w, s: along(0)(w, s.flip(0)))),
    "linear's weight transposed": mutant(linear, patch(matrix, "scale_rows", lambda w, s: along(0)(w.t(), s))),
    "linear's bias not scaled": mutant(linear, bias(matrix, lambda b, a, c: b + c)),
    "linear's bias not shifted": mutant(linear, bias(matrix, lambda b, a, c: b * a)),
    "linear's shift scaled": mutant(linear, bias(matrix, lambda b, a, c: (b + c) * a)),
    "no bias where there was none": mutant(linear_without_bias, patch(matrix, "remake_bias", lambda *a: ())),
    "linear's old weight kept": mutant(linear, installs_linear("bias")),
    "linear's old bias kept": mutant(linear, installs_linear("weight")),
    "output features scaled by the input": mutant(linear_before, patch(matrix, "scale_columns", along(0))),
    "input features not scaled": mutant(linear_before, patch(matrix, "scale_columns", lambda w, s: w * 1)),
    "input features in reverse": mutant(linear_before, patch(matrix, "scale_columns", lambda w, s: w * s.flip(0))),
    "shift summed over outputs": mutant(linear_before, patch(matrix, "applied", lambda w, t: (w * t).sum(0))),
    "shift of outputs": mutant(linear_before, patch(matrix, "applied", lambda w, t: (w.t() * t).sum(0))),
    "shift averaged": mutant(linear_before, patch(matrix, "applied", lambda w, t: (w * t).mean(-1))),
    "shift not multiplied": mutant(linear_before, patch(matrix, "applied", lambda w, t: t * 1)),
    "shift of the input lost": mutant(linear_before, told(Linear, "input", unshifted)),
    "scale of the input lost": mutant(linear_before, told(Linear, "input", unscaled)),
    "linear's bias lost": mutant(linear_before, patch(matrix, "total", lambda a, b: b)),
    # This guard missing is the mistake of torchao before #4242.
    "axis of a 3-D linear": mutant(linear_3d, told(Linear, "output", to_the_last)),
    "axis of a 4-D linear": mutant(linear_4d, told(Linear, "output", to_the_last)),
    "axis of a 3-D linear, on the input": mutant(linear_3d_before, told(Linear, "input", to_the_last)),
    # matrix products
    "matrix transposed": mutant(addmm, scaled_matrix(lambda w: w.t())),
    "matrix negated": mutant(mm, scaled_matrix(lambda w: -w)),
    "matrix in reverse": mutant(addmm, of_matrix(flipped)),
    "matrix not scaled": mutant(addmm, around(matrix, "product", lambda original, w, s: original(w, None))),
    "a transposed matrix in reverse": mutant(addmm_t, of_matrix(flipped)),
    "a matrix scaled along its rows": mutant(
        addmm, around(matrix, "product", lambda original, w, s: original(w, Expression(torch.t, (s,))))
    ),
    "a transposed matrix scaled along its rows": mutant(
        addmm_t, around(matrix, "product", lambda original, w, s: original(w, Expression(torch.t, (s,))))
    ),
    "a core linear scaled along its rows": mutant(
        core_linear, around(matrix, "product", lambda original, w, s: original(w, Expression(torch.t, (s,))))
    ),
    "addmm's bias not scaled": mutant(addmm, bias(matrix, lambda b, a, c: b + c)),
    "beta ignored": mutant(addmm_factors, beta_is(1)),
    "beta squared": mutant(addmm_factors, beta_is(9)),
    "beta on the shift": mutant(addmm_factors, around(matrix, "move_bias", beta_on_all)),
    "beta ignored, on the input": mutant(addmm_factors_before, beta_is(1)),
    "alpha and beta kept": mutant(addmm_factors, around(MatrixProduct, "install", keeps)),
    "alpha lost": mutant(addmm_factors, forgets("alpha")),
    "alpha lost, on the input": mutant(addmm_factors_before, forgets("alpha")),
    "alpha lost by baddbmm": mutant(baddbmm, forgets("alpha")),
    "alpha ignored by a shifted input": mutant(
        addmm_factors_before,
        around(matrix, "applied_before", lambda original, w, t, alpha: original(w, t, 1)),
    ),
    "shifted input of a product summed over outputs": mutant(
        mm_before, patch(matrix, "applied_before", lambda w, t, alpha: (w * t.transpose(-1, -2)).sum(-1).unsqueeze(0))
    ),
    "shifted input of a product subtracted": mutant(
        mm_before, around(matrix, "applied_before", lambda original, *a: -original(*a))
    ),
    "shift of mm lost": mutant(mm, told(MatrixProduct, "output", unshifted)),
    "shift of matmul lost": mutant(matmul, told(MatrixProduct, "output", unshifted)),
    "shift of bmm lost": mutant(bmm, told(MatrixProduct, "output", unshifted)),
    "matmul turned around": mutant(matmul, of_matrix(flipped)),
    "matmul's input turned around": mutant(matmul_before, of_matrix(flipped)),
    "matmul's linear transposed": mutant(matmul, patch(matrix, "transpose", lambda x: x * 1)),
    "rows are features": mutant(matmul_rows, told(MatrixProduct, "output", to_the_last)),
    "a left factor is a right one": mutant(left_columns, around(_Matrix, "__init__", as_left)),
    "a right factor is a left one": mutant(matmul_rows, around(_Matrix, "__init__", as_left)),
    "columns are features": mutant(left_columns, told(MatrixProduct, "output", turned)),
    "a left factor in reverse": mutant(left, of_matrix(flipped)),
    "a left factor in reverse, on the input": mutant(left_before, of_matrix(flipped)),
    "a shift of a left factor lost": mutant(left_shifted, told(MatrixProduct, "output", unshifted)),
    "batches of bmm in reverse": mutant(bmm, of_matrix(lambda a: replace(a, channels=a.channels.flip(0)))),
    "bias of baddbmm not scaled": mutant(baddbmm, bias(matrix, lambda b, a, c: b + c)),
    "a bias is an input": mutant(
        addmm_scaled_bias,
        patch(matrix, "require_input", nothing),
        told(MatrixProduct, "input", lambda a: replace(a, channels=a.channels.reshape(1, -1))),
    ),
    # einsum
    "letters of the output are the input's": mutant(einsum_other_axis, letters(lambda given: "bni")),
    "letters of the input are the output's": mutant(einsum_before, letters(lambda given: "bin")),
    "einsum in reverse": mutant(einsum_turned, told(Einsum, "output", flipped)),
    "einsum in reverse, on the input": mutant(einsum_before, told(Einsum, "input", flipped)),
    "axes of einsum exchanged": mutant(einsum_other_axis, told(Einsum, "output", turned)),
    "einsum's constant transposed": mutant(
        einsum, around(matrix, "product", lambda original, w, s: original(Expression(torch.t, (w,)), s))
    ),
    "einsum's shift lost": mutant(einsum_shifted, told(Einsum, "output", unshifted)),
    # tables
    "table not scaled": mutant(table, bias(embedding, lambda e, a, c: e + c)),
    "table not shifted": mutant(table, bias(embedding, lambda e, a, c: e * a)),
    "table shifted before it is scaled": mutant(table, bias(embedding, lambda e, a, c: (e + c) * a)),
    "entries of a table scaled": mutant(table, bias(embedding, lambda e, a, c: e * a.reshape(-1, 1) + c)),
    "table in reverse": mutant(table, told(Embedding, "output", flipped)),
    "positions are features": mutant(table_of_positions, told(Embedding, "output", to_the_last)),
    "table of bags in reverse": mutant(bag, told(EmbeddingBag, "output", flipped)),
    "entries of bags scaled": mutant(
        bag,
        around(
            embedding,
            "move_bias",
            lambda original, e, a, c: Expression(lambda e, a: e * a.reshape(-1, 1), (e, a)),
        ),
    ),
    "the largest of a bag scaled": mutant(bag_of_largest, patch(embedding, "_MAX", None)),
    "shift of a sum of rows": mutant(
        bag_shifted,
        patch(embedding, "require_no_shift", nothing),
        around(embedding, "move_bias", lambda original, e, a, c: Expression(lambda e, a: e * a, (e, a))),
    ),
    # normalisations with an affine of their own
    "own scale lost": mutant(layer_norm, around(norm, "scaled", lambda original, scale, weight: scale)),
    "own scale kept": mutant(layer_norm, around(norm, "scaled", lambda original, scale, weight: weight)),
    "own bias not scaled": mutant(layer_norm, bias(norm, lambda b, a, c: b + c)),
    "own bias not shifted": mutant(layer_norm, bias(norm, lambda b, a, c: b * a)),
    "own bias replaced": mutant(layer_norm, bias(norm, lambda b, a, c: c * 1)),
    "own affine in reverse": mutant(layer_norm, told(OwnAffine, "output", flipped)),
    "own affine of tokens": mutant(layer_norm_tokens, told(OwnAffine, "output", to_the_last)),
    "own affine of two axes turned": mutant(layer_norm_of_two, told(OwnAffine, "output", turned)),
    "own affine of groups in reverse": mutant(group_norm, told(OwnAffine, "output", flipped)),
    "own affine of places": mutant(group_norm_places, told(OwnAffine, "output", to_the_second)),
    "own shift lost": mutant(rms_norm_shifted, told(OwnAffine, "output", unshifted)),
    "own scale squared": mutant(rms_norm, around(norm, "scaled", lambda original, s, w: original(original(s, w), w))),
    "scaled before a normalisation": mutant(
        normed_before, patch(OwnAffine, "input", lambda self, node, operand, affine, c: self.output(node, affine, c))
    ),
}
