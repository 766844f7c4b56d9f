"""The numbers of a training step: outputs, gradients and buffers, of the model and of the compiled model.

A step is a function of tensors: the model's inputs and one cotangent for each output that has a gradient. Buffers start
from the same values at each call, and their new values are results. The reference is the graph of the operators that
PyTorch runs for the model, forward and backward, so that its rounding can be followed.

The loss is the model's output, if that is one number. Else it is the sum of all outputs times fixed random cotangents,
as of `foldproof.prove_step`. With an optimizer, a step ends with its update (`update`), and the new parameters and the
optimizer's state are results, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from foldproof.auditing.gradients.differentiated import differentiate
from foldproof.auditing.gradients.update import MakeOptimizer, Start
from foldproof.errors import FoldproofError, brief
from foldproof.generators import kept_generators
from foldproof.graph.reads import Reads, erase_reads, reads_data
from foldproof.program.state import deepcopied
from foldproof.torch_internals import (
    as_compiled,
    compiles_autograd,
    record_operators,
    tree_flatten,
    tree_leaves,
    tree_unflatten,
)

if TYPE_CHECKING:
    from foldproof.comparison import CompareResult


COUNTERS = (
    "a compiled optimizer computes with its counters of steps in their dtype, and so does the reference here; eager"
    " mode computes with them in double precision"
)


UNSEEN_AUTOGRAD = (
    "compiled autograd is on; the backward was compiled as without it, and no graph of compiled autograd was looked at"
)


class TrainedCall:
    """A call of a model with its backward, and with the step of an optimizer that ``optimizer`` makes of parameters.

    Raises:
        FoldproofError: the model does not run on the inputs, or has no gradients; or the optimizer takes no step.
    """

    def __init__(
        self,
        model: nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        optimizer: MakeOptimizer | None = None,
    ) -> None:
        leaves, self._structure = tree_flatten((tuple(args), dict(kwargs)))
        self._leaves = [x.detach() if isinstance(x, Tensor) else x for x in leaves]
        self._tensors = [i for i, x in enumerate(leaves) if isinstance(x, Tensor)]
        self._wanted = [i for i in self._tensors if leaves[i].requires_grad]
        own = deepcopied(model)
        self._trains = own.training
        self._buffers = {name: x.detach().clone() for name, x in own.named_buffers()}
        arguments = self._arguments()
        try:
            with torch.enable_grad(), kept_generators():
                outputs = [x for x in tree_leaves(self._call(own, arguments)) if isinstance(x, Tensor)]
                seeded = [x for x in outputs if x.requires_grad]
                leaves = [*arguments[1], *(p for p in own.parameters() if p.requires_grad)]
                differentiate(seeded, leaves, [torch.ones_like(x) for x in seeded])
        except Exception as error:
            raise FoldproofError(f"the model does not run on these inputs with gradients: {brief(error)}") from error
        if not seeded or not (self._wanted or any(p.requires_grad for p in own.parameters())):
            raise FoldproofError("the model computes no gradients: no parameter or input that requires them is used")
        self.is_loss = len(outputs) == 1 and outputs[0].numel() == 1
        generator = torch.Generator().manual_seed(0)
        self.cotangents = [
            torch.ones_like(x) if self.is_loss else torch.randn(x.shape, generator=generator).to(x) for x in seeded
        ]
        self.cotangents = [x.detach() for x in self.cotangents]
        self._start = None if optimizer is None else Start.of(optimizer, own)
        wanted = [f"the gradient of {name}" for name, p in own.named_parameters() if p.requires_grad]
        self._names = [f"output {i}" for i in range(len(outputs))]
        self._names += [*(f"the gradient of input {i}" for i in self._wanted), *wanted]
        self.compared = len(self._names)
        """Number of outputs and gradients, which are the first results of a step."""
        self._names.append("the list of gradients")
        self._names += [f"buffer {name} after the call" for name in self._buffers]
        self._names += [] if self._start is None else self._start.names

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs of the step: tensors of the call, and cotangents."""
        return (*(self._leaves[i] for i in self._tensors), *self.cotangents)

    @property
    def remarks(self) -> list[str]:
        """Sentences on what the numbers are of."""
        loss = "the model's output" if self.is_loss else "the sum of all outputs times fixed random numbers"
        mode = "" if self._trains else "; the model is in evaluation mode, and train() is for you to call"
        what = "outputs, gradients and buffers" if self._start is None else "outputs, gradients, buffers and the update"
        told = [f"{what} were compared; the loss is {loss}{mode}"]
        told += [] if self._start is None else [COUNTERS]
        return [*told, UNSEEN_AUTOGRAD] if compiles_autograd() else told

    def run(
        self,
        call: Callable[..., Any],
        holder: nn.Module,
        compiled: Callable[[Callable[[], Any]], Callable[[], Any]] = lambda update: update,
    ) -> Callable[..., list[Tensor]]:
        """Return the step of a compiled model, whose parameters and buffers are in ``holder``.

        ``compiled`` compiles the optimizer's step.
        """
        trained = [p for p in holder.parameters() if p.requires_grad]
        update = None if self._start is None else self._start.prepare(trained)
        take = None if update is None else compiled(update.step)

        def step(*given: Any) -> list[Tensor]:
            with torch.no_grad():
                for name, x in holder.named_buffers():
                    x.copy_(self._buffers[name])
            if update is None or take is None:
                return self._step(call, trained, holder.named_buffers, given)
            update.restart()
            made = self._step(call, trained, holder.named_buffers, given)
            return [*made, *update.run(take)]

        return step

    def trace(self, model: nn.Module) -> fx.GraphModule:
        """Return the graph of the operators that PyTorch runs for a step of the model.

        Raises:
            FoldproofError: they can't be recorded, or they depend on numbers that the model reads from tensors.
        """
        own = deepcopied(model)

        def step(*given: Any) -> list[Tensor]:
            buffers = {name: x.clone() for name, x in own.named_buffers()}

            wanted: dict[str, Tensor] = {name: p for name, p in own.named_parameters() if p.requires_grad}
            if self._start is not None:
                wanted = {name: p.detach().clone().requires_grad_() for name, p in wanted.items()}

            def call(*args: Any, **kwargs: Any) -> Any:
                return torch.func.functional_call(own, {**buffers, **wanted}, args, kwargs)

            made = self._step(call, [*wanted.values()], buffers.items, given)
            if self._start is None:
                return made
            update = self._start.prepare([*wanted.values()])
            with as_compiled():
                return [*made, *update.run(update.step)]

        try:
            with kept_generators(), Reads():
                recorded = record_operators(step, self.inputs)
        except Exception as error:
            raise FoldproofError(f"the operators of a training step can't be recorded: {brief(error)}") from error
        if reads_data(recorded):
            why = "the model reads a number or a size from a tensor, so that other inputs may take another way"
            raise FoldproofError(f"the operators of a training step can't be recorded: {why}")
        erase_reads(recorded)
        _lay_out(recorded)
        return recorded

    def name(self, found: CompareResult) -> CompareResult:
        """Return a comparison of steps with the names of gradients and buffers in place of numbered outputs."""

        def named(text: str) -> str:
            return re.sub(r"output (\d+)", lambda m: self._names[int(m[1])], text)

        verdict, shown = found.verdict, found.verdict.counterexample
        if shown is not None:
            shown = replace(shown, name=named(shown.name) if shown.name else shown.name)
        notes = tuple(map(named, verdict.notes))
        verdict = replace(verdict, reason=named(verdict.reason), counterexample=shown, notes=notes)
        outputs = tuple(replace(one, name=named(one.name)) for one in found.outputs)
        return replace(found, verdict=verdict, outputs=outputs)

    def _arguments(self, given: Sequence[Any] | None = None) -> tuple[list[Any], list[Tensor]]:
        """Return all leaves of the call, and those among them whose gradients are wanted."""
        leaves = list(self._leaves)
        for i, x in zip(self._tensors, given or [self._leaves[i] for i in self._tensors]):
            leaves[i] = x.detach().requires_grad_() if i in self._wanted else x
        return leaves, [leaves[i] for i in self._wanted]

    def _call(self, call: Callable[..., Any], arguments: tuple[list[Any], list[Tensor]]) -> Any:
        args, kwargs = tree_unflatten(arguments[0], self._structure)
        return call(*args, **kwargs)

    def _step(
        self,
        call: Callable[..., Any],
        parameters: Sequence[Tensor],
        buffers: Callable[[], Any],
        given: Sequence[Any],
    ) -> list[Tensor]:
        """Return outputs, gradients (zeros for those that are None, with a list of these), and buffers."""
        with torch.enable_grad():
            arguments = self._arguments(given[: len(self._tensors)])
            outputs = [x for x in tree_leaves(self._call(call, arguments)) if isinstance(x, Tensor)]
            leaves = [*arguments[1], *parameters]
            seeded = [x for x in outputs if x.requires_grad]
            gradients = differentiate(seeded, leaves, given[len(self._tensors) :])
        for p, g in zip(parameters, gradients[len(arguments[1]) :] if self._start is not None else ()):
            p.grad = g
        filled = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients)]
        missing = torch.tensor([g is not None for g in gradients])
        return [*(x.detach() for x in outputs), *filled, missing, *(x.detach().clone() for _, x in buffers())]


def _lay_out(recorded: fx.GraphModule) -> None:
    """Insert copies that keep values and strides where PyTorch's exporter would assume other strides.

    It takes those of the cotangent for the gradient of a layer norm, which the kernel returns contiguous; a view of it
    then fails.
    """
    for node in recorded.graph.find_nodes(op="call_function", target=torch.ops.aten.native_layer_norm_backward.default):
        for part in [user for user in node.users if user.args[1] == 0]:
            with recorded.graph.inserting_after(part):
                copy = recorded.graph.call_function(
                    torch.ops.aten.clone.default, (part,), {"memory_format": torch.contiguous_format}
                )
            part.replace_all_uses_with(copy, lambda user, copy=copy: user is not copy)
    recorded.recompile()
