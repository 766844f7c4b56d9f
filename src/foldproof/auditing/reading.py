"""Readings of pipeline-specific operators as the ATen operators that they stand for.

Differences below the graph (packed weights, given memory, fused kernels) are not proved; the comparison of numbers
covers them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import getitem
from typing import Any

import torch
from torch import fx

from foldproof.graph.module import get_attribute
from foldproof.graph.text import Verbatim, map_nodes
from foldproof.operators import (
    FunctionalForm,
    bind_arguments,
    find_functional_form,
    find_operator,
    get_name,
    list_written,
    writes_out,
)
from foldproof.torch_internals import HigherOrderOperator, OpOverload, tree_map

aten = torch.ops.aten

Emit = Callable[..., fx.Node]
"""Function that adds a call of an operator to the graph."""
Semantics = Callable[..., fx.Node | None]
"""Function of ``emit`` and an operator's arguments by name that returns the node of the result; None if it can't."""


def written(x: Any, names: Callable[[fx.Node], str]) -> str:
    """Format arguments of a node as Python, valid where torch is imported."""

    def plain(value: Any) -> Any:
        if isinstance(value, torch.device):
            return Verbatim(f"torch.device({str(value)!r})")
        if isinstance(value, float) and not math.isfinite(value):
            return Verbatim(f"float({str(value)!r})")
        return value

    return repr(tree_map(plain, map_nodes(x, lambda n: Verbatim(names(n)))))


def read_into(graph: fx.Graph, node: fx.Node, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> fx.Node | None:
    """Add the reading of ``node``, called with these arguments, to ``graph``; None if the node stands for itself."""
    target = find_operator(node.target)
    if node.op != "call_function" or target is None:
        return None

    def emit(function: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return graph.create_node("call_function", function, args, kwargs, name=node.name)

    form = _find_functional(target)
    if form is not None:
        owned = all(_owns_memory(node, node.kwargs.get(name)) for name in form.memory)
        without = _drop_memory(form, kwargs) if owned else None
        if without is None:
            return None
        target, kwargs = form.operator, without
    reading = READINGS.get(str(target))
    if reading is not None:
        return reading(emit, **bind_arguments(target, args, kwargs))
    return emit(target, *args, **kwargs) if target is not node.target else None  # for edge operators, the ATen one


def read_ordered(graph: fx.Graph, node: fx.Node, args: tuple[Any, ...]) -> fx.Node | None:
    """Add the operator that ``node`` runs after others, as random draws are, to ``graph``; None for other nodes."""
    if not isinstance(node.target, HigherOrderOperator) or node.target.name() != "control_deps":
        return None
    owner, named = node.graph.owning_module, node.args[1]
    if owner is None or not isinstance(named, fx.Node):
        return None
    part = get_attribute(owner, str(named.target))
    inside = [n for n in part.graph.nodes if n.op != "output"]
    places = [n for n in inside if n.op == "placeholder"]
    calls = [n for n in inside if n.op == "call_function"]
    if len(calls) != 1 or len(places) + 1 != len(inside):
        return None
    given = dict(zip(places, args[2:], strict=True))
    copied: fx.Node = graph.node_copy(calls[0], given.__getitem__)
    return copied


def read_written_element(node: fx.Node, args: tuple[Any, ...]) -> fx.Node | None:
    """Return the written tensor that ``node`` takes from an operator on lists in place, which returns none.

    Inductor makes such operators of those that return lists.
    """
    if node.target is not getitem or not isinstance(node.args[0], fx.Node) or not isinstance(args[0], fx.Node):
        return None
    target = find_operator(node.args[0].target)
    if target is None or not get_name(target).startswith("_foreach_") or not list_written(target):
        return None
    written = args[0].args[0]
    found = written[args[1]] if isinstance(written, (tuple, list)) else None
    return found if isinstance(found, fx.Node) else None


def find_memory(node: fx.Node) -> fx.Node | None:
    """Return the node whose memory the operator writes its result into, and which later nodes read instead of it."""
    target = find_operator(node.target) if node.op == "call_function" else None
    form = None if target is None else _find_functional(target)
    if form is None or len(form.memory) != 1:
        return None
    memory = node.kwargs.get(form.memory[0])
    return memory if isinstance(memory, fx.Node) and _owns_memory(node, memory) else None


def apply_fused_activation(graph: fx.Graph, node: fx.Node, result: fx.Node) -> fx.Node:
    """Clamp the result of a node with a fused activation, which XNNPACK's passes record on the node before it."""
    limits = node.meta.get("XNN_FUSED_ACTIVATION")
    if limits is None:
        return result
    low, high = (float(x) for x in (limits.output_min, limits.output_max))
    return graph.call_function(aten.clamp.default, (result, low, None if math.isinf(high) else high))


def _owns_memory(node: fx.Node, memory: Any) -> bool:
    """True if only ``node`` uses this memory, so that its result can replace it.

    Taking elements out of the memory is allowed: results in a list are read so.
    """
    if not isinstance(memory, fx.Node) or any(n is not node and n.target is not getitem for n in memory.users):
        return False
    name = getattr(memory.target, "__name__", "")
    return name == "alloc" or name.startswith("empty")


def _drop_memory(form: FunctionalForm, kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the keyword arguments of the functional form of an operator that writes into given memory."""
    memory = [value for name, value in kwargs.items() if name in form.memory]
    left = {name: value for name, value in kwargs.items() if name not in form.memory}
    if "dtype" in form.options and "dtype" not in left:
        first = memory[0].args[0] if memory and isinstance(memory[0], fx.Node) and memory[0].args else None
        if not isinstance(first, (tuple, list)):
            return None
        left["dtype"] = first[1]  # ExecuTorch's alloc takes ((shape, dtype),)
    return left


def _find_functional(target: OpOverload) -> FunctionalForm | None:
    """Return the functional form of an operator that writes its results into given memory."""
    return find_functional_form(target) if writes_out(target) else None


def _converted(emit: Emit, a: Any, dtype: Any) -> fx.Node:
    return emit(aten._to_copy.default, a, dtype=dtype)


def _reshaped(emit: Emit, self: Any, size: Any) -> fx.Node:
    """Read a view as a reshape: strides may forbid a view in another layout, but the values are the same."""
    return emit(aten.reshape.default, self, size)


def _empty(emit: Emit, size: Any, dtype: Any, **_: Any) -> fx.Node:
    return emit(aten.empty.memory_format, size, dtype=dtype)


def _token(emit: Emit) -> fx.Node:
    """Read a token, which orders calls with effects, as a tensor without elements."""
    return emit(aten.full.default, [0], 0)


def _same(emit: Emit, self: Any, **_: Any) -> fx.Node:
    """Read a reordered weight as the weight itself, because `snapshot` reads it in the usual order."""
    return emit(aten.clone.default, self)


def _transposed(emit: Emit, self: Any, groups: int, **_: Any) -> fx.Node | None:
    """Transpose the weight of a transposed convolution, which oneDNN holds with output channels first."""
    return emit(aten.transpose.int, self, 0, 1) if groups == 1 else None


def _convolution(emit: Emit, **given: Any) -> fx.Node | None:
    g = given
    out = emit(
        aten.convolution.default,
        *(g["X"], g["W"], g["B"], g["stride"], g["padding"], g["dilation"], False, [0] * len(g["stride"]), g["groups"]),
    )
    return _activated(emit, out, g["attr"], g["scalars"], g["algorithm"])


def _convolution_binary(emit: Emit, **given: Any) -> fx.Node | None:
    function = {"add": aten.add.Tensor, "sub": aten.sub.Tensor, "mul": aten.mul.Tensor}.get(given["binary_attr"])
    out = _convolution(emit, **given | {"attr": "none", "scalars": [], "algorithm": None})
    if function is None or out is None or given["alpha"] not in (None, 1):
        return None
    both = emit(function, out, given["other"])
    return _activated(emit, both, given["unary_attr"] or "none", given["unary_scalars"], given["unary_algorithm"])


def _transposed_convolution(emit: Emit, **given: Any) -> fx.Node | None:
    g = given
    if g["groups"] != 1:
        return None
    weight = emit(aten.transpose.int, g["W"], 0, 1)
    out = emit(
        aten.convolution.default,
        *(g["X"], weight, g["B"], g["stride"], g["padding"], g["dilation"], True, g["output_padding"], 1),
    )
    return _activated(emit, out, g["attr"], g["scalars"], g["algorithm"])


def _linear(emit: Emit, X: Any, W: Any, B: Any, attr: str, scalars: Any, algorithm: Any) -> fx.Node | None:
    return _activated(emit, emit(aten.linear.default, X, W, B), attr, scalars, algorithm)


def _linear_binary(emit: Emit, X: Any, other: Any, W: Any, B: Any, attr: str) -> fx.Node | None:
    function = {"add": aten.add.Tensor, "sub": aten.sub.Tensor, "mul": aten.mul.Tensor}.get(attr)
    return None if function is None else emit(function, emit(aten.linear.default, X, W, B), other)


def _mkl_linear(emit: Emit, X: Any, MKL_W: Any, ORI_W: Any, B: Any, batch_size: int) -> fx.Node:
    return emit(aten.linear.default, X, ORI_W, B)


_UNARY = {
    "relu": aten.relu.default,
    "sigmoid": aten.sigmoid.default,
    "tanh": aten.tanh.default,
    "swish": aten.silu.default,
    "hardswish": aten.hardswish.default,
    "hardsigmoid": aten.hardsigmoid.default,
}


def _activated(emit: Emit, x: fx.Node, name: str, scalars: Any, algorithm: Any) -> fx.Node | None:
    """Apply the activation that oneDNN fuses into an operator."""
    if name == "none":
        return x
    if name in _UNARY:
        return emit(_UNARY[name], x)
    if name == "gelu":
        return emit(aten.gelu.default, x, approximate=algorithm)
    if name == "leaky_relu":
        return emit(aten.leaky_relu.default, x, *scalars)
    if name == "hardtanh":
        return emit(aten.hardtanh.default, x, *scalars)
    return None


READINGS: Mapping[str, Semantics] = {
    "prims._make_token.default": _token,
    "prims.convert_element_type.default": _converted,
    "dim_order_ops._empty_dim_order.default": _empty,
    "aten.view.default": _reshaped,
    "aten._unsafe_view.default": _reshaped,
    "mkldnn._reorder_convolution_weight.default": _same,
    "mkldnn._reorder_linear_weight.default": _same,
    "mkldnn._reorder_convolution_transpose_weight.default": _transposed,
    "mkldnn._convolution_pointwise.default": _convolution,
    "mkldnn._convolution_pointwise.binary": _convolution_binary,
    "mkldnn._convolution_transpose_pointwise.default": _transposed_convolution,
    "mkldnn._linear_pointwise.default": _linear,
    "mkldnn._linear_pointwise.binary": _linear_binary,
    "mkl._mkl_linear.default": _mkl_linear,
}
