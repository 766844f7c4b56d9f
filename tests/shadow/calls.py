"""Calls of ATen operators: those that the samples of PyTorch's own operator database give rise to, and a few more."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import itertools
import random
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.testing._internal import common_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from foldproof.shadow import RULES

aten = torch.ops.aten
decomposed = torch.ops.quantized_decomposed

CACHE = Path(__file__).parents[2] / "build"

SAMPLES = 20
"""Samples taken from each entry of the operator database."""

CALLS = 20
"""Calls kept of each operator, all different in shapes, strides or attributes."""


class Call(NamedTuple):
    """One call, with arguments of its own."""

    operator: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    origin: str

    def run(self) -> Any:
        """The result of the real operator."""
        return self.operator(*copied(self.args), **copied(self.kwargs))

    def runs(self) -> bool:
        try:
            self.run()
        except Exception:
            return False
        return True


def copied(x: Any) -> Any:
    return tree_map(lambda v: v.detach().clone() if type(v) is Tensor else v, x)


def floats(x: Any) -> list[Tensor]:
    """The tensors that become shadows."""
    return [t for t in tree_iter(x) if isinstance(t, Tensor) and is_float(t)]


def carries_residues(x: Any) -> bool:
    """Floats become shadows, and so do quantized numbers."""
    return is_float(x) or (isinstance(x, Tensor) and x.dtype == torch.int8)


def is_float(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype.is_floating_point and x.layout == torch.strided


def samples_of(entry: Any, count: int, dtype: torch.dtype = torch.float64) -> Iterator[Any]:
    """The first samples of an entry of the database, as its ``sample_inputs`` gives them.

    That method reads the stack for the name of a test, and seeding all devices at each sample writes the stack down.
    Below pytest the stack is so deep that this took most of the time.
    """
    _seed(0)
    made = iter(entry.sample_inputs_func(entry, "cpu", dtype, False))
    for _ in range(count):
        _seed(common_utils.SEED)
        sample = next(made, None)
        if sample is None:
            return
        yield sample


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@functools.cache
def from_database() -> dict[OpOverload, list[Call]]:
    """The calls of operators with a rule that the database's samples in float64 lead to.

    Recording them takes a minute, so a file keeps them, and one process of several makes it. Another version of torch,
    or another set of rules, has another file.
    """
    names = {str(operator): operator for operator in RULES}
    key = hashlib.sha256(repr((torch.__version__, sorted(names), SAMPLES, CALLS, "backward")).encode()).hexdigest()[:16]
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / f"operator_calls_{key}.pt"
    with (CACHE / "operator_calls.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            made = {str(operator): [tuple(call)[1:] for call in calls] for operator, calls in _record().items()}
            torch.save(made, file.with_suffix(".new"), pickle_protocol=4)  # memory formats need it
            file.with_suffix(".new").replace(file)
    kept = torch.load(file, weights_only=False)
    return {names[name]: [Call(names[name], *call) for call in calls] for name, calls in kept.items()}


def _record() -> dict[OpOverload, list[Call]]:
    from torch.testing._internal.common_methods_invocations import op_db

    recorder = _Recorder()
    for entry in op_db:
        if torch.float64 not in entry.dtypes:
            continue
        recorder.origin = f"op_db {entry.name}"
        with warnings.catch_warnings(), contextlib.suppress(Exception):  # samples that this platform can't make or run
            warnings.simplefilter("ignore")
            for sample in samples_of(entry, SAMPLES):
                with recorder, torch.no_grad(), contextlib.suppress(Exception):
                    entry.op(sample.input, *sample.args, **sample.kwargs)
    for entry in op_db:  # after all calls forward, so that these are the same without it
        if torch.float64 not in entry.dtypes or not entry.supports_autograd:
            continue
        recorder.origin = f"op_db {entry.name}, backward"
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            for sample in samples_of(entry, SAMPLES):
                with contextlib.suppress(Exception):
                    _record_backward(recorder, entry.op, (sample.input, sample.args, sample.kwargs))
    return {operator: list(calls.values()) for operator, calls in recorder.calls.items()}


def _record_backward(recorder: _Recorder, function: Any, arguments: Any) -> None:
    """Record the operators that the gradients of all floats among the arguments are computed with."""
    first, args, kwargs = tree_map(lambda v: v.detach().clone().requires_grad_() if is_float(v) else v, arguments)
    with torch.enable_grad():
        made = function(first, *args, **kwargs)
        outputs = [t for t in tree_iter(made) if isinstance(t, Tensor) and t.requires_grad]
        leaves = [t for t in tree_iter((first, args, kwargs)) if isinstance(t, Tensor) and t.requires_grad]
        cotangents = [torch.randn_like(t) for t in outputs]
        with recorder:
            torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True)


@functools.cache
def of_our_own() -> dict[OpOverload, list[Call]]:
    """Calls of operators that the database does not reach."""
    out: dict[OpOverload, list[Call]] = {}
    for operator, args, kwargs in _more(torch.float64):
        out.setdefault(operator, []).append(Call(operator, args, kwargs, "our own"))
    return out


def calls_of(operator: OpOverload, dtype: torch.dtype = torch.float64) -> list[Call]:
    """The calls of one operator, with float64 tensors as tensors of ``dtype``."""
    calls = from_database().get(operator, []) + of_our_own().get(operator, [])
    if dtype == torch.float64:
        return calls

    def cast(t: Any) -> Any:
        return t.to(dtype) if isinstance(t, Tensor) and t.dtype == torch.float64 else t

    return [Call(operator, *tree_map(cast, (c.args, c.kwargs)), c.origin) for c in calls]


class _Recorder(TorchDispatchMode):
    """Keeps calls of operators with a rule, one for each signature (shapes, strides, numbers)."""

    def __init__(self) -> None:
        super().__init__()
        self.origin = ""
        self.calls: dict[OpOverload, dict[str, Call]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in RULES and floats((args, kwargs)):
            signature = repr(tree_map(_signature, (args, kwargs)))
            known = self.calls.setdefault(func, {})
            if signature not in known and len(known) < CALLS:
                kept = tree_map(lambda v: v.detach().clone() if isinstance(v, Tensor) else v, (args, kwargs))
                call = Call(func, *kept, self.origin)
                if call.runs():  # not, for one, where it reads memory beyond a tensor's own
                    known[signature] = call
        return func(*args, **kwargs)


def _signature(x: Any) -> Any:
    return (tuple(x.shape), x.stride(), x.dtype) if isinstance(x, Tensor) else x


def _more(dtype: torch.dtype) -> Iterator[tuple[OpOverload, tuple[Any, ...], dict[str, Any]]]:
    generator = torch.Generator().manual_seed(1)

    def x(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=dtype)

    def positive(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=dtype) + 0.5

    for operator in (aten.remainder.Scalar, aten.fmod.Scalar, aten.floor_divide.default, aten.gt.Scalar):
        yield operator, (x(3, 4), 0.75), {}
    for operator in (aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.bitwise_xor.Tensor):
        yield operator, (x(3, 4) > 0, x(4) > 0), {}
    for operator in (aten.__and__.Tensor, aten.__or__.Tensor, aten.__xor__.Tensor):
        yield operator, (x(3, 4) > 0, x(4) > 0), {}
    yield aten.bitwise_not.default, (x(3, 4) > 0,), {}
    for operator in (aten.sub.Scalar, aten.add.Scalar, aten.rsub.Scalar):
        yield operator, (x(3, 4), 2, 3), {}
    for operator in (aten.sub.Tensor, aten.add.Tensor):
        yield operator, (x(2, 3), torch.arange(3)), {"alpha": 2}
    for mode in ("floor", "trunc", None):
        yield aten.div.Scalar_mode, (x(3, 4), 0.5), {"rounding_mode": mode}
        yield aten.div.Tensor_mode, (x(3, 4), positive(4)), {"rounding_mode": mode}
    for limits in ((None, 0.5), (-0.5, None), (-1, 1), (1, -1), (float("-inf"), float("inf"))):
        yield aten.clamp.default, (x(3, 4), *limits), {}
    yield aten.clamp.Tensor, (x(3, 4), x(4), None), {}
    yield aten.clamp_max.default, (x(3, 4), 0.25), {}
    yield aten.clamp_min.default, (x(3, 4), 0.25), {}
    yield aten.hardtanh.default, (x(3, 4),), {}
    yield aten.pow.Scalar, (2.5, x(3, 4)), {}
    for exponent in (0, 1, 2, 3, -1, -2, 0.5, -0.5, 1.5):
        yield aten.pow.Tensor_Scalar, (positive(3, 4), exponent), {}
    yield aten.xlogy.Scalar_Other, (positive(3, 4), 0.5), {}
    yield aten.xlogy.Scalar_Self, (0.5, positive(3, 4)), {}
    for summed in ([1], [0, 2], [0, 1, 2], []):
        yield aten._trilinear.default, (x(2, 3), x(3, 4), x(2, 4), [2], [0], [1], summed), {}
        yield aten._trilinear.default, (x(2, 4), x(3, 4), x(2, 3), [1], [0], [2], summed, 0), {}
    for summed in ([0], [1], [0, 1]):
        yield aten._trilinear.default, (x(3), x(3), x(3), [0], [0], [0], summed), {}
    yield aten.zero.default, (x(3, 4),), {}
    yield aten.fill.Tensor, (x(3, 4), x()), {}
    yield aten.where.ScalarSelf, (x(3, 4) > 0, 1.5, x(3, 4)), {}
    yield aten.where.ScalarOther, (x(3, 4) > 0, x(3, 4), -2), {}
    yield aten.copy.default, (x(3, 4), x(4)), {}
    yield aten.bucketize.Scalar, (0.3, x(5).sort().values), {}
    yield aten.searchsorted.Scalar, (x(5).sort().values, 0.3), {}
    yield aten.isin.Tensor_Scalar, (x(5).round(), 1), {}
    yield aten.histc.default, (x(20), 4, -2, 2), {}

    for p, mode in itertools.product((1.0, 2.0, 3.0, float("inf")), (None, 1, 2)):
        yield aten._cdist_forward.default, (x(2, 3, 4), x(2, 5, 4), p, mode), {}
        yield aten._pdist_forward.default, (x(4, 3), p), {}

    yield aten.native_layer_norm.default, (x(2, 3, 4), [3, 4], None, x(3, 4), 1e-5), {}
    yield aten._weight_norm_interface.default, (x(3, 4, 5), positive(3, 1, 1)), {}
    yield aten._weight_norm_interface.default, (x(3, 4, 5), positive(1, 1, 5), 2), {}
    for affine in ((x(3), x(3)), (None, None)):
        statistics = (*affine, x(3), positive(3), 0.1, 1e-5)
        yield aten._native_batch_norm_legit_no_training.default, (x(2, 3, 4), *statistics), {}
    for training in (True, False):
        statistics = (x(3), x(3), x(3), positive(3), training, 0.1, 1e-3)
        yield aten.native_batch_norm.default, (x(4, 3, 2), *statistics), {}
        yield aten._native_batch_norm_legit.default, (x(4, 3, 2, 2), *statistics), {}
        yield aten._native_batch_norm_legit_functional.default, (x(4, 3), *statistics), {}
    yield aten._native_batch_norm_legit.no_stats, (x(4, 3, 2), x(3), None, True, 0.1, 1e-3), {}

    for bias in (None, x(4)):
        for stride, padding, dilation, transposed, extra, groups in (
            ([1], [0], [1], False, [0], 1),
            ([2], [1], [2], False, [0], 2),
            ([2], [1], [1], True, [1], 2),
        ):
            weight = x(6, 4 // groups, 3) if transposed else x(4, 6 // groups, 3)
            call = (x(2, 6, 9), weight, bias, stride, padding, dilation, transposed, extra, groups)
            yield aten.convolution.default, call, {}
            yield aten._convolution.default, (*call, False, False, True, True), {}
    for groups, transposed in ((1, False), (2, False), (2, True)):
        weight = x(6, 4 // groups, 3, 3) if transposed else x(4, 6 // groups, 3, 3)
        geometry = ([2, 1], [1, 0], [1, 1], transposed, [0, 0], groups)
        image = x(2, 6, 7, 6)
        gradient = torch.randn_like(aten.convolution.default(image, weight, None, *geometry))
        yield aten.convolution_backward.default, (gradient, image, weight, [4], *geometry, [True, True, True]), {}
        yield aten.convolution_backward.default, (gradient, image, weight, None, *geometry, [True, False, False]), {}
    large = x(2, 1, 130, 131)  # more positions than products add up exactly
    for transposed, weight in ((False, x(1, 1, 2, 1)), (True, x(1, 1, 2, 1))):
        geometry = ([1, 1], [0, 0], [1, 1], transposed, [0, 0], 1)
        gradient = torch.randn_like(aten.convolution.default(large, weight, None, *geometry))
        yield aten.convolution_backward.default, (gradient, large, weight, [1], *geometry, [True, True, True]), {}
    geometry = ([1], [0], [3], True, [2], 2)  # more padding of the output than its stride
    weight, signal = x(4, 3, 2), x(2, 4, 7)
    gradient = torch.randn_like(aten.convolution.default(signal, weight, None, *geometry))
    yield aten.convolution_backward.default, (gradient, signal, weight, [6], *geometry, [True, True, True]), {}
    yield aten.native_dropout_backward.default, (x(3, 4), x(3, 4) > 0, 1 / 0.9), {}
    for dim in (0, 2):
        w, norms = aten._weight_norm_interface.default(x(3, 4, 5), positive(*(3, 1, 1) if dim == 0 else (1, 1, 5)), dim)
        scale = positive(*(3, 1, 1) if dim == 0 else (1, 1, 5))
        yield aten._weight_norm_interface_backward.default, (x(3, 4, 5), w, scale, norms, dim), {}
    for reduction in (0, 1, 2):
        shape = (3, 4) if reduction == 0 else ()
        yield aten.soft_margin_loss_backward.default, (x(*shape), x(3, 4), x(3, 4).sign(), reduction), {}
    ends = torch.tensor([1, 1, 6], dtype=torch.int32)  # float64 has no kernel, and whole numbers are exact in float32
    rows, each = (lambda: x(6, 8).round().float()), (lambda: x(3, 8, 8).round().float())
    for a, b in ((rows(), each()), (each(), rows().mT), (rows().mT, rows())):
        yield aten._grouped_mm.default, (a, b, ends), {}
    yield aten._grouped_mm.default, (each(), each()), {}
    query, key = x(2, 4, 5, 8), x(2, 2, 6, 8)
    mask = torch.zeros(5, 6, dtype=dtype).masked_fill(torch.ones(5, 6).triu(1) > 0, float("-inf"))
    for kwargs in ({}, {"attn_mask": mask}, {"scale": 0.25}, {"is_causal": True}):
        if not kwargs.get("is_causal"):
            shared = key.repeat_interleave(2, 1)
            yield aten._scaled_dot_product_flash_attention_for_cpu.default, (query, shared, shared), kwargs
        yield (
            aten._scaled_dot_product_flash_attention_for_cpu.default,
            (query, query, x(2, 4, 5, 8)),
            (kwargs if "attn_mask" not in kwargs else {"attn_mask": mask[:, :5]}),
        )
    yield aten._scaled_dot_product_flash_attention_for_cpu.default, (query, key, x(2, 2, 6, 8)), {}  # grouped queries
    backward = aten._scaled_dot_product_flash_attention_for_cpu_backward.default
    for kwargs in ({}, {"attn_mask": mask[:, :5]}, {"scale": 0.25}, {"is_causal": True}):
        for k, v in ((x(2, 4, 5, 8), x(2, 4, 5, 8)), (x(2, 2, 5, 8), x(2, 2, 5, 8))):
            out, lse = aten._scaled_dot_product_flash_attention_for_cpu.default(query, k, v, **kwargs)
            rest = {name: value for name, value in kwargs.items() if name != "is_causal"}
            yield backward, (x(*out.shape), query, k, v, out, lse, 0.0, "is_causal" in kwargs), rest
    yield aten._safe_softmax.default, (torch.cat([mask, torch.full((1, 6), float("-inf"), dtype=dtype)]), -1), {}

    yield aten.embedding_dense_backward.default, (x(2, 3, 4), torch.tensor([[1, 0, 1], [4, 2, 1]]), 5, 0, False), {}
    yield aten.embedding_dense_backward.default, (x(3, 4), torch.tensor([1, 1, 2]), 5, -1, True), {}
    group = x(2, 6, 5), x(2, 6, 5), x(2, 3), positive(2, 3), x(6), 2, 6, 5, 3
    yield aten.native_group_norm_backward.default, (*group, [True, True, True]), {}
    yield aten.native_group_norm_backward.default, (*group, [True, False, False]), {}
    layer = x(2, 6), x(2, 6), [6], x(2, 1), positive(2, 1)
    yield aten.native_layer_norm_backward.default, (*layer, x(6), x(6), [True, True, True]), {}
    yield aten.native_layer_norm_backward.default, (*layer, None, None, [True, False, False]), {}
    for arguments in (
        ([3, 2], [2, 2], [1, 0], False, True, None),
        ([2, 2], [], [1, 1], True, False, None),
        ([2], [2], [0], False, True, 3),
    ):
        pooled = aten.avg_pool2d.default(x(2, 3, 7, 8), *arguments)
        yield aten.avg_pool2d_backward.default, (torch.randn_like(pooled), x(2, 3, 7, 8), *arguments), {}
    yield aten._adaptive_avg_pool2d_backward.default, (x(2, 3, 3, 4), x(2, 3, 7, 8)), {}
    pooled, indices = aten.max_pool2d_with_indices.default(x(2, 3, 7, 8), [3, 3], [2, 2])
    window = [3, 3], [2, 2], [0, 0], [1, 1], False
    gradient = torch.randn_like(pooled)
    yield aten.max_pool2d_with_indices_backward.default, (gradient, x(2, 3, 7, 8), *window, indices), {}

    for dims, linear in enumerate((aten.upsample_linear1d, aten.upsample_bilinear2d, aten.upsample_trilinear3d), 1):
        for align_corners in (False, True):
            yield linear.default, (x(1, 2, *[3] * dims), [5] * dims, align_corners), {}
        yield linear.default, (x(1, 2, *[3] * dims), [4] * dims, False, *[1.5] * dims), {}
    yield aten.upsample_nearest2d.default, (x(1, 1, 259, 1).contiguous(memory_format=torch.channels_last), [222, 3]), {}
    yield aten.upsample_nearest3d.default, (x(1, 2, 3, 4, 2), [5, 4, 3]), {}
    yield aten._upsample_nearest_exact3d.default, (x(1, 2, 3, 4, 2), [5, 4, 3]), {}
    yield aten.reflection_pad3d.default, (x(1, 3, 4, 5), [1, 2, 0, 1, 1, 1]), {}
    yield aten.replication_pad3d.default, (x(1, 3, 4, 5), [1, 2, 0, 1, 1, 1]), {}

    yield aten.as_strided.default, (x(4, 5), [2, 3], [5, 1], 6), {}
    yield aten.as_strided.default, (x(10), [4, 3], [2, 1]), {}
    yield aten.lift_fresh.default, (x(3, 4),), {}
    yield aten.lift_fresh_copy.default, (x(3, 4),), {}
    yield aten._reshape_alias.default, (x(3, 4), [12], [1]), {}
    yield aten.detach_copy.default, (x(3, 4),), {}
    yield aten.select_copy.int, (x(3, 4), 1, -1), {}
    yield aten.slice_copy.Tensor, (x(3, 9), 1, 1, -1, 3), {}
    yield aten.split_copy.Tensor, (x(3, 9), 4, 1), {}
    yield aten.unsafe_split_with_sizes.default, (x(3, 9), [2, 7], 1), {}
    yield aten.squeeze.dims, (x(1, 3, 1), [0, 2]), {}
    yield aten.squeeze_copy.dims, (x(1, 3, 1), [0, 1]), {}
    yield aten.diagonal_scatter.default, (x(3, 4), x(3), 1), {}
    yield aten.slice_scatter.default, (x(6, 4), x(2, 4), 0, 1, 5, 2), {}
    yield aten._unsafe_index_put.default, (x(4, 3), [torch.tensor([2, 0])], x(2, 3)), {}
    yield aten.index_put.default, (x(4, 3), [torch.tensor([2, 0, 2]), None], x(3, 3), True), {}
    yield aten.index_put.default, (x(4, 3), [None, torch.tensor([2, 0])], x(4, 1)), {}
    yield aten._unsafe_index.Tensor, (x(4, 3), [None, torch.tensor([2, 0, 2])]), {}
    yield aten.scatter.src, (x(4, 3), 0, torch.tensor([[0, 1, 2], [3, 0, 1]]), x(2, 3)), {}
    yield aten.scatter.value, (x(4, 3), 1, torch.tensor([[0, 1], [2, 0]]), 1.5), {}
    for include_self in (True, False):
        index = torch.tensor([[0, 0, 2], [0, 0, 1]])
        yield aten.scatter_reduce.two, (x(4, 3), 0, index, x(2, 3), "mean"), {"include_self": include_self}
    yield aten.nonzero_static.default, (x(3, 4).round(),), {"size": 5, "fill_value": -1}
    yield aten.col2im.default, (x(1, 12, 6), [4, 5], [2, 3], [1, 1], [0, 1], [2, 2]), {}
    for biases in (True, False):
        for reverse in (True, False):
            weights = x(16, 5), x(16, 4), *((x(16), x(16)) if biases else (torch.zeros(16, 5), torch.zeros(16, 4)))
            given = [t.float() for t in (x(3, 2, 5), *weights, x(1, 2, 4), x(1, 2, 4))]
            yield aten.mkldnn_rnn_layer.default, (*given, reverse, [], 2, 4, 1, biases, False, False, False), {}
            rest = 2, 4, 1, biases
            output, hy, cy, space = aten.mkldnn_rnn_layer.default(*given, reverse, [], *rest, False, False, True)
            gradients = torch.randn_like(output), torch.randn_like(hy), torch.randn_like(cy)
            given_back = (*given, output, hy, cy, *gradients, reverse, *rest, True, False, [], False, space)
            yield aten.mkldnn_rnn_layer_backward.default, given_back, {}
            given[5:] = [state[0] for state in given[5:]]
            yield aten.mkldnn_rnn_layer.default, (*given, reverse, [], 2, 4, 3, biases, True, True, False), {}
    qkv = x(24, 8), x(24), x(8, 8), x(8)
    rest = x(8), x(8), x(8), x(8), x(16, 8), x(16), x(8, 16), x(8)
    masks = torch.rand(5, 5) > 0.6, torch.rand(2, 5) > 0.6, torch.rand(2, 2, 5, 5) > 0.6
    for m in masks:
        m[..., 2] = False  # no row is masked throughout
    for mask, kind in ((None, None), *((m, i) for i, m in enumerate(masks))):
        y = x(2, 5, 8)
        for weights in ((True, True), (True, False), (False, True)):
            yield aten._native_multi_head_attention.default, (y, y, y, 8, 2, *qkv, mask, *weights, kind), {}
        for gelu, first in itertools.product((True, False), repeat=2):
            layer = (y, 8, 2, *qkv, gelu, first, 1e-5, *rest, mask, kind)
            yield aten._transformer_encoder_layer_fwd.default, layer, {}
    for mode in (0, 1, 2):
        weights = x(6) if mode == 0 else None
        bags = torch.tensor([1, 4, 1, 0, 2, 2]), torch.tensor([0, 2, 2, 5])
        for operator in (aten._embedding_bag.default, aten._embedding_bag_forward_only.default):
            yield operator, (x(5, 3), *bags, False, mode, False, weights), {}
            yield operator, (x(5, 3), *bags, False, mode, False, weights, False, 1), {}
            yield operator, (x(5, 3), bags[0], torch.tensor([0, 2, 2, 6]), False, mode, False, weights, True), {}

    yield from _quantizations(generator)


def _quantizations(generator: torch.Generator) -> Iterator[tuple[OpOverload, tuple[Any, ...], dict[str, Any]]]:
    """Quantization computes in float32 whatever it is given; no value here is close to the middle between two steps."""
    scale, scales = 2.0**-5, torch.tensor([2.0**-5, 2.0**-3, 2.0**-4])
    zeros = torch.tensor([3, 0, -7])
    steps = torch.randint(-200, 200, (3, 4, 3), generator=generator) + 0.3 * torch.rand((3, 4, 3), generator=generator)
    x, q = steps * scale, torch.randint(-128, 128, (3, 4, 3), generator=generator).to(torch.int8)
    for low, high in ((-128, 127), (-8, 7)):
        limits = (low, high, torch.int8)
        yield decomposed.quantize_per_tensor.default, (x, scale, 5, *limits), {}
        yield decomposed.dequantize_per_tensor.default, (q, scale, 5, *limits), {}
        tensors = (torch.tensor(scale), torch.tensor([5]))
        yield decomposed.quantize_per_tensor.tensor, (x, *tensors, *limits), {}
        yield decomposed.dequantize_per_tensor.tensor, (q, *tensors, *limits), {}
        tensors = (*tensors, torch.tensor(low), torch.tensor(high), torch.int8)
        yield decomposed.quantize_per_tensor.tensor2, (x, *tensors), {}
        yield decomposed.dequantize_per_tensor.tensor2, (q, *tensors), {}
        for axis in (0, 2):
            channels = steps * scales.reshape([-1 if d == axis else 1 for d in range(3)])
            yield decomposed.quantize_per_channel.default, (channels, scales, zeros, axis, *limits), {}
            yield decomposed.dequantize_per_channel.default, (q, scales, zeros, axis, *limits), {}
            yield (
                aten.fake_quantize_per_channel_affine_cachemask.default,
                (channels, scales, zeros.int(), axis, low, high),
                {},
            )
        yield decomposed.dequantize_per_channel.default, (q, scales, None, 0, *limits), {"out_dtype": torch.float16}
        yield aten.fake_quantize_per_tensor_affine_cachemask.default, (x, scale, 5, low, high), {}
        for enabled in (0, 1):
            call = (x, torch.tensor([scale]), torch.tensor([5]), torch.tensor([enabled]), low, high)
            yield aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default, call, {}
    yield decomposed.quantize_per_tensor.default, (x, scale, 0, 0, 255, torch.uint8), {}
    yield decomposed.quantize_per_tensor.default, (x, scale, 0, -(2**31), 2**31 - 1, torch.int32), {}
    yield decomposed.dequantize_per_tensor.default, (q, scale, 0, -128, 127, torch.int8), {"out_dtype": torch.float16}
    for operator in (decomposed.choose_qparams.tensor, decomposed.choose_qparams_symmetric.tensor):
        yield operator, (x, -128, 127, 1e-6, torch.int8), {}
    for axis, tensors in ((-1, (torch.tensor([scale]), torch.tensor([5]))), (0, (scales, zeros.int()))):
        extremes = [(limit - tensors[1]) * tensors[0] for limit in (-128, 127)]  # of which it makes this scale
        statistics = (*extremes, tensors[0], tensors[1].int())
        for switches in ((0, 0), (0, 1), (1, 1)):
            call = (x, *(torch.tensor([on]) for on in switches), *statistics, 0.01, -128, 127, axis, axis == 0)
            yield aten._fused_moving_avg_obs_fq_helper.default, call, {}
