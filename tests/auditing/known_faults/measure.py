"""Audits of known faults."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from foldproof.auditing.compilers.compiler import Compiled
from foldproof.auditing.compilers.inductor import Inductor
from foldproof.auditing.gradients import TrainedCall
from foldproof.program.state import quiet_copies
from foldproof.torch_internals import tree_leaves
from tests.auditing.known_faults.fault import KnownFault
from zoo.lowered import Function

STEP, KERNEL, SUSPECT, OUTPUTS = "step", "kernel", "suspect", "outputs"
"""Ways in which a fault is found."""


@dataclass(frozen=True)
class Outcome:
    """The answer of an audit.

    Attributes:
        kind: its verdict.
        way: the way in which it is REFUTED: a `STEP` is; or the outputs are, of which a `KERNEL` computes other numbers
            than its loops, or a step that is not refuted is named as `SUSPECT`, or none of both (`OUTPUTS`).
        at: the name of that step; empty for the other ways.
        conclusion: the audit's own sentence.
        numbers: True if `torch.allclose` tells the outputs of the compiled model from those of the model.
    """

    kind: Kind
    way: str
    at: str
    conclusion: str
    numbers: bool


def measure(fault: KnownFault) -> Outcome:
    """Audit the program with the fault planted."""
    made: list[Compiled] = []
    compile_model = Inductor.compile

    def compile_once(*args: Any, **kwargs: Any) -> Compiled:
        made.append(compile_model(*args, **kwargs))
        return made[-1]

    with fault.plant(), mock.patch.object(Inductor, "compile", compile_once):
        found = audit(fault)
        differ = _numbers_differ(fault, made[0])
    way, at = _find(found)
    return Outcome(found.kind, way, at, found.conclusion, differ)


def _find(found: foldproof.Audit) -> tuple[str, str]:
    if found.refuted:
        return STEP, found.refuted[0].title
    if found.kind is not Kind.REFUTED:
        return "", ""
    if found.kernel is not None:
        return KERNEL, ""
    return (SUSPECT, found.suspects[0].title) if found.suspects else (OUTPUTS, "")


def audit(fault: KnownFault) -> foldproof.Audit:
    """The audit of the program, with the compiler as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return foldproof.audit(
            _model(fault),
            fault.inputs(),
            compiler="inductor",
            options=fault.options,
            training=fault.training,
            locate=False,
        )


def _numbers_differ(fault: KnownFault, compiled: Compiled) -> bool:
    """Return True if `torch.allclose`, with its default tolerances, tells the compiled outputs from the model's.

    Of a training step, gradients are compared, too.
    """
    model, inputs = _model(fault), tuple(fault.inputs())
    with warnings.catch_warnings(), quiet_copies():
        warnings.simplefilter("ignore")
        if fault.training:
            step = TrainedCall(model, inputs, {})
            want, got = step.run(model, model)(*step.inputs), compiled.call(*step.inputs)
        else:
            with torch.no_grad():
                want, got = model(*(x.clone() for x in inputs)), compiled.call(*(x.clone() for x in inputs))
    pairs = zip(_tensors(want), _tensors(got), strict=True)
    return not all(a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, equal_nan=True) for a, b in pairs)


def _tensors(values: Any) -> list[Tensor]:
    return [x.detach() for x in tree_leaves(values) if isinstance(x, Tensor)]


def _model(fault: KnownFault) -> nn.Module:
    return fault.program if isinstance(fault.program, nn.Module) else Function(fault.program).train(fault.training)
