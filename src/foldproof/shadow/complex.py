"""Complex numbers as pairs of real ones.

A complex tensor is a real tensor with a last axis of two: ``view_as_real`` shows it without a copy. Its residues are
these pairs, held as complex128 tensors of the tensor's own shape and strides, whose real and imaginary parts are
residues. So

* operators that select and rearrange elements have the same rules as for real numbers, on the same parts
* ``view_as_real`` and ``view_as_complex`` are views of residues as they are of values: writes to either show in both
* every other operator on complex numbers is defined by operators on the real and imaginary parts
  (`foldproof.shadow.rules.complex`), whose rules are those of real numbers. All that is claimed, counted, cut or known
  about real numbers needs no second form.

An operator without a definition is read as a whole, if it may be, or has no rule.

Conjugates and negatives
------------------------
``x.conj()`` is a view: a bit tells that the memory holds the conjugates of the elements, and another, of the imaginary
part of a conjugate, that it holds their negatives. A shadow carries both bits, and so does its value. The residue is
always that of the memory, which is what views share and writes change. An operator that reads elements gets them
resolved; a view of such a tensor is the view of its memory, with the bits put back; and a write through it writes the
conjugates. PyTorch does the same for most operators before they arrive here.

Infinities
----------
An infinite part makes products of complex numbers nan, or not, by conventions of kernels. Residues do not follow them:
such an operator is UNDECIDED, except for one that only rearranges, or reads the parts as real numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.operators import bind_arguments, list_written
from foldproof.shadow.call import Call
from foldproof.shadow.operands import iterate
from foldproof.shadow.registry import RULES, RuleFunction
from foldproof.shadow.residue import Residue
from foldproof.shadow.undecided import Undecided
from foldproof.torch_internals import OpOverload, tree_iter, tree_map

aten = torch.ops.aten

TOGGLES = {aten._conj.default, aten._neg_view.default}
"""Operators that return the same memory with a bit changed."""

_AS_REAL = {aten.view_as_real.default, aten.view.dtype}
"""Views of which conjugates have none."""


def involves_complex(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return True if complex tensors, numbers or dtypes are among the arguments."""
    return any(
        x.is_complex() if isinstance(x, Tensor) else type(x) is complex or (isinstance(x, torch.dtype) and x.is_complex)
        for x in iterate((args, kwargs))
    )


def is_flagged(x: Any) -> bool:
    """Return True for a tensor whose memory holds the conjugates, or the negatives, of its elements."""
    return isinstance(x, Tensor) and (x.is_conj() or x.is_neg())


def resolved(x: Any) -> Any:
    """Return a shadow with its elements in memory, anything else unchanged."""
    if not is_flagged(x) or not hasattr(x, "residue"):
        return x
    return _as_flagged(memory_of(x), x)


def run_flagged(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator on shadows of which some are conjugates or negatives in memory.

    Raises:
        Undecided: it writes to such a tensor by itself.
    """
    written = [bind_arguments(func, args, kwargs)[name] for name in list_written(func)]
    if any(is_flagged(x) for x in written):
        if func is not aten.copy_.default:
            raise Undecided(f"{func} writes to the conjugate or the negative of a tensor")
        source = torch.as_tensor(resolved(args[1]))
        memory_of(args[0]).copy_(_as_flagged(source, args[0]))
        return args[0]
    rule = RULES.get(func)
    if rule is None or not rule.view or not is_flagged(args[0]):
        return func(*tree_map(resolved, args), **tree_map(resolved, kwargs))
    if args[0].is_conj() and func in _AS_REAL:
        raise Undecided(f"{func} of a conjugate, which has no such view")
    made = func(memory_of(args[0]), *args[1:], **kwargs)
    return tree_map(lambda y: flagged_like(y, args[0]) if isinstance(y, Tensor) else y, made)


def memory_of(x: Any) -> Any:
    """Return the shadow of the same memory, without bits."""
    value = x.value
    value = aten._conj.default(value) if value.is_conj() else value
    value = aten._neg_view.default(value) if value.is_neg() else value
    return type(x)(value, x.residue)


def flagged_like(x: Tensor, other: Tensor) -> Tensor:
    """Return a view of ``x`` with the bits of ``other``."""
    x = aten._conj.default(x) if other.is_conj() else x
    return aten._neg_view.default(x) if other.is_neg() else x


def _as_flagged(x: Tensor, other: Tensor) -> Tensor:
    """Return the conjugates or negatives of ``x``, or both, by the bits of ``other``."""
    x = torch.conj_physical(x) if other.is_conj() and x.is_complex() else x
    return -x if other.is_neg() else x


def by_parts(call: Call, definition: RuleFunction) -> Any:
    """Return the residue of the operator's result, or the result itself if it has none, by the operator's definition.

    NotImplemented stands for an operator that is to be read as a whole.

    Raises:
        Undecided: an operand is infinite, or the definition does not cover this case.
    """
    operands = [x for x in tree_iter((call.args, dict(call.kwargs))) if isinstance(x, Tensor)]
    if any(hasattr(x, "residue") and x.residue.infinite for x in operands):
        raise call.undecided("complex numbers with infinite parts")
    made = definition(call, *call.args, **call.kwargs)
    if isinstance(made, Residue):
        assert made.shape == call.first_result.shape
        return made
    if not isinstance(made, Tensor) or made.dtype is torch.bool:
        return made
    if (made.shape, made.dtype) != (call.first_result.shape, call.first_result.dtype):
        told = f"{tuple(made.shape)} in {made.dtype}"
        raise call.undecided(f"its parts give {told}, not {tuple(call.result.shape)} in {call.result.dtype}")
    residue: Residue = call.residue(made)
    return residue


def parts_of(x: Any) -> tuple[Any, Any]:
    """Return the real and the imaginary part of a tensor or number; the latter is None for a real one."""
    if not isinstance(x, Tensor):
        return (x.real, x.imag) if isinstance(x, complex) else (x, None)
    if not x.is_complex():
        return x, None
    pairs = torch.view_as_real(x.resolve_conj())
    return _shared(pairs.select(-1, 0)), _shared(pairs.select(-1, 1))


def _shared(part: Tensor) -> Tensor:
    """Return a part, with what is known about the value that it was made of."""
    residue = getattr(part, "residue", None)
    if isinstance(residue, Residue):
        residue.point.facts.share(residue)
    return part


def of_parts(real: Any, imaginary: Any) -> Tensor:
    """Return the complex tensor of two real ones, of which one may be a number."""
    like = real if isinstance(real, Tensor) else imaginary
    real, imaginary = torch.broadcast_tensors(*(_as_tensor(x, like) for x in (real, imaginary)))
    return torch.view_as_complex(torch.stack([real, imaginary], -1))


def _as_tensor(x: Any, like: Tensor) -> Tensor:
    if x is None:
        return torch.zeros_like(like)
    return x.to(like.dtype) if isinstance(x, Tensor) else torch.full_like(like, x)
