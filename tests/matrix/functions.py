"""Public functions, each called on one kind of model: the columns of docs/matrix.md."""

from __future__ import annotations

import dataclasses
import functools
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

import foldproof
from foldproof import FoldproofError, Kind
from foldproof.compiler_catalog import DECLARED

from .models import MODELS, Model


@dataclass(frozen=True)
class Cell:
    """The answer of a function for a kind of model.

    ``equal`` is its verdict on equal programs, ``changed`` that on different ones. ``same`` is True if the returned
    program gives the numbers of the original. ``refused`` is the sentence of a `FoldproofError`, and ``failed`` the
    traceback of any other exception.
    """

    equal: Kind | None = None
    changed: Kind | None = None
    same: bool | None = None
    note: str = ""
    refused: str = ""
    failed: str = ""


def fuse(model: Model) -> Cell:
    args, kwargs = model.given()
    result = foldproof.fuse(model.program(), args, kwargs)
    folds = f"{len(result.rewrites)} fold{'s' * (len(result.rewrites) != 1)}"
    return Cell(result.verdict.kind, same=agree(model, result.program), note=folds)


def explain(model: Model) -> Cell:
    args, kwargs = model.given()
    return Cell(note=f"{len(foldproof.explain(model.program(), args, kwargs))} left")


def fold_qat(model: Model) -> Cell:
    args, kwargs = model.given()
    result = foldproof.fold_qat(model.program(), args, kwargs)
    exact = result.verdict.kind is Kind.PROVED
    folds = f"{len(result.folded)} fold{'s' * (len(result.folded) != 1)}"
    return Cell(result.verdict.kind, same=agree(model, result.program) if exact else None, note=folds)


def prove(model: Model) -> Cell:
    args, kwargs = model.given()
    equal, changed = (
        foldproof.prove(model.program(), after, args, kwargs, seed=0).kind
        for after in (model.program(), model.changed())
    )
    return Cell(equal, changed)


def prove_step(model: Model) -> Cell:
    args, kwargs = model.given()
    equal, changed = (
        foldproof.prove_step(model.program(), after, args, kwargs, seed=0).kind
        for after in (model.program(), model.changed())
    )
    return Cell(equal, changed)


def prove_pass(model: Model) -> Cell:
    args, kwargs = model.given()
    passes = doubled_and_halved, raised
    equal, changed = (foldproof.prove_pass(one, model.program(), args, kwargs, seed=0).kind for one in passes)
    return Cell(equal, changed)


@torch.no_grad()
def doubled_and_halved(program: Any) -> None:
    """A right pass."""
    last_parameter(program).mul_(2).div_(2)


@torch.no_grad()
def raised(program: Any) -> None:
    """A wrong pass."""
    last_parameter(program).add_(0.5)


def last_parameter(program: Any) -> Tensor:
    return [p for p in program.parameters() if p.is_floating_point()][-1]


def compare(model: Model) -> Cell:
    args, kwargs = model.given()
    others = model.program(), model.changed()
    found = (foldproof.compare(model.program(), other, args, kwargs, trials=3, locate=False) for other in others)
    equal, changed = (one.verdict.kind for one in found)
    return Cell(equal, changed)


def audit(compiler: str, model: Model) -> Cell:
    args, kwargs = model.given()
    found = foldproof.audit(model.program(), args, kwargs, compiler=compiler, locate=False)
    return Cell(found.kind, note=", ".join(dict.fromkeys(step.name for step in found.refuted)))


def backend(model: Model) -> Cell:
    """``torch.compile(model, backend="foldproof")``, which gives numbers and no verdict."""
    program = model.program()
    torch._dynamo.reset()
    with torch._inductor.config.patch(fallback_random=True):
        return Cell(same=agree(model, torch.compile(callable_of(program), backend="foldproof")))


def callable_of(program: Any) -> Callable[..., Any]:
    return program.module() if isinstance(program, ExportedProgram) else program


@torch.no_grad()
def agree(model: Model, program: Any) -> bool:
    """True if a program gives the numbers of ``model``, up to rounding."""
    own, other = (numbers_of(callable_of(one), model) for one in (model.program(), program))
    try:
        torch.testing.assert_close(other, own)
    except AssertionError:
        return False
    return True


def numbers_of(function: Callable[..., Any], model: Model) -> list[Any]:
    args, kwargs = model.given()
    torch.default_generator.manual_seed(0)
    return list(numbers(function(*args, **kwargs)))


def numbers(out: Any) -> Iterator[Any]:
    """The tensors and numbers in an output."""
    for leaf in tree_leaves(out):
        if dataclasses.is_dataclass(leaf):
            yield from numbers(list(vars(leaf).values()))
        elif leaf is not None:
            yield leaf


FUNCTIONS: Mapping[str, Callable[[Model], Cell]] = {
    "fuse": fuse,
    "explain": explain,
    "prove": prove,
    "prove_step": prove_step,
    "prove_pass": prove_pass,
    "compare": compare,
    "fold_qat": fold_qat,
    "backend": backend,
    **{f"audit, {compiler}": functools.partial(audit, compiler) for compiler in DECLARED},
}

FEW = (
    *("an ordinary module", "tied weights", "a module that is called twice", "attention with a mask"),
    *("a written buffer", "training mode", "puts out a ModelOutput", "takes keywords only", "bfloat16"),
    *("compiled by torch.compile", "DataParallel", "ExportedProgram", "GraphModule of torch.export", "a function"),
)
"""Models for compilers, which take seconds each."""

INDUCTOR = ("backend", "audit, inductor")
"""Functions that compile with Inductor."""

COLUMNS: Mapping[str, Collection[str]] = {
    function: FEW if function in INDUCTOR or function.startswith("audit") else MODELS for function in FUNCTIONS
}
"""The models for each function."""

_TWICE = "a module that is called twice"

FAULTS: Mapping[tuple[str, str], str] = {
    (_TWICE, "audit, fx"): "torch.fx.experimental.optimization.fuse folds both BatchNorms into the one convolution",
    (_TWICE, "audit, torch.ao"): "torch.ao's fuse_fx folds both BatchNorms into the one convolution",
    (_TWICE, "audit, executorch"): "FuseBatchNormPass folds both BatchNorms into the one convolution",
    ("a written buffer", "audit, fx"): "symbolic tracing runs ``mul_`` on the buffer, and the graph lacks it",
    ("a written buffer", "audit, torch.ao"): "symbolic tracing runs ``mul_`` on the buffer, and the graph lacks it",
    ("training mode", "audit, torchao"): "a BatchNorm in training is folded, and constant_fold runs its counter",
    ("training mode", "audit, onnx"): "the exporter writes the BatchNorm as it is in eval mode",
}
"""Audits that are rightly REFUTED, by the names of model and function: wrong answers of released compilers."""


def cell(function: str, model: Model) -> Cell:
    """One cell of the matrix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return FUNCTIONS[function](model)
        except FoldproofError as error:
            return Cell(refused=str(error))
        except Exception:
            return Cell(failed=traceback.format_exc())
