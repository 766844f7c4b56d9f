"""The same facts for functions of torch, methods of tensors and modules, which stand for operators in traced graphs.

Their names and arguments show a write, or the operator of the same name does.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from foldproof.operators.effects import is_random
from foldproof.operators.schema import list_written, writes_out
from foldproof.torch_internals import OpOverload, OpOverloadPacket, has_hooks

_RANDOM = ("rand", "bernoulli", "multinomial", "normal", "poisson", "binomial", "gumbel", "fractional_max", "manual")
"""Prefixes of the names of functions that draw random numbers."""

_RECURRENT = ("multi_head_attention_forward", "lstm", "gru", "rnn_relu", "rnn_tanh")
"""Functions that may drop out; the arguments for it differ in place."""

_WRITING_OPERATORS = (
    {"call", "setitem", "delitem"}
    | {
        f"i{name}"
        for name in ("add", "and", "concat", "floordiv", "lshift", "matmul", "mod", "mul", "or", "pow", "rshift", "sub")
    }
    | {"itruediv", "ixor"}
)
"""Functions of Python's ``operator`` that may write to their arguments."""


def is_norm_function(function: Any) -> bool:
    """True if a function of torch is a normalization that updates running statistics in training."""
    return function in (F.batch_norm, F.instance_norm, torch.batch_norm, torch.instance_norm)


def is_functional_method(name: str) -> bool:
    """True if a method of tensors surely writes to nothing and draws nothing at random."""
    return not name.endswith("_") and not name.startswith(_RANDOM)


_DEFINITIONS = ("foldproof.onnx_graph.", "foldproof.openvino_graph.")
"""The package whose functions are the operators of ONNX, which have neither state nor effects."""


def is_functional_function(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """True if this call of a Python function surely writes to nothing and draws nothing at random.

    Never true of functions outside of torch, Python's ``operator`` and the definitions of ONNX's and OpenVINO's.
    """
    name = getattr(function, "__name__", "")
    module = getattr(function, "__module__", "") or ""
    if module == "_operator":
        return name not in _WRITING_OPERATORS
    if module.startswith(_DEFINITIONS):
        return True
    if module != "torch" and not module.startswith(("torch._C", "torch.functional", "torch.nn.functional")):
        return False
    writes = name.endswith("_") or _is_told_to_write(function, args, kwargs) or _writes_by_name(name)
    return not writes and not _may_draw(function, name, args, kwargs)


def is_functional_module(module: Any) -> bool:
    """True if a module is one of `torch.nn`'s that surely writes to nothing and draws nothing at random."""
    if type(module) not in _functional_modules() or "forward" in vars(module):
        return False
    if has_hooks(module) or any(module.children()):
        return False
    if getattr(module, "inplace", False) or getattr(module, "max_norm", None) is not None:
        return False
    if isinstance(module, _NORMS) and module.running_mean is not None:
        return not module.training and module.track_running_stats
    return not (module.training and isinstance(module, (*_NORMS, *_DROPOUTS)))


_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@functools.cache
def _functional_modules() -> frozenset[type]:
    """Return the classes of functional modules.

    RReLU, the one activation that draws, and attention, which drops out, are left out.
    """
    m = nn.modules
    files = [m.activation, m.batchnorm, m.conv, m.dropout, m.flatten, m.instancenorm, m.linear, m.normalization]
    files += [m.padding, m.pixelshuffle, m.pooling, m.sparse, m.upsampling]
    found = {x for file in files for x in vars(file).values() if isinstance(x, type) and x.__module__ == file.__name__}
    drawing = {nn.RReLU, nn.MultiheadAttention, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d}
    return frozenset(x for x in found - drawing if issubclass(x, nn.Module))


def _may_draw(function: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """True if a function of torch may draw random numbers or update statistics."""
    if function is F.multi_head_attention_forward:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        return given.get("training", True) is not False and given["dropout_p"] != 0
    if name == "scaled_dot_product_attention":
        return bool((args[4] if len(args) > 4 else kwargs.get("dropout_p", 0)) != 0)
    if function in (F.batch_norm, F.instance_norm):  # torch's own versions take their arguments in another order
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        if given.get("running_mean") is given.get("running_var") is None:
            return False
    norm = name in ("batch_norm", "native_batch_norm", "_batch_norm_impl_index", "instance_norm")
    place = 2 if "dropout" in name else 3 if name == "rrelu" else 5 if norm else None
    if place is not None:
        return len(args) <= place or args[place] is not False
    return name.startswith(_RANDOM) or name in _RECURRENT or any(is_random(o) for o in _overloads(name))


@functools.cache
def _writes_by_name(name: str) -> bool:
    """True if the operator of this name writes to its arguments in every form."""
    return any(list_written(o) and not writes_out(o) for o in _overloads(name))


def _overloads(name: str) -> list[OpOverload]:
    packet = getattr(torch.ops.aten, name, None)
    return [getattr(packet, o) for o in packet.overloads()] if isinstance(packet, OpOverloadPacket) else []


def _is_told_to_write(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    if kwargs.get("out") is not None:
        return True
    try:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # functions written in C++ have no signature, and writing ones have another name
        given = kwargs  # type: ignore[assignment]
    return bool(given.get("inplace")) or given.get("max_norm") is not None  # embeddings scale their weights to max_norm
