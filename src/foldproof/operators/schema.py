"""Facts from an operator's schema: its arguments, the memory that it shares and writes, its functional form.

Arguments are identified by their names in the schema. No other module reads a schema.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch

from foldproof.torch_internals import OpOverload, OpOverloadPacket, edge_operators

_SILENT_VIEWS = frozenset(
    {
        *("aten._unsafe_view", "aten.unsafe_split", "aten.unsafe_split_with_sizes", "aten.unsafe_chunk"),
        *("inductor._reinterpret_tensor", "inductor._alloc_from_pool"),
    }
)
"""Operators with a result in the memory of their first argument, undeclared by their schemas."""

_MAY_RETURN_ARGUMENT = frozenset(
    {
        *("aten.dropout", "aten.alpha_dropout", "aten.feature_dropout", "aten.feature_alpha_dropout"),
        *("aten.atleast_1d", "aten.atleast_2d", "aten.atleast_3d", "aten.broadcast_tensors", "aten.meshgrid"),
        *("aten.cartesian_prod", "aten.einsum", "aten.sum_to_size", "aten.conj_physical", "aten.to_dense"),
        *("aten.lift", "aten.histogramdd", "prims.inductor_force_stride_order", "aten.type_as", "aten.dequantize"),
        *("aten.data", "aten.set", "aten.slice_inverse", "aten.flatten_dense_tensors", "aten._to_cpu"),
        *("aten.to_dense_backward", "aten.to_mkldnn_backward", "aten._saturate_weight_to_fp16"),
        *(f"aten._cast_{kind}" for kind in ("Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")),
    }
)
"""Operators that may return an argument, or a view of it, undeclared: dropout in evaluation, a cast to its dtype."""

_OPTIONS = ("dtype", "layout", "device", "pin_memory", "memory_format")
"""Properties of a new tensor."""


def find_operator(target: Any) -> OpOverload | None:
    """Return the operator of a node's target; None if it has none.

    The target may be the operator itself, a wrapper of it in an edge program, or the packet of a single overload.
    For operators that ExecuTorch keeps from being decomposed, return the ATen operators that they stand for.
    """
    if isinstance(target, OpOverloadPacket) and target.overloads() == ["default"]:
        return target.default
    found = target if isinstance(target, OpOverload) else getattr(target, "_op", None)
    if not isinstance(found, OpOverload):
        return None
    if found.namespace == "EDGE_DO_NOT_DECOMP":
        packet = getattr(torch.ops.aten, get_name(found))
        return getattr(packet, found._overloadname)  # type: ignore[no-any-return]
    return found


def to_edge(operator: OpOverload) -> Any:
    """Return the operator as edge programs of ExecuTorch call it."""
    packet = getattr(getattr(edge_operators(), operator.namespace), get_name(operator))
    return getattr(packet, operator._overloadname)


def get_name(operator: OpOverload) -> str:
    """Return the operator's name without namespace and overload: ``conv2d``."""
    name: str = operator.overloadpacket.__name__
    return name


def get_types(operator: OpOverload) -> dict[str, str]:
    """Return the types of the arguments by name, in order: ``{"self": "Tensor", "dim": "int"}``."""
    return {argument.name: str(argument.type) for argument in operator._schema.arguments}


def bind_arguments(operator: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, positional, keyword and default alike."""
    defaults = _list_defaults(operator)
    return defaults | dict(zip(defaults, args)) | dict(kwargs)


@cache
def _list_defaults(operator: OpOverload) -> dict[str, Any]:
    return {argument.name: argument.default_value for argument in operator._schema.arguments}


def count_results(operator: OpOverload) -> int:
    """Return the number of results; a list of tensors counts as one."""
    return len(operator._schema.returns)


def is_pointwise(operator: OpOverload) -> bool:
    """True if each element of the result is a function of the elements in its place, with broadcasting."""
    return torch.Tag.pointwise in operator.tags


@cache
def is_view(operator: OpOverload) -> bool:
    """True if the result may be a view of an argument; some, such as ``reshape``, return one only where possible."""
    if _qualified(operator) in _SILENT_VIEWS:
        return True
    return any(r.alias_info is not None and not r.alias_info.is_write for r in operator._schema.returns)


def has_dynamic_shape(operator: OpOverload) -> bool:
    """True if the shape of a result depends on the values of the operands: ``nonzero``, ``unique``."""
    return torch.Tag.dynamic_output_shape in operator.tags


def is_view_copy(operator: OpOverload) -> bool:
    """True if the result is a copy of a view: ``permute_copy``."""
    return torch.Tag.view_copy in operator.tags


def reshapes_in_place(operator: OpOverload) -> bool:
    """True if an argument becomes a view of its old self: ``squeeze_``."""
    return torch.Tag.inplace_view in operator.tags


@cache
def list_written(operator: OpOverload) -> tuple[str, ...]:
    """Return the arguments that the schema declares as written; see also `list_updated_statistics`."""
    arguments = operator._schema.arguments
    return tuple(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)


@cache
def list_shared(operator: OpOverload) -> tuple[str, ...]:
    """Return the arguments whose memory the result may share, as a view or after a write."""
    arguments = operator._schema.arguments
    if any(result.alias_info is not None for result in operator._schema.returns):
        return tuple(a.name for a in arguments if a.alias_info is not None)
    if _qualified(operator) in _SILENT_VIEWS:
        return (arguments[0].name,)
    if _qualified(operator) in _MAY_RETURN_ARGUMENT:
        return tuple(a.name for a in arguments if "Tensor" in str(a.type))
    return ()


@cache
def writes_out(operator: OpOverload) -> bool:
    """True if the call writes only to memory given for results: ``add.out``."""
    arguments = [a for a in operator._schema.arguments if a.name in list_written(operator)]
    return bool(arguments) and all(a.is_out for a in arguments)


@cache
def writes_result(operator: OpOverload) -> bool:
    """True if the result is a written argument: ``add_``, ``add.out``."""
    return any(r.alias_info is not None and r.alias_info.is_write for r in operator._schema.returns)


class FunctionalForm(NamedTuple):
    """The operator that returns the result which another one writes."""

    operator: OpOverload
    memory: tuple[str, ...]
    """The ``out`` arguments, which the functional form lacks; empty for an operator that works in place."""
    options: tuple[str, ...]
    """Properties of the result as extra arguments, because no memory determines them: its dtype, for one."""


@cache
def find_functional_form(operator: OpOverload) -> FunctionalForm | None:
    """Return the operator without the write, ``add_.Tensor`` → ``add.Tensor``, ``mm.out`` → ``mm.default``; or None."""
    arguments = operator._schema.arguments
    written = list_written(operator)
    memory = tuple(a.name for a in arguments if a.name in written and a.kwarg_only)
    wanted = [(a.name, str(a.type)) for a in arguments if a.name not in memory]
    name = get_name(operator)
    name = name if name.endswith("__") else name.removesuffix("_")
    packet = getattr(getattr(torch.ops, operator.namespace), name, None)
    if packet is None or not written:
        return None
    candidates = [getattr(packet, overload) for overload in packet.overloads()]
    candidates = [c for c in candidates if not c._schema.is_mutable and count_results(c) == len(written)]
    for candidate in candidates:
        if list(get_types(candidate).values()) == [kind for _, kind in wanted]:
            return FunctionalForm(candidate, memory, ())
    for candidate in candidates:
        has = list(get_types(candidate).items())
        if memory and _without_options(has) == _without_options(wanted):
            return FunctionalForm(candidate, memory, tuple(n for n, _ in has if n in _OPTIONS and (n, _) not in wanted))
    return None


def _without_options(arguments: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [argument for argument in arguments if argument[0] not in _OPTIONS]


def _qualified(operator: OpOverload) -> str:
    return f"{operator.namespace}.{get_name(operator)}"
