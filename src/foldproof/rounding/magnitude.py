"""How large the roundings inside one operator are: the magnitudes that its running error bound adds up.

Floating-point operators compute sums of products whose order is nobody's promise. If u is the unit roundoff (half the
epsilon) of the type in which they accumulate, an error is about u times the sum of the *magnitudes* Σ|x||w|, whatever
cancels in the result (Higham, Accuracy and Stability of Numerical Algorithms, 2002, §3.1). Adding K terms one after the
other also rounds each partial sum: where the terms have one sign, that is a random walk of u·|result|·√(K/3) (Higham
and Mary, A New Approach to Probabilistic Rounding Error Analysis, 2019). `magnitude` gives the sum of both, in units of
u; rounding the result itself comes on top.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from foldproof.operators import is_pointwise

aten = torch.ops.aten
Rule = Callable[..., Tensor]
"""Takes the operator's result (float64; the first, where there are several), then its arguments."""

RULES: dict[Any, Rule] = {}


def magnitude(func: Any, out: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The magnitudes inside ``func``, like its (first) result ``out``; None where nothing is known of it.

    Pointwise operators without a rule of their own round their result and nothing else.
    """
    rule = RULES.get(func)
    if rule is not None:
        return rule(out, *args, **kwargs)
    if func in _UNKNOWN:
        return None
    return torch.zeros_like(out) if is_pointwise(func) else None


def is_exact(func: Any) -> bool:
    """Whether ``func`` only chooses, moves or negates numbers, so that nothing in it is rounded."""
    return func in _EXACT


def is_cast(func: Any) -> bool:
    """Whether ``func`` rounds numbers only where its dtype does not hold them."""
    return func in _CASTS


def _rule(*funcs: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        RULES.update((_operator(f), rule) for f in funcs)
        return rule

    return add


def _operator(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


def drift(out: Tensor, terms: float) -> Tensor:
    """What partial sums of ``terms`` terms of one sign add: |out|·√(terms/3)."""
    return out.abs() * math.sqrt(max(terms, 0.0) / 3)


@_rule("mm", "bmm", "mv", "dot", "vdot")
def _product(out: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a.abs(), b.abs()) + drift(out, a.shape[-1])


@_rule("addmm", "addmv", "baddbmm", "addbmm")
def _added_product(out: Tensor, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = torch.matmul(a.abs(), b.abs())
    return (
        abs(beta) * bias.abs()
        + abs(alpha) * (product.sum(0) if out.ndim < product.ndim else product)
        + drift(out, a.shape[-1])
    )


@_rule("linear")
def _linear(out: Tensor, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    inside: Tensor = aten.linear(x.abs(), w.abs(), _abs(bias))
    return inside + drift(out, x.shape[-1])


@_rule("convolution")
def _convolution(out: Tensor, x: Tensor, w: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    terms = w[0].numel() if not rest[3] else w[:, 0].numel() / rest[5]
    inside: Tensor = aten.convolution(x.abs(), w.abs(), _abs(bias), *rest)
    return inside + drift(out, terms)


def _linear_rule(func: Any) -> Rule:
    """Sums with weights that are no operands: the operator itself, on magnitudes."""

    def rule(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        made = func(x.abs(), *args, **kwargs)
        inside: Tensor = made[0] if isinstance(made, tuple) else made
        return inside.abs() + drift(out, x.numel() / max(out.numel(), 1))

    return rule


def _operators(names: str) -> list[Any]:
    return [_operator(name) for name in names.split()]


for _func in _operators(
    """
    sum sum.dim_IntList mean mean.dim avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d
    adaptive_avg_pool1d im2col col2im _embedding_bag _embedding_bag_forward_only trace nansum
    """
):
    RULES[_func] = _linear_rule(_func)


def _sampling_rule(func: Any) -> Rule:
    """Weights that are computed from coordinates, which are as large as the image and rounded."""

    def rule(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        inside: Tensor = func(x.abs(), *args, **kwargs)
        size: int = max(*x.shape[2:], *out.shape[2:])
        return inside.abs() * (2 + 2 * size)

    return rule


for _func in _operators(
    """
    upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa upsample_linear1d.vec upsample_bilinear2d.vec upsample_bicubic2d.vec
    upsample_trilinear3d.vec grid_sampler_2d grid_sampler_3d
    """
):
    RULES[_func] = _sampling_rule(_func)


@_rule("cumsum")
def _cumsum(out: Tensor, x: Tensor, dim: int, **kwargs: Any) -> Tensor:
    return x.abs().cumsum(dim) + drift(x.abs().cumsum(dim), x.shape[dim] if x.ndim else 1)


@_rule("scatter_add", "scatter_reduce.two")
def _scattered(out: Tensor, x: Tensor, dim: int, index: Tensor, source: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    total = x.abs().scatter_add(dim, index, source.abs())
    return total + drift(out, source.numel() / max(x.numel(), 1))


@_rule("index_add")
def _index_added(out: Tensor, x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    return x.abs().index_add(dim, index, source.abs(), alpha=abs(alpha)) + drift(out, source.numel() / x.numel())


@_rule("index_put")
def _index_put(out: Tensor, x: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    return aten.index_put(x.abs(), indices, values.abs(), True) if accumulate else torch.zeros_like(out)


def _variance(out: Tensor, x: Tensor, dim: Any = None, *args: Any, **kwargs: Any) -> Tensor:
    """Σx²/n, which cancels in E[x²] − E[x]²."""
    if dim is None or isinstance(dim, bool) or dim == []:
        dim = list(range(x.ndim))
    return x.square().mean(dim).reshape(out.shape) + drift(out, x.numel() / max(out.numel(), 1))


@_rule("var.correction", "var_mean.correction", "var.dim")
def _var(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _variance(out, x, *args, **kwargs)


@_rule("std.correction", "std_mean.correction", "std.dim")
def _std(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """An error of σ² over 2σ."""
    return _variance(out.square(), x, *args, **kwargs) / (2 * out).clamp_min(1e-300)


@_rule("linalg_vector_norm", "norm.ScalarOpt_dim", "norm.Scalar")
def _norm(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return 2 * out.abs() + drift(out, x.numel() / max(out.numel(), 1))


@_rule("logsumexp")
def _logsumexp(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return out.abs() + 2 + math.sqrt(x.numel() / max(out.numel(), 1) / 3)


@_rule("prod", "prod.dim_int")
def _prod(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return out.abs() * (x.numel() / max(out.numel(), 1))


@_rule("cumprod")
def _cumprod(out: Tensor, x: Tensor, dim: int, **kwargs: Any) -> Tensor:
    return out.abs() * (x.shape[dim] if x.ndim else 1)


@_rule("_softmax", "_safe_softmax", "softmax.int")
def _softmax(out: Tensor, x: Tensor, dim: int, *args: Any, **kwargs: Any) -> Tensor:
    """exp(x − max) rounds its argument, which is log out up to a constant."""
    logs = torch.where(out > 0, out, 1.0).log().abs()
    return out * (2 + logs + math.sqrt((x.shape[dim] if x.ndim else 1) / 3))


@_rule("_log_softmax", "log_softmax.int")
def _log_softmax(out: Tensor, x: Tensor, dim: int, *args: Any, **kwargs: Any) -> Tensor:
    return torch.where(out.isfinite(), out.abs(), 0.0) + 2 + math.sqrt((x.shape[dim] if x.ndim else 1) / 3)


def _normalised(x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None, n: float) -> Tensor:
    """(x − μ)·r·γ + β, with r from Σ(x − μ)² or from E[x²] − μ², which cancels."""
    scale = rstd if weight is None else rstd * weight.abs()
    relative = 2 + math.sqrt(n / 3) + (mean * rstd).square()
    size = (x.abs() + mean.abs()) * scale + (x - mean).abs() * scale * relative
    return size if bias is None else size + bias.abs()


@_rule("native_layer_norm")
def _layer_norm(out: Tensor, x: Tensor, shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    dims = list(range(x.ndim - len(shape), x.ndim))
    var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return _normalised(x, mean, (var + eps).rsqrt(), weight, bias, x[(0,) * (x.ndim - len(shape))].numel())


@_rule("native_group_norm")
def _group_norm(
    out: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, hw: int, groups: int, eps: float
) -> Tensor:
    grouped = x.reshape(n, groups, -1)
    var, mean = torch.var_mean(grouped, -1, correction=0, keepdim=True)
    shape = (1, groups, c // groups, 1)
    weight = None if weight is None else weight.reshape(shape)
    bias = None if bias is None else bias.reshape(shape)
    rstd, per = (var + eps).rsqrt().unsqueeze(-1), grouped.shape[-1]
    return _normalised(x.reshape(n, groups, c // groups, -1), mean.unsqueeze(-1), rstd, weight, bias, per).reshape(
        x.shape
    )


def _batch_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Any, var: Any, training: bool, eps: float
) -> Tensor:
    per = 1.0
    if training or mean is None or var is None:
        var, mean = torch.var_mean(x, [d for d in range(x.ndim) if d != 1], correction=0)
        per = x.numel() / max(x.shape[1], 1)
    shape = [1, -1] + [1] * (x.ndim - 2)
    w, b = (None if t is None else t.reshape(shape) for t in (weight, bias))
    return _normalised(x, mean.reshape(shape), (var + eps).rsqrt().reshape(shape), w, b, per)


@_rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional")
def _bn(out: Tensor, x: Tensor, w: Any, b: Any, mean: Any, var: Any, training: bool, m: float, eps: float) -> Tensor:
    return _batch_norm(x, w, b, None if training else mean, None if training else var, training, eps)


@_rule("_native_batch_norm_legit_no_training")
def _bn_eval(out: Tensor, x: Tensor, w: Any, b: Any, mean: Tensor, var: Tensor, m: float, eps: float) -> Tensor:
    return _batch_norm(x, w, b, mean, var, False, eps)


@_rule("_native_batch_norm_legit.no_stats")
def _bn_no_stats(out: Tensor, x: Tensor, w: Any, b: Any, training: bool, m: float, eps: float) -> Tensor:
    return _batch_norm(x, w, b, None, None, True, eps)


@_rule("exp", "exp2", "sigmoid", "silu", "mish", "softplus", "log_sigmoid_forward", "sinh", "cosh")
def _exponential(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """exp(x) is 2^(x·log₂e), and that product is rounded."""
    return out.abs() * (2 + x.abs().clamp_max(1e3))


@_rule("elu", "expm1", "celu", "selu", "log", "log1p", "log2", "log10", "atan2", "atan", "asin", "acos", "sin", "cos")
@_rule("logaddexp", "logaddexp2", "logit", "sinc")
def _absolute(out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Implementations differ near the zeros of these: expm1 as exp − 1, say."""
    return 2 * out.abs() + 2


@_rule("gelu")
def _gelu(out: Tensor, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """x/2·(1 + erf) cancels for negative x."""
    return 2 * torch.where(x.isfinite(), x.abs(), 0.0)


@_rule("pow.Tensor_Scalar")
def _power(out: Tensor, x: Tensor, exponent: float) -> Tensor:
    if exponent in (2, 3, 0.5, -0.5, -1, 1):
        return 2 * out.abs()
    return _general_power(out, x, torch.tensor(float(exponent), dtype=torch.float64))


@_rule("pow.Tensor_Tensor", "pow.Scalar")
def _general_power(out: Tensor, x: Any, y: Any) -> Tensor:
    """e^(y·log x), whose product is rounded."""
    base, exponent = (torch.as_tensor(v, dtype=torch.float64) for v in (x, y))
    argument = (exponent * torch.where(base > 0, base, 1.0).log()).abs().clamp_max(1e3)
    return out.abs() * (2 + argument)


@_rule("tanh", "erf", "rsqrt", "sqrt", "div.Tensor", "reciprocal", "hardswish", "hardsigmoid", "tan")
def _few(out: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """An ulp or two: approximations, or a reciprocal and a product in place of a quotient."""
    return 2 * out.abs()


@_rule("addcmul")
def _addcmul(out: Tensor, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x.abs() + (a * b).abs() * abs(value)


@_rule("addcdiv")
def _addcdiv(out: Tensor, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return x.abs() + 2 * (a / b).abs() * abs(value)


@_rule("lerp.Scalar", "lerp.Tensor")
def _lerp(out: Tensor, x: Tensor, end: Tensor, weight: Any) -> Tensor:
    step: Tensor = (end - x) * weight
    return x.abs() + step.abs()


def _abs(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.abs()


_EXACT = frozenset(
    _operators(
        """
        relu threshold clamp clamp.Tensor clamp_min clamp_max clamp_min.Tensor clamp_max.Tensor hardtanh
        maximum minimum fmax fmin max min max.dim min.dim amax amin cummax cummin aminmax
        max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d
        where.self masked_fill.Scalar masked_fill.Tensor masked_scatter masked_select
        cat stack embedding index.Tensor _unsafe_index.Tensor index_select gather
        clone copy copy_ neg abs sign sgn floor ceil round trunc
        constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d
        replication_pad1d replication_pad2d replication_pad3d flip roll repeat
        slice_scatter select_scatter diagonal_scatter as_strided_scatter scatter.src scatter.value
        sort sort.stable topk kthvalue median.dim tril triu _unsafe_view pixel_shuffle pixel_unshuffle channel_shuffle
        upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_nearest1d.vec upsample_nearest2d.vec
        upsample_nearest3d.vec _upsample_nearest_exact2d lift_fresh_copy zeros_like ones_like zeros ones empty_like
        empty.memory_format new_zeros new_ones new_empty fill.Tensor alias_copy detach_copy nonzero diag_embed rot90
        """
    )
)
# Pointwise, and approximated by series and recurrences that may lose much.
_UNKNOWN = frozenset(_operators("digamma polygamma lgamma igamma igammac erfinv special_zeta"))
_CASTS = frozenset(
    _operators(
        """
        _to_copy full full_like new_full scalar_tensor fill.Scalar arange arange.start arange.start_step eye linspace
        lift_fresh
        """
    )
)
