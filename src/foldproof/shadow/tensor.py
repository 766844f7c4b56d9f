"""The shadow: a tensor that carries its value and a residue through every operator, view, write and wrapper."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.layout import clone
from foldproof.operators import (
    bind_arguments,
    define_foreach,
    find_functional_form,
    has_dynamic_shape,
    is_random,
    is_uninitialized,
    list_written,
    reshapes_in_place,
)
from foldproof.shadow.call import OVERFLOWN, Call, value_of
from foldproof.shadow.complex import (
    TOGGLES,
    by_parts,
    flagged_like,
    involves_complex,
    is_flagged,
    memory_of,
    run_flagged,
)
from foldproof.shadow.escapes import BLIND, ESCAPING, is_called_by_libraries, note_escape
from foldproof.shadow.extremes import SETS
from foldproof.shadow.jumps import note_jump
from foldproof.shadow.leaves import draw_variable, embed_constant, is_number, mark_infinities, overflows
from foldproof.shadow.ondemand import OnDemand, in_memory
from foldproof.shadow.operands import iterate, mapped
from foldproof.shadow.registry import COMPLEX, RULES, Rule, RuleFunction, RuleKind
from foldproof.shadow.residue import Residue
from foldproof.shadow.sample import Choices, SamplePoint, WritesBorrowed
from foldproof.shadow.undecided import Undecided, no_rule
from foldproof.shadow.whole import is_read_as_a_whole, residues_of_results
from foldproof.torch_internals import (
    DispatchMode,
    OpOverload,
    body_in_aten,
    has_decomposition,
    make_wrapper,
    python_body,
    quantized_operators,
    resolving_bits,
    storage_id,
    tree_iter,
    tree_map,
)

aten = torch.ops.aten
decomposed = quantized_operators()

_DEQUANTIZE = {
    decomposed.dequantize_per_tensor.default,
    decomposed.dequantize_per_tensor.tensor,
    decomposed.dequantize_per_channel.default,
}

# They make real numbers of whole ones.
_CASTING = {
    aten._to_copy.default,
    *(op for name in ("add", "div", "mul", "sub") for op in (getattr(aten, name).Tensor, getattr(aten, name).Scalar)),
    *(aten.rsub.Tensor, aten.rsub.Scalar),
}

_FILLED = {aten.ones.default, aten.full.default}

# Operators that keep infinities for any other operands: infinity plus x is infinity. The others select elements.
_ADD_TO_INFINITIES = {"add", "sub", "neg"}
_KEEP_INFINITIES = {*_ADD_TO_INFINITIES, "where", "masked_fill", "constant_pad_nd", "fill", "full_like", "copy"}


class Shadow(Tensor):
    """A tensor with a ``value`` and a ``residue`` (see `Residue`); it has the value's shape, dtype and strides.

    Every operator on it computes both, by the rules in `foldproof.shadow.registry`. It survives ``nn.Parameter``,
    ``detach``, ``copy.deepcopy``, views and in-place writes. Reads of its value (``.item()``, ``.numpy()``, a Python
    ``if``) are recorded in the sample point's ``escapes``.

    Raises (from any operator):
        Undecided: the operator has no rule, or its rule does not cover this case.
    """

    value: Tensor
    residue: Residue

    @staticmethod
    def __new__(cls, value: Tensor, residue: Residue) -> Shadow:
        out: Shadow = make_wrapper(cls, value)
        out.value, out.residue = value, residue
        residue.cell.held = True
        residue.point.note_dtype(value.dtype)
        return out

    def __init__(self, value: Tensor, residue: Residue) -> None:
        pass

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with resolving_bits():
            return _dispatch(func, args, kwargs or {})

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        note_escape(self.residue, "repr")
        return f"Shadow({self.value!r}, k={len(self.residue.parts)})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Shadow:
        """Return a copy; copies of tensors that share memory share memory, too."""
        if id(self) not in memo and is_flagged(self):
            memo[id(self)] = flagged_like(copy.deepcopy(memory_of(self), memo), self)
        if id(self) not in memo:
            out = Shadow(copy.deepcopy(self.value, memo), copy.deepcopy(self.residue, memo))
            if isinstance(self, nn.Parameter):
                out = nn.Parameter(out, self.requires_grad)  # type: ignore[assignment]
            memo[id(self)] = out
        copied: Shadow = memo[id(self)]
        return copied

    # Reads of values. `.item()`, `float()` and `if` go through `_local_scalar_dense`. The result is a copy: a write to
    # the value's memory from outside of PyTorch would leave the residue behind, and a leaf's memory may be its owner's.

    def numpy(self, *, force: bool = False) -> Any:
        note_escape(self.residue, "numpy")
        return clone(self.value).numpy(force=force)

    def __array__(self, dtype: Any = None) -> Any:
        note_escape(self.residue, "numpy")
        return clone(self.value).__array__(dtype)

    def tolist(self) -> Any:
        note_escape(self.residue, "tolist")
        return self.value.tolist()

    def __dlpack__(self, *args: Any, **kwargs: Any) -> Any:
        note_escape(self.residue, "__dlpack__")
        return clone(self.value).__dlpack__(*args, **kwargs)

    def storage(self) -> Any:
        note_escape(self.residue, "storage")
        return clone(self.value).storage()

    # The storage is the value's. Passes compare it to find tied parameters; a program that asks for it reads numbers.

    def data_ptr(self) -> int:
        return self.value.data_ptr()

    def untyped_storage(self) -> Any:
        if (self.residue.data or self.residue.point.running) and not is_called_by_libraries(sys._getframe(1)):
            note_escape(self.residue, "untyped_storage")
        if self.residue.cell.borrowed and not is_called_by_libraries(sys._getframe(1)):
            raise WritesBorrowed
        return self.value.untyped_storage()

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, new: Tensor) -> None:
        if self.residue.borrowed:
            raise WritesBorrowed
        if not isinstance(new, Shadow):
            new = Shadow(new, embed_constant(self.residue.point, new))
        Tensor.data.__set__(self, new)  # type: ignore[attr-defined]  # shape, strides and dtype
        self.value, self.residue = new.value, new.residue


def _dispatch(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shadows = [x for x in iterate((args, kwargs)) if isinstance(x, Shadow)]
    point = shadows[0].residue.point
    if not point.draws or not any(x.residue.cell.random for x in shadows):
        return _compute(func, args, kwargs, shadows)
    before, settled = point.choices_made, point.settled
    made = _compute(func, args, kwargs, shadows)
    results = [x for x in tree_iter(made) if isinstance(x, Tensor)]
    plain = point.settled == settled and not all(isinstance(x, Shadow) for x in results)
    if point.choices_made > before or plain:
        point.lucky.setdefault(func.overloadpacket.__name__)
    for x in results:
        if isinstance(x, Shadow):
            x.residue.cell.random = True
    return made


def _compute(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], shadows: list[Shadow]) -> Any:
    point = shadows[0].residue.point
    point.note_chosen((args, kwargs))
    if any(s.residue.point is not point for s in shadows):
        raise Undecided("shadows of two different draws met")
    if func in ESCAPING:
        for shadow in shadows:
            if shadow.dtype is torch.bool:
                point.note_decided(func.overloadpacket.__name__.removeprefix("_"))
                continue
            note_escape(shadow.residue, func.overloadpacket.__name__.removeprefix("_"))
    if func in ESCAPING or func in BLIND:
        return func(*tree_map(value_of, args), **tree_map(value_of, kwargs))
    if func in TOGGLES:
        return Shadow(func(args[0].value), args[0].residue)
    if any(map(is_flagged, shadows)) and not reshapes_in_place(func):
        return run_flagged(func, args, kwargs)
    rule = RULES.get(func)
    if rule is not None and rule.rewrites:
        return rule.function(*args, **kwargs)
    others = define_foreach(func) or (body_in_aten(func) if rule is None and not is_random(func) else None)
    if others is not None:
        return others(*args, **kwargs)
    if list_written(func):
        return _write(func, args, kwargs)
    if rule is None or not rule.complex:
        is_complex = involves_complex(args, kwargs)
        if func in COMPLEX and (rule is None or is_complex):
            return _run_by_parts(func, COMPLEX[func], args, kwargs, shadows)
        rule = None if is_complex else rule
    composite = rule is None and has_decomposition(func)  # its parts may take booleans
    if not composite and any(s.dtype is torch.bool for s in shadows) and not _takes_booleans(func, rule, args, kwargs):
        point.note_decided(func.overloadpacket.__name__)
        return _unaliased(func, func(*tree_map(_decided, args), **tree_map(_decided, kwargs)), shadows)
    if rule is None and _is_an_extreme(point, func):
        return _run_as_a_whole(func, args, kwargs, point)
    if rule is None:
        # Operators with a definition by others mostly arrive here as those others, but not from Python code.
        result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        body = python_body(func)  # the body runs on shadows like any other code
        if body is not None:
            with Factories(point):
                return body(*args, **kwargs)
        if not is_read_as_a_whole(func, args, kwargs):
            raise no_rule(func)
        return _run_as_a_whole(func, args, kwargs, point)
    if _is_read_as_a_function(point, rule, shadows, func, args, kwargs):
        return _run_as_a_whole(func, args, kwargs, point)
    value = _computed(func, args, kwargs)
    call = Call(point, func, args, kwargs, value)
    if rule.kind is RuleKind.BRANCH:
        call.note_limits()
    if not any(v.numel() for v in tree_iter(value) if isinstance(v, Tensor)):
        _note_empty_selection(call, shadows)
        return tree_map(lambda v: _empty(call, v), value)
    residue = rule.function(call, *args, **kwargs)
    is_function = isinstance(value, Tensor) and value.dtype is torch.bool and residue is not None
    if rule.kind is RuleKind.BRANCH and not is_function and call.follows_values:
        point.branch.setdefault(func.overloadpacket.__name__)
    if isinstance(value, Tensor):
        return _wrap(call, rule, shadows, value, residue)
    if isinstance(value, (tuple, list)):
        return type(value)(
            _wrap(call, rule, shadows, v, r) if isinstance(v, Tensor) else v for v, r in zip(value, residue)
        )
    return value


def _computed(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the results on values, which may not be conjugates in memory: a shadow with that bit is a view."""
    out = func(*mapped(value_of, args), **mapped(value_of, kwargs))
    if isinstance(out, Tensor) and not is_flagged(out):
        return out
    return tree_map(lambda x: x.resolve_conj().resolve_neg() if is_flagged(x) else x, out)


def _run_by_parts(
    func: OpOverload, definition: RuleFunction, args: tuple[Any, ...], kwargs: dict[str, Any], shadows: list[Shadow]
) -> Any:
    value = _computed(func, args, kwargs)
    call = Call(shadows[0].residue.point, func, args, kwargs, value)
    if not value.numel():
        return _empty(call, value)
    made = by_parts(call, definition)
    if made is NotImplemented:
        return _run_as_a_whole(func, args, kwargs, call.point)
    if not isinstance(made, Residue):
        return made
    residue = _unshared(made, shadows)
    if any(o.residue.undefined for o in shadows):
        residue.defined_if(False)
    return Shadow(value, residue.laid_out_like(value))


def _is_read_as_a_function(
    point: SamplePoint, rule: Rule, shadows: Sequence[Shadow], func: OpOverload, args: Any, kwargs: Any
) -> bool:
    """Return True if the sample point reads this choice by value as a function of its operands.

    Comparisons are followed by value, as are the operators that read their booleans.
    """
    if point.semantics.choices is Choices.BY_VALUE or rule.kind is not RuleKind.BRANCH or rule.booleans:
        return False
    return all(s.dtype.is_floating_point for s in shadows) and is_read_as_a_whole(func, args, kwargs)


def _is_an_extreme(point: SamplePoint, func: OpOverload) -> bool:
    """Return True for an operator whose body chooses the largest values, where that is to be read as a function."""
    return point.semantics.choices is not Choices.BY_VALUE and str(func) in SETS


def _run_as_a_whole(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any], point: SamplePoint) -> Any:
    value = _computed(func, args, kwargs)
    call = Call(point, func, args, kwargs, value)
    results = list(tree_iter(value))
    residues = residues_of_results(call)
    given = {storage_id(value_of(x)) for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
    if not all(isinstance(x, Tensor) and storage_id(x) not in given for x in results):
        raise no_rule(func)  # a number, or an operand's own memory
    indices = [x for x in results if not is_number(x.dtype)]  # and counts
    seen = has_dynamic_shape(func)  # a program may read a shape without an operator
    if indices and point.semantics.choices is Choices.UNREAD and not seen:
        point.chosen |= {storage_id(x): (func.overloadpacket.__name__, x) for x in indices}
    elif indices or seen:
        call.took_branch()
    made = [x if r is None else Shadow(x, r.laid_out_like(x)) for x, r in zip(results, residues)]
    return made[0] if isinstance(value, Tensor) else type(value)(made)


def _note_empty_selection(call: Call, shadows: Sequence[Shadow]) -> None:
    """Record a choice by value if an operator selects nothing here, and may select something elsewhere."""
    if not any(s.numel() for s in shadows):
        return
    if has_dynamic_shape(call.operator) or any(s.dtype is torch.bool for s in shadows):
        if any(s.dtype is torch.bool for s in shadows):
            call.point.note_decided(call.operator.overloadpacket.__name__)
        call.took_branch()


_PROMOTING = {aten.add, aten.sub, aten.rsub, aten.mul, aten.div}
"""Operators whose result with a Python float is a float; masked_fill of booleans makes it a boolean."""


def _takes_booleans(func: OpOverload, rule: Rule | None, args: Any, kwargs: Any) -> bool:
    """Return True if a rule reads booleans as functions: arithmetic does in floating point, and copies to it do."""
    if rule is None or not rule.booleans:
        return False
    if rule.kind is RuleKind.BRANCH or rule.integers:
        return True
    if func is aten.mul.Tensor and all(isinstance(x, Tensor) and x.dtype is torch.bool for x in args):
        return True  # both hold where their product is 1
    dtype = kwargs.get("dtype")
    floats = any(isinstance(x, Tensor) and x.is_floating_point() for x in tree_iter(args))
    if func.overloadpacket in _PROMOTING:
        floats |= any(isinstance(x, float) for x in tree_iter(args))
    return dtype.is_floating_point if dtype is not None else floats


def _decided(x: Any) -> Any:
    """Return the value of a boolean that is a function, anything else unchanged."""
    return x.value if isinstance(x, Shadow) and x.dtype is torch.bool else x


def _unaliased(func: OpOverload, result: Any, operands: Sequence[Shadow]) -> Any:
    """Return a result without residues; a write to it must not change an operand, whose residue would stay behind.

    Raises:
        Undecided: it is memory of an operand.
    """
    memory = {storage_id(operand.value) for operand in operands}
    if any(storage_id(x) in memory for x in tree_iter(result) if isinstance(x, Tensor) and x.layout is torch.strided):
        raise Undecided(f"{func} returns a view of a value with residues, and has no rule for them")
    return result


def _empty(call: Call, value: Any) -> Any:
    """Return the results of a call whose results have no elements, so that no rule is needed."""
    floats = isinstance(value, Tensor) and is_number(value.dtype)
    return Shadow(value, embed_constant(call.point, value)) if floats else value


def _wrap(call: Call, rule: Rule, operands: Sequence[Shadow], value: Tensor, residue: Residue | None) -> Tensor:
    if value.layout != torch.strided or value.is_quantized or (value.is_complex() and not rule.complex):
        raise call.undecided(f"a result of dtype {value.dtype} and layout {value.layout} has no residues")
    if residue is None:
        if is_number(value.dtype) and value.numel():
            raise call.undecided("its rule gives no residues for a floating-point result")
        _unaliased(call.operator, value, operands)
        return value
    numbers = is_number(value.dtype) or (rule.booleans and value.dtype is torch.bool)
    if not numbers and not rule.integers:
        if all(o.dtype.is_floating_point for o in operands):  # rounded, as in sum(dtype=int)
            call.took_branch()
            return value
        raise call.undecided("integer arithmetic wraps around, which residues do not show")
    shape = residue.shape
    if shape != value.shape:
        raise call.undecided(f"the rule gives shape {tuple(shape)} where the operator gives {tuple(value.shape)}")
    if rule.view:
        return Shadow(value, residue)
    if residue.infinite:
        if value.is_complex():
            raise call.undecided("complex numbers with infinite parts")
        if not call.selects and bool(torch.isnan(value).any()):
            raise call.undecided("infinities make a nan")
        name = call.operator.overloadpacket.__name__
        kept = rule.integers or name in _KEEP_INFINITIES
        if kept and (_adds_up_to_more(call) if name in _ADD_TO_INFINITIES else overflows(value, residue)):
            raise call.undecided(OVERFLOWN)
        residue = mark_infinities(value, residue)
        if residue.infinite and not kept:
            # Their places and signs may depend on the values of the other operands.
            call.point.branch.setdefault(f"{name} of infinite elements")
    if call.point.visit is not None and value.dtype.is_floating_point:
        residue = call.point.visit(residue).marked_like(residue)
    residue = _unshared(residue, operands)
    if any(o.residue.undefined for o in operands):  # min(√x + 1, 0) is nan where √x is
        residue.defined_if(False)
    residue = residue.laid_out_like(value)
    call.point.facts.share(residue)
    note_jump(call.operator, value, residue, operands)
    return Shadow(value, residue)


def _adds_up_to_more(call: Call) -> bool:
    """Return True if a sum is infinite where no operand is an infinity."""
    found = torch.isinf(call.first_result)
    for x in tree_iter((call.args, dict(call.kwargs))):
        if isinstance(x, (Tensor, float)) and not (isinstance(x, Shadow) and not x.residue.infinite):
            found = found & ~torch.isinf(torch.as_tensor(value_of(x)))
    return bool(found.any())


def _unshared(residue: Residue, operands: Sequence[Shadow]) -> Residue:
    """Copy a residue in the memory of another tensor: a write to either must not change the other.

    That tensor is an operand, or, in the algebraic reading, any value that facts name, as x is for log(exp x).
    """
    if residue.point.semantics.algebraic and residue.cell.held:
        return residue.copied()
    if isinstance(residue.parts, OnDemand):
        if residue.parts.is_writable and not any(residue.parts.shares_memory(o.residue.parts) for o in operands):
            return residue
        parts: Sequence[Tensor] = in_memory(residue.parts)
    else:
        memory = residue.parts[0].untyped_storage().data_ptr()
        kept = [o.residue.parts for o in operands]
        if not any(
            p.shares_memory(residue.parts) if isinstance(p, OnDemand) else p[0].untyped_storage().data_ptr() == memory
            for p in kept
        ):
            return residue
        parts = tuple(p.clone() for p in residue.parts)
    out = Residue(residue.point, parts, residue.size, residue.data, residue.infinite)
    return out.marked_like(residue)


def _reshape_in_place(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run ``squeeze_`` or a similar operator: the tensor becomes a view of its old self."""
    form = find_functional_form(func)
    rule = None if form is None else RULES.get(form.operator)
    if form is None or rule is None or not rule.view or not isinstance(args[0], Shadow):
        raise no_rule(func)
    args[0].data = form.operator(*args, **kwargs)
    return args[0]


def _write(func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator that writes: compute it without the write, then copy value and residue into the target."""
    if reshapes_in_place(func):
        return _reshape_in_place(func, args, kwargs)
    written = list_written(func)
    if len(written) != 1:
        raise Undecided(f"no rule for operator {func}, which writes to {len(written)} of its arguments")
    target = bind_arguments(func, args, kwargs)[written[0]]
    if isinstance(target, Shadow) and target.residue.borrowed:
        raise WritesBorrowed
    if func is aten.copy_.default:
        result: Any = args[1]
        if isinstance(result, Tensor) and result.is_complex() and not target.is_complex():
            result = torch.view_as_real(result.resolve_conj()).select(-1, 0)  # a cast drops imaginary parts
    else:
        form = find_functional_form(func)
        if form is None or form.options or is_random(func):
            raise no_rule(func)
        result = form.operator(*args, **{name: value for name, value in kwargs.items() if name not in form.memory})
        if not isinstance(result, Tensor):
            raise no_rule(func)
        if result.shape != target.shape:
            raise Undecided(f"{func} writes shape {tuple(result.shape)} into shape {tuple(target.shape)}")
    if not isinstance(target, Shadow):
        if isinstance(result, Shadow) and result.dtype is torch.bool:
            result.residue.point.note_decided(func.overloadpacket.__name__)
            return target.copy_(result.value)
        if isinstance(result, Shadow):
            raise Undecided(f"{func} writes a shadow into an ordinary tensor, which cannot carry residues")
        return target.copy_(result)
    source = result.residue if isinstance(result, Shadow) else embed_constant(target.residue.point, result)
    value = value_of(result)
    drops = value.is_complex() and not target.is_complex()
    if (drops or not is_number(target.dtype)) and value.dtype != target.dtype:
        raise Undecided(f"{func} writes {value.dtype} into {target.dtype}")
    target.value.copy_(value)
    target.residue.write(source)
    note_jump(func, target.value, target.residue, [value])
    return target


class Factories(DispatchMode):
    """While active, make new tensors shadows that are empty, or filled with a number: writes to them keep residues.

    Uninitialised memory gets random residues, because nothing may depend on it. Whole numbers that are dequantized are
    exact constants, as is their product with the scale, which float32 would round. So are others that become real
    numbers, in the reading ``whole``.
    """

    def __init__(self, point: SamplePoint) -> None:
        super().__init__()
        self._point = point

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._point.note_chosen((args, kwargs))
        if func in _DEQUANTIZE and not isinstance(args[0], Shadow):
            return func(Shadow(args[0], embed_constant(self._point, args[0])), *args[1:], **(kwargs or {}))
        made = func(*args, **(kwargs or {}))
        if type(made) is not Tensor or not is_number(made.dtype) or made.device.type == "meta":
            return made
        if func in _CASTING and any(_is_whole(x) for x in args):
            self._point.casts_whole = True
            whole = {i: x.to(made.dtype) for i, x in enumerate(args) if _is_whole(x)}
            # An overflow is no rounding.
            if not self._point.semantics.whole or not all(bool(x.isfinite().all()) for x in (made, *whole.values())):
                return made
            exact = (Shadow(whole[i], embed_constant(self._point, x)) if i in whole else x for i, x in enumerate(args))
            return func(*exact, **(kwargs or {}))
        # A number by itself is often read by `.item()`, which of a shadow would limit the claim.
        zero = func is aten.zeros.default or (func is aten.full.default and args[1] == 0)
        filled = zero or (func in _FILLED and made.dim() > 0 and not bool(made.isnan().any()))
        if not filled and not is_uninitialized(func):
            return made
        if func is aten.new_empty.default and made.dim() == 0:
            # copy.deepcopy replaces the memory of this tensor, and needs it plain; reading a nan is UNDECIDED.
            return made.fill_(math.nan)
        if filled:
            return Shadow(made, embed_constant(self._point, made))
        return Shadow(made.zero_(), draw_variable(self._point, made, data=True))


def _is_whole(x: Any) -> bool:
    return type(x) is Tensor and not (x.is_floating_point() or x.is_complex() or x.dtype is torch.bool)
