"""The public function `prove`: two given programs, folds that somebody else made (`foldproof.fusion.known`), ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from foldproof.errors import FoldproofError
from foldproof.fusion.known import prove_known_folds
from foldproof.porting import prove_port
from foldproof.porting.conversion import Convert
from foldproof.program.flat import as_one_form
from foldproof.program.gradients import tell_unseen_gradients
from foldproof.proof import prove as prove_programs
from foldproof.proof.decide import Strategy
from foldproof.proof.inquiry import Progress
from foldproof.proof.obligation import Derive
from foldproof.verdict import Verdict


def prove(
    before: Any,
    after: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    derive: Derive | None = None,
    convert: Convert | None = None,
    inverse: Convert | None = None,
    by_value: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Prove that two programs are the same function.

    Args:
        before: the first program: an nn.Module, GraphModule, ExportedProgram, callable, or the path of an ``.onnx``
            file. Beside such a file, inputs and outputs are the tensors of both, in order.
        after: the second program.
        inputs: example positional arguments of both. Floating-point tensors stand for all tensors of their shape;
            integers, booleans and everything else are held at their values.
        kwargs: example keyword arguments.
        derive: the arithmetic of *after*'s new parameters: a function from *before*'s parameters by name (tensors, or
            shadows of them) to new ones by *after*'s names. With it a fold is proved for all parameters. Without it,
            new parameters that foldproof's own folds compute are recognised, and the proof is for these values; others
            are constants, and rounding them leaves ROUNDING at best.
        convert: the conversion of checkpoints, if *after* is a port of *before*: a function from *before*'s state dict
            to *after*'s, which may change it in place, or a function of the port and *before*'s state dict, which loads
            it. It runs unmodified, so that the proof is for every checkpoint; *after*'s own values do not matter.
        inverse: the conversion back, a function from *after*'s state dict to *before*'s. With it, the round trip of
            every checkpoint is proved or refuted, too.
        by_value: let piecewise activations (relu, leaky_relu, elu, prelu …) follow their values if nothing else
            proves the programs equal. The verdict then names them among the operators with only the visited branch.
        seed: fixes the random draw, to reproduce a run.
        progress: called with (done, total, what).

    Programs exported with dynamic shapes are compared at several sizes, which the verdict names.

    With ``convert``, a program is an nn.Module, or a function that reads one module from outside, as an adapter does:
    ``lambda tokens: model(input_ids=tokens).logits``. Buffers that are not part of the checkpoint are held.

    Without it, parameters and buffers of *after* that are the same tensor as one of *before*, or equal in name and
    content, are the same variable of the claim. Those on the meta device, and fake tensors, are variables without
    values: runs in floating point use random ones, and those of equal name and shape are the same.

    Raises:
        NotTranslated: an ONNX file has an operator that foldproof does not read.
        FoldproofError: ``before`` or ``after`` is no program, the inputs do not fit, or integers have no values.
    """

    if convert is not None and derive is not None:
        raise FoldproofError("give convert for a port, or derive for folded parameters, not both")
    if convert is not None:
        return prove_port(before, after, inputs, kwargs, convert, inverse, by_value, seed, progress)
    if inverse is not None:
        raise FoldproofError("an inverse conversion takes the conversion, too; give convert")
    before, after, inputs, kwargs = as_one_form(before, after, inputs, kwargs)
    verdict = prove_with_folds(before, after, inputs, kwargs, derive, by_value, seed, progress)
    return replace(verdict, notes=(*verdict.notes, *tell_unseen_gradients(before, (inputs, kwargs))))


def prove_with_folds(
    before: Any,
    after: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    derive: Derive | None,
    by_value: bool,
    seed: int | None,
    progress: Progress | None,
) -> Verdict:
    """Prove as `prove`, without a word on gradients."""

    def proved(how: Derive | None, strategies: Sequence[Strategy] | None = None) -> Verdict:
        return prove_programs(
            before,
            after,
            inputs,
            kwargs,
            derive=how,
            by_value=by_value,
            strategies=strategies,
            seed=seed,
            progress=progress,
        )

    return proved(derive) if derive is not None else prove_known_folds(before, after, inputs, kwargs, proved)
