"""Random numbers as functions of the state of the generator.

A call of ``bernoulli_`` or ``rand`` is a function of its distribution, of the state that it finds the default
generator in, and of the shape, strides and dtype of its result. Each element is therefore an uninterpreted function of
these, with a digest of that state, and of its place. Two programs that draw the same in the same order get the same
residues; another probability, another shape, or another order has other ones.

Soundness
---------
Every run starts from one fixed state. The operators in `_DRAWING` advance a generator by a number of steps that does
not depend on the numbers drawn. So two draws that find equal states from this start find equal states from any other
one, and equal residues mean equal numbers for every state of the generator. Programs must leave the generator in the
same state, too, because the caller's next draw reads it.

A choice by value that depends on a draw holds for that draw alone, so that nothing is proved by it; `SamplePoint.lucky`
records those. All other uses of a generator show in its state: it has to be one that a draw has left, or the first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foldproof.digest import digest
from foldproof.generators import kept_generators, read_other_states, read_states, seed_generators
from foldproof.operators import bind_arguments, is_random, list_written
from foldproof.shadow.call import value_of
from foldproof.shadow.leaves import embed_constant
from foldproof.shadow.registry import RULES
from foldproof.shadow.residue import Residue, apply_uninterpreted
from foldproof.shadow.sample import SamplePoint
from foldproof.shadow.tensor import Shadow
from foldproof.shadow.undecided import Undecided, no_rule
from foldproof.torch_internals import DispatchMode, OpOverload, disable_current_modes, tree_map

aten = torch.ops.aten


class _Draw(NamedTuple):
    """A distribution, the names of its parameters or, if it is not given any, these; and an operand that is one."""

    distribution: str
    parameters: tuple[str | float, ...] = ()
    operand: str | None = None


_DRAWING: Mapping[OpOverload, _Draw] = {
    aten.bernoulli.default: _Draw("bernoulli of each", operand="self"),
    aten.bernoulli.Tensor: _Draw("bernoulli of each", operand="p"),
    aten.bernoulli.p: _Draw("bernoulli", ("p",)),
    aten.bernoulli_.Tensor: _Draw("bernoulli of each", operand="p"),
    aten.bernoulli_.float: _Draw("bernoulli", ("p",)),
    aten.exponential.default: _Draw("exponential", ("lambd",)),
    aten.exponential_.default: _Draw("exponential", ("lambd",)),
    aten.normal_functional.default: _Draw("normal", ("mean", "std")),
    aten.normal_.default: _Draw("normal", ("mean", "std")),
    aten.rand.default: _Draw("uniform", (0.0, 1.0)),
    aten.rand_like.default: _Draw("uniform", (0.0, 1.0)),
    aten.randn.default: _Draw("normal", (0.0, 1.0)),
    aten.randn_like.default: _Draw("normal", (0.0, 1.0)),
    aten.uniform.default: _Draw("uniform", ("from", "to")),
    aten.uniform_.default: _Draw("uniform", ("from", "to")),
}
"""Operators that draw from a generator. Those of one distribution draw the same numbers from the same state.

They draw the same number of times whatever they draw; those that reject numbers, or return whole ones, are left out.
"""


class GeneratorMoved(Undecided):
    """A generator was used during a run, by an operator that is no draw, or by another thread."""


@contextlib.contextmanager
def seeded(call: int = 0) -> Iterator[None]:
    """Run from the fixed state of the generators for the program's ``call``-th call, and put the old state back."""
    with kept_generators():
        seed_generators(call)
        yield


class Draws(DispatchMode):
    """While active, follow draws of random numbers, and give these residues if there is a sample point.

    ``final`` is afterwards a digest of the generator's last state, and ``count`` the number of draws. Custom operators,
    Python and numpy draw unseen by a dispatch mode; a generator's state shows that they did.

    Raises (from any operator, or at the end):
        Undecided: an operator is random, and no function of the generator's state.
        GeneratorMoved: a generator's state has changed without one of the known draws.
    """

    def __init__(self, point: SamplePoint | None, call: int = 0) -> None:
        super().__init__()
        self._point, self._start = point, seeded(call)
        self.final, self.count = "", 0

    def __enter__(self) -> Draws:
        self._others = read_other_states()
        self._start.__enter__()
        self._states = {_state()}
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self.final = _state()
        self._start.__exit__(*raised)
        if raised[0] is None:
            self._require_known(self.final)
            if self._others != read_other_states():
                raise _moved()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not isinstance(func, OpOverload) or not is_random(func) or func in RULES:
            return func(*args, **(kwargs or {}))
        if func not in _DRAWING and func is not aten.native_dropout.default:
            raise no_rule(func)
        return self._draw(func, args, kwargs or {})

    def _draw(self, func: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = bind_arguments(func, args, kwargs)
        if func is aten.native_dropout.default:
            return self._drop_out(given["input"], given["p"], given["train"])
        if given.get("generator") is not None:
            raise Undecided(f"{func} draws from a generator of its own, which is random")
        target = given[written[0]] if (written := list_written(func)) else None
        with disable_current_modes():  # `Factories` would make shadows of what is computed here
            values = tree_map(value_of, args)
            given_values = (values[0].clone(), *values[1:]) if written else values
            state, made = self._follow(func, given_values, tree_map(value_of, kwargs))
            if not isinstance(made, Tensor) or not made.is_floating_point() or made.device.type != "cpu":
                raise no_rule(func)
            drawn = made if self._point is None else self._shadow(self._point, func, state, given, made)
        if target is None:
            return drawn
        if self._point is not None and not isinstance(target, Shadow):
            raise Undecided(f"{func} writes random numbers into an ordinary tensor, which cannot carry residues")
        return target.copy_(drawn)

    def _follow(self, func: OpOverload, args: Any, kwargs: Any) -> tuple[str, Any]:
        """Return the generator's state before a draw, and what it made."""
        state = _state()
        self._require_known(state)
        made = func(*args, **kwargs)
        self._states.add(_state())
        self.count += 1
        return state, made

    def _drop_out(self, x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
        """Return x·mask/(1 - p) and the mask, which is drawn as ``bernoulli_`` draws it."""
        with disable_current_modes():
            state, (out, mask) = self._follow(aten.native_dropout.default, (value_of(x), p, train), {})
            if self._point is None or train is False:
                return (out, mask) if self._point is None else (x.clone(), mask)
            drawn = self._residue(self._point, "bernoulli", [1 - p], state, mask.to(out.dtype), [])
            number = Shadow(mask.to(out.dtype), drawn)
            kept = x * number * 0 if p == 1 else x * number / (1 - p)
            return kept, Shadow(mask, _again(drawn))

    def _shadow(
        self, point: SamplePoint, func: OpOverload, state: str, given: Mapping[str, Any], made: Tensor
    ) -> Shadow:
        draw = _DRAWING[func]
        parameters: list[Any] = [float(given[x] if isinstance(x, str) else x) for x in draw.parameters]
        operands = []
        if draw.operand is not None:
            x = given[draw.operand]
            parameters.append(x.dtype)  # in which kernels compare
            odds = x.residue if isinstance(x, Shadow) else embed_constant(point, x)
            operands.append(odds.map(lambda part: part.expand(made.shape).reshape(-1)))
        if draw.distribution != "bernoulli":  # whose zeros and ones are the same in any dtype
            parameters.append(made.dtype)
        return Shadow(made, self._residue(point, draw.distribution, parameters, state, made, operands))

    def _residue(
        self,
        point: SamplePoint,
        distribution: str,
        parameters: Sequence[Any],
        state: str,
        made: Tensor,
        operands: Sequence[Residue],
    ) -> Residue:
        point.draws += 1
        place = embed_constant(point, torch.arange(made.numel()))
        steps = tuple(stride for stride, size in zip(made.stride(), made.shape) if size > 1)  # that decide the order
        key = f"drawn from {distribution}({parameters}, {state}, {tuple(made.shape)}{steps})"
        flat = apply_uninterpreted(key, [place, *operands], lambda *_: made.detach().reshape(-1).double())
        residue = flat.reshape(*made.shape).laid_out_like(made)
        residue.cell.data = residue.cell.random = True
        return residue

    def _require_known(self, state: str) -> None:
        if state not in self._states:
            raise _moved()


def _again(residue: Residue) -> Residue:
    """Return a copy in memory of its own, which depends on the same random numbers."""
    out = residue.copied()
    out.cell.data = out.cell.random = True
    return out


def _moved() -> GeneratorMoved:
    return GeneratorMoved("the program draws random numbers, in Python or inside of a custom operator")


def _state() -> str:
    return digest(read_states())
