"""The public function `prove_step`: two implementations of a training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from foldproof.errors import FoldproofError
from foldproof.program import Leaf, as_program
from foldproof.program.mirror import captured
from foldproof.proof import match_leaves
from foldproof.proof.inquiry import Progress
from foldproof.proof.obligation import require_plain
from foldproof.proving import prove_with_folds
from foldproof.torch_internals import tree_leaves
from foldproof.training.module import MakeOptimizer, Step, StepModule
from foldproof.verdict import Verdict


@dataclass(frozen=True)
class TrainingStep:
    """A training step that is more than a loss of a model's outputs, as an argument of `prove_step`.

    Attributes:
        model: the nn.Module with the parameters.
        run: a function of the model, the inputs and the targets that returns the loss, a tensor of one element. It may
            call ``backward`` itself, any number of times, as for the accumulation of gradients; then it returns the
            loss detached.
        optimizer: a function from the list of parameters that require gradients to their optimizer.
    """

    model: nn.Module
    run: Callable[..., Any]
    optimizer: MakeOptimizer | None = None


def prove_step(
    reference: Any,
    candidate: Any,
    inputs: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    loss: Callable[..., Tensor] | None = None,
    targets: Sequence[Any] = (),
    optimizer: MakeOptimizer | None = None,
    by_value: bool = False,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Prove that two implementations of a training step compute the same loss, gradients and updates.

    Args:
        reference: the first implementation: an nn.Module, a callable such as the ``apply`` of a
            `torch.autograd.Function`, or a `TrainingStep`.
        candidate: the second implementation.
        inputs: example positional arguments of both. Gradients are compared of those that require them, besides those
            of all parameters that do.
        kwargs: example keyword arguments.
        loss: a function of the outputs and the targets, which returns a tensor of one element. Without it, outputs and
            gradients are compared for all cotangents, that is, for any loss.
        targets: example arguments of the loss after the outputs.
        optimizer: a function from a list of parameters to their optimizer, such as
            ``functools.partial(torch.optim.SGD, lr=0.1)``. With it, updated parameters and the optimizer's state are
            compared, too. The state is varied, except for counters of steps, which are held at 1.
        by_value: as of `foldproof.prove`.
        seed: as of `foldproof.prove`.
        progress: as of `foldproof.prove`.

    Outputs are named ``output['gradients']['0.weight']``, by the reference's names of parameters.

    Raises:
        FoldproofError: an implementation cannot be run, or computes no gradients; otherwise as `foldproof.prove`.
    """
    first, second = (_as_step(x, loss, optimizer) for x in (reference, candidate))
    for step in (first, second):
        if isinstance(step.model, nn.Module):
            require_plain(as_program(step.model))
    given = tuple(inputs), dict(kwargs or {}), tuple(targets)
    wanted = frozenset(i for i, x in enumerate(tree_leaves(given)) if isinstance(x, Tensor) and x.requires_grad)
    before = StepModule(first, wanted, {})
    cotangents = before.draw_cotangents(given)
    after = StepModule(second, wanted, _names_in(first.model, second.model))
    after.take_state(before)
    verdict = prove_with_folds(before, after, (*given, cotangents), None, None, by_value, seed, progress)
    counted = before.counts_steps or after.counts_steps
    return replace(verdict, notes=(*verdict.notes, COUNTED)) if counted else verdict


COUNTED = "the optimizer's counters are held at 1: this is about its second step, from the same state of both"


def _as_step(source: Any, loss: Callable[..., Tensor] | None, optimizer: MakeOptimizer | None) -> Step:
    if isinstance(source, TrainingStep):
        return Step(source.model, source.run, None, source.optimizer or optimizer)
    if isinstance(source, ExportedProgram):
        raise FoldproofError("an ExportedProgram is no training step; give its module, program.module()")
    if not callable(source):
        raise FoldproofError(
            f"cannot read a {type(source).__name__} as a training step; give an nn.Module, a callable or a TrainingStep"
        )
    if not isinstance(source, nn.Module):
        for name, x in captured(source).items():
            read = [p for one in tree_leaves(x) for p in (one.parameters() if isinstance(one, nn.Module) else [one])]
            if any(isinstance(p, Tensor) and p.requires_grad for p in read):
                raise FoldproofError(
                    f"{name}, which the callable reads from outside, requires gradients; give an nn.Module that holds"
                    " it, or pass it as an input, so that its gradients are compared"
                )
    return Step(source, None, loss, optimizer)


def _names_in(reference: Any, candidate: Any) -> dict[str, str]:
    """Return the reference's names of the candidate's parameters that are the same, or equal in content."""
    if not isinstance(reference, nn.Module) or not isinstance(candidate, nn.Module):
        return {}
    first, second = (
        {name: Leaf(p) for name, p in model.named_parameters(remove_duplicate=False)}
        for model in (reference, candidate)
    )
    return match_leaves(first, second)[0]
