"""The class of mutants: the rewriter broken in one place, and a program on which that matters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from foldproof.fusion.affine import Affine
from foldproof.fusion.examples import Example

Program = Callable[[], tuple[ExportedProgram, tuple[Any, ...]]]


@dataclass(frozen=True)
class Patch:
    """A replacement ``wrong`` for the attribute ``name`` of a module or class."""

    home: Any
    name: str
    wrong: Any


@dataclass(frozen=True)
class Mutant:
    """Patches that break the rewriter, and a program; ``passes`` as in `foldproof.fuse`."""

    program: Program
    patches: tuple[Patch, ...]
    passes: tuple[str, ...] | None = None


def mutant(program: Program, *patches: Patch) -> Mutant:
    return Mutant(program, patches)


def patch(home: Any, name: str, wrong: Any) -> Patch:
    return Patch(home, name, wrong)


def around(home: Any, name: str, wrong: Callable[..., Any]) -> Patch:
    """Replace a function or method by ``wrong(original, *arguments)``."""
    original = getattr(home, name)

    def broken(*arguments: Any, **named: Any) -> Any:
        return wrong(original, *arguments, **named)

    static = isinstance(inspect.getattr_static(home, name), staticmethod)
    return Patch(home, name, staticmethod(broken) if static else broken)


def exported(make: Callable[[], Example], dynamic_shapes: Any = None) -> Program:
    """The program of a model, exported once; an eps of 1e-5 would hide in rounding, and one scale is negative."""

    @cache
    def program() -> tuple[ExportedProgram, tuple[Any, ...]]:
        model, inputs = make()
        with torch.no_grad():
            for part in model.modules():
                if isinstance(part, nn.modules.batchnorm._NormBase):
                    part.eps = 0.125
                    part.weight[0] = -2
        return torch.export.export(model, inputs, dynamic_shapes=dynamic_shapes), inputs

    return program


def decomposed(program: Program) -> Program:
    """The same in core ATen operators."""

    @cache
    def core() -> tuple[ExportedProgram, tuple[Any, ...]]:
        before, inputs = program()
        return before.run_decompositions(), inputs

    return core


# Frequent mistakes.


def nothing(*_: object, **__: object) -> None:
    """In place of a guard."""


def original_of(original: Callable[..., Any], *arguments: Any) -> Any:
    return original(*arguments)


def flipped(affine: Affine) -> Affine:
    """Its channels numbered backwards, along every axis."""
    return replace(affine, channels=affine.channels.flip(tuple(range(affine.channels.dim()))))


def turned(affine: Affine) -> Affine:
    """Its last two axes exchanged."""
    return replace(affine, channels=affine.channels.transpose(-1, -2))


def unscaled(affine: Affine) -> Affine:
    return replace(affine, scale=None)


def unshifted(affine: Affine) -> Affine:
    return replace(affine, shift=None)


def along(axis: int) -> Callable[..., Tensor]:
    """Scales a weight along ``axis``, whichever is right."""

    def scale(weight: Tensor, scale: Tensor, *_: object) -> Tensor:
        shape = [1] * weight.dim()
        shape[axis] = -1
        return weight * scale.reshape(shape)

    return scale


def kinds(home: Any, **taken_for: str) -> Patch:
    """Operators of one kind are taken for those of another."""
    return around(home, "kind_of", lambda original, node: taken_for.get(original(node), original(node)))


def argument(home: Any, **wrong: Any) -> Patch:
    """Arguments have other values than their own, where there are such."""

    def arguments(original: Callable[[Any], dict[str, Any]], node: Any) -> dict[str, Any]:
        given = original(node)
        return {name: wrong.get(name, value) for name, value in given.items()}

    return around(home, "arguments", arguments)
