"""Effects that schemas leave out, or state for some operators only: updated statistics, and randomness.

A call is given by its operator and its arguments by name, see `bind_arguments`. An unknown argument, such as a node of
a graph in place of a flag, counts as having the effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from foldproof.operators.schema import count_results, get_name, get_types, list_written, writes_out
from foldproof.torch_internals import OpOverload

_UPDATING = {
    "batch_norm": "training",
    "native_batch_norm": "training",
    "cudnn_batch_norm": "training",
    "miopen_batch_norm": "training",
    "_batch_norm_impl_index": "training",
    "_native_batch_norm_legit": "training",
    "instance_norm": "use_input_stats",
    "_batch_norm_with_update": None,
    "batch_norm_update_stats": None,
    "batch_norm_gather_stats": None,
    "batch_norm_gather_stats_with_counts": None,
}
"""Normalizations that update running statistics, and the flag that asks for it; None where they always do.

Most of their schemas do not declare it, and version counters of tensors do not show it.
"""

_STATISTICS = ("running_mean", "running_var")

_KNOWN = frozenset(
    {
        *("aten", "prims", "quantized", "quantized_decomposed", "torchao"),
        *("mkldnn", "mkl", "onednn", "inductor", "dim_order_ops"),
    }
)
"""Namespaces with reliable tags for randomness. Custom operators need no tags, and may have state."""

_UNTAGGED_RANDOM = frozenset({"inductor_random", "inductor_randint"})
"""Operators that take a seed in Inductor's kernels; run as ATen operators, they draw from the global generator."""

_DRAWS = frozenset({"bernoulli", "cauchy", "exponential", "geometric", "log_normal", "normal", "normal_functional"}) | {
    *("rand", "rand_like", "randn", "randn_like", "uniform")
}
"""Operators whose results are random numbers alone, without arithmetic on operands."""

_FLAGS = ("train", "training")

_CHECKS = ("_assert", "_validate", "_linalg_check_errors", "sym_constrain_range")
"""Operators without a result; they raise, or do nothing."""

_UNINITIALIZED = ("empty", "_empty", "new_empty")

_READING_STATE = frozenset({"resize", "resize_as", "_reshape_alias_copy", "_ctc_loss", "from_file", "get_gradients"})
"""Operators whose results depend on memory that is uninitialized or around an operand, on files, or on contexts of
autograd."""

_FOLLOWING_LAYOUT = {"_linalg_det": 1, "_linalg_slogdet": 2}
"""Operators that factor a matrix or its transpose, as it lies in memory, and the first result that shows it."""


def is_custom(operator: OpOverload) -> bool:
    """True for an operator from outside of PyTorch, which may run any code."""
    return operator.namespace not in _KNOWN


def is_random(operator: OpOverload) -> bool:
    """True if the operator is known to draw random numbers, at least for some arguments."""
    return torch.Tag.nondeterministic_seeded in operator.tags or get_name(operator) in _UNTAGGED_RANDOM


def is_draw(operator: OpOverload) -> bool:
    """True if the operator returns random numbers as a generator gives them, in place or not."""
    return is_random(operator) and get_name(operator).removesuffix("_") in _DRAWS and not writes_out(operator)


def is_uninitialized(operator: OpOverload) -> bool:
    """True if the operator returns uninitialized memory."""
    return get_name(operator).startswith(_UNINITIALIZED)


def list_updated_statistics(operator: OpOverload, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the running statistics that this call of a normalization updates, declared by its schema or not."""
    if operator.namespace != "aten" or get_name(operator) not in _UPDATING or "running_mean" not in given:
        return ()
    flag = _UPDATING[get_name(operator)]
    if flag is not None and given.get(flag) is False:
        return ()
    return tuple(name for name in _STATISTICS if given.get(name) is not None)


def follows_layout(operator: OpOverload, result: int) -> bool:
    """True if the elements of this result, by number, depend on the strides of the operands: ``as_strided_scatter``."""
    addresses = {"size", "stride"} <= get_types(operator).keys()
    return addresses or result >= _FOLLOWING_LAYOUT.get(get_name(operator), result + 1)


def is_functional(operator: OpOverload, given: Mapping[str, Any]) -> bool:
    """True if this call surely writes to nothing and draws nothing at random.

    Never true of custom operators: tags are voluntary, and PyTorch does not check schemas.
    """
    if is_custom(operator) or list_written(operator) or list_updated_statistics(operator, given):
        return False
    if get_name(operator).endswith("_") and not get_name(operator).endswith("__"):  # inductor.accumulate_grad_
        return False
    if not count_results(operator) and not get_name(operator).startswith(_CHECKS):
        return False
    return not _may_draw(operator, given)


def is_repeatable(operator: OpOverload, given: Mapping[str, Any]) -> bool:
    """True if this call surely returns the same for the same arguments, and changes nothing.

    Unlike a functional call, a repeatable one does not return uninitialized memory or read the outside world.
    """
    outside = is_uninitialized(operator) or get_name(operator) in _READING_STATE
    return is_functional(operator, given) and not outside


def _may_draw(operator: OpOverload, given: Mapping[str, Any]) -> bool:
    if "dropout_p" in given:  # attention
        return not _is_number(given["dropout_p"], 0)
    flags = [given[flag] for flag in _FLAGS if flag in given]
    if flags and (is_random(operator) or "dropout" in get_types(operator)):  # quantized recurrent layers have no tag
        return any(flag is not False for flag in flags)  # None makes native_dropout draw
    return is_random(operator)


def _is_number(x: Any, number: float) -> bool:
    return isinstance(x, (int, float)) and x == number
