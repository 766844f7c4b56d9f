"""Operators without a rule of their own, as one uninterpreted function of all their operands.

An operator that writes to nothing, draws nothing and reads nothing else returns the same for the same operands. That is
enough for programs that leave it alone: a linear solver, a decomposition, a scatter with a maximum between two layers
that a pass folds. Every element of a result is an uninterpreted function of a fingerprint of each operand, the numbers
among the arguments, and the element's place; also of the operands' strides, where these matter. Of an operator that
PyTorch declares to be pointwise, it is a function of the operands' elements in its place instead.

A fingerprint is a random linear combination of all elements. Its polynomial is of a degree one higher, so that the
lemma of Schwartz and Zippel covers operands that differ and have equal fingerprints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.digest import digest
from foldproof.field import Size
from foldproof.operators import bind_arguments, follows_layout, is_pointwise, is_repeatable, is_view
from foldproof.shadow.call import Call
from foldproof.shadow.extremes import read_extreme
from foldproof.shadow.leaves import all_finite, embed_constant, is_number, of_pairs
from foldproof.shadow.residue import Residue, apply_uninterpreted
from foldproof.torch_internals import OpOverload, tree_iter, tree_map

AS_A_WHOLE = " as a whole"
"""The end of the name of such a function."""


def is_read_as_a_whole(operator: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return True if an operator without a rule is a function of its operands, as far as PyTorch tells."""
    return is_repeatable(operator, bind_arguments(operator, args, kwargs)) and not is_view(operator)


def residues_of_results(call: Call) -> list[Residue | None]:
    """Return the residue of each floating-point tensor among the results, None for others.

    Raises:
        Undecided: a result is not finite, or sparse, or quantized.
    """
    if is_pointwise(call.operator) and isinstance(call.result, Tensor):
        return [_elementwise(call, call.result)]
    extreme = read_extreme(call)
    if extreme is not None:
        return [extreme, *(None for _ in [*tree_iter(call.result)][1:])]
    operands: list[Residue] = []

    def named(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        if is_number(x.dtype) or hasattr(x, "residue"):  # quantized numbers have residues, too
            operands.append(_fingerprint(_real(call.residue(x))))
            return f"{x.dtype}{tuple(x.shape)}"
        return f"{x.dtype}{tuple(x.shape)}:{digest([x])}"

    key = f"{call.operator.overloadpacket.__name__}{AS_A_WHOLE}({call.operator}, {tree_map(named, call.arguments)!r}"
    return [_result(call, f"{key}, {j}{_layout(call, j)})", x, operands) for j, x in enumerate(tree_iter(call.result))]


def _layout(call: Call, result: int) -> str:
    """Return the strides of the operands in words, if the result of this number depends on them."""
    if not follows_layout(call.operator, result):
        return ""
    tensors = [x for x in tree_iter(call.value(call.arguments)) if isinstance(x, Tensor)]
    return f", laid out as {[(x.stride(), x.storage_offset()) for x in tensors]}"


def _elementwise(call: Call, value: Tensor) -> Residue | None:
    """Return each element of a pointwise operator's result as one function of the operands' elements in its place."""
    if not _has_residues(call, value, finite=False):
        return None
    tensors = [x for x in tree_iter(call.arguments) if isinstance(x, Tensor)]
    operands = [part for x in tensors for part in _spread(call.residue(x), value.shape)]
    named = tree_map(lambda x: x.dtype if isinstance(x, Tensor) else x, call.arguments)
    key = f"{call.operator.overloadpacket.__name__}{AS_A_WHOLE}({call.operator}, each element, {named!r})"
    if not value.is_complex():
        return apply_uninterpreted(key, operands, lambda *_: value.detach().double())
    place = embed_constant(call.point, torch.arange(2).expand(*value.shape, 2))
    pairs = [operand.map(lambda part: part.unsqueeze(-1)) for operand in operands]
    return of_pairs(apply_uninterpreted(key, [*pairs, place], lambda *_: _reals(value)))


def _spread(x: Residue, shape: Sequence[int]) -> list[Residue]:
    """Return the residue, or the two of a complex tensor, with the elements in the places of the result's."""
    if not x.is_complex:
        return [x.map(lambda part: part.expand(shape))]
    return [_real(x).map(lambda part, i=i: part[..., i].expand(shape)) for i in range(2)]


def _real(x: Residue) -> Residue:
    """Return the residue of the real and imaginary parts of a complex tensor; that of a real one is its own."""
    return x.view(torch.view_as_real) if x.is_complex else x


def _reals(value: Tensor) -> Tensor:
    """Return a tensor of numbers in float64, complex ones as pairs."""
    return (torch.view_as_real(value.resolve_conj()) if value.is_complex() else value).detach().double()


def _result(call: Call, name: str, value: Any, operands: Sequence[Residue]) -> Residue | None:
    if not isinstance(value, Tensor) or not _has_residues(call, value):
        return None
    return _function_of(name, value, operands)


def _function_of(name: str, value: Tensor, operands: Sequence[Residue]) -> Residue:
    """Return each element of ``value`` as the function ``name`` of the operands' fingerprints and its place."""
    real = _reals(value)
    place = embed_constant(operands[0].point, torch.arange(real.numel()))
    flat = apply_uninterpreted(name, [*operands, place], lambda *_: real.flatten())
    shaped = flat.reshape(*real.shape)
    return of_pairs(shaped) if value.is_complex() else shaped


def apply_to_whole(name: str, value: Tensor, operands: Sequence[Residue]) -> Residue:
    """Return ``value`` as the uninterpreted function ``name`` of all elements of all operands, which are real."""
    return _function_of(name, value, [_fingerprint(x) for x in operands])


def apply_to_each(name: str, x: Residue) -> Residue:
    """Return an uninterpreted function of each element: another function in each place."""
    place = embed_constant(x.point, torch.arange(x.numel()).reshape(x.shape))
    return apply_uninterpreted(name, [x, place], lambda value, _: value)


def _has_residues(call: Call, value: Tensor, finite: bool = True) -> bool:
    """True for a result of numbers; integers and booleans are what their values are.

    Raises:
        Undecided: the result is sparse or quantized, or, where it has to be ``finite``, is not.
    """
    if value.layout != torch.strided or value.is_quantized:
        raise call.undecided(f"a result of dtype {value.dtype} and layout {value.layout} has no residues")
    if finite and is_number(value.dtype) and not all_finite(value):
        raise call.undecided("it has no rule, and a result is not finite")
    return is_number(value.dtype)


def _fingerprint(x: Residue) -> Residue:
    """Return a random linear combination of the elements, the same one for all tensors of their number."""
    point = x.point
    coefficients = point.coefficients(x.numel())
    parts = [f.reduce(f.reduce(p.flatten() * c).sum()) for f, p, c in zip(point.fields, x.parts, coefficients)]
    return Residue(point, tuple(parts), (x.size * Size.variable()).total(max(x.numel(), 1)), True)
