"""A training step as a program like any other.

It reads parameters, buffers, inputs and targets. Its results are the loss, the gradient of each parameter, and what it
writes: running statistics, and with an optimizer the parameters and its state. `StepModule` is that program, and the
prover compares two of them as it compares any others. It knows nothing of gradients: shadows sit below autograd, so
that ``loss.backward()`` runs on them operator by operator.

* Without a loss the outputs are multiplied by *cotangents*, which are inputs of the program. Equal gradients for all
  cotangents mean that the whole Jacobians are equal, for any loss whatsoever.
* A gradient that is None is not the same as one of zeros: an optimizer skips the former, and decays the weights, or
  moves by momentum, for the latter.
* Parameters are replaced by leaves that share their memory, so that a gradient belongs to one run. A tied parameter is
  one leaf, in which the gradients of all its uses add up. Hooks on gradients move to these leaves.
* The state of an optimizer is varied like parameters, since momentum is zero in a first step only. Counters of steps
  are held at 1, so that the proof is of a second step, as a note says.
* At kinks, as of relu at 0, or where two elements of a pool are largest, PyTorch chooses a subgradient by value. If
  such choices limit a proof, the claim says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.errors import FoldproofError, brief
from foldproof.program import Outcome, as_program
from foldproof.shadow import seeded
from foldproof.torch_internals import (
    gradient_hooks,
    reparametrized,
    tree_flatten,
    tree_leaves,
    tree_map,
    tree_unflatten,
)

MakeOptimizer = Callable[[list[Tensor]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Step:
    """A model, the function that runs it or its loss, and the optimizer."""

    model: Any
    run: Callable[..., Any] | None
    loss: Any
    optimizer: MakeOptimizer | None


class StepModule(nn.Module):
    """A training step as a module: (args, kwargs, targets, cotangents) → outputs or loss, and gradients.

    ``wanted`` are the places of inputs whose gradients are wanted, among the leaves of (args, kwargs, targets), and
    ``names`` the names under which gradients of parameters are returned.
    """

    def __init__(self, step: Step, wanted: frozenset[int], names: Mapping[str, str]) -> None:
        super().__init__()
        self.model, self.loss = step.model, step.loss
        self._run, self._make_optimizer, self._wanted = step.run, step.optimizer, wanted
        own = [(name, p) for name, p in self.named_parameters(remove_duplicate=False) if p.requires_grad]
        self._places = {name: names.get(name.removeprefix("model."), name.removeprefix("model.")) for name, _ in own}
        self._hooks = {name: gradient_hooks(p) for name, p in own}
        self._counts: dict[tuple[str, str], Any] = {}
        self.state = nn.ModuleDict()
        if self._make_optimizer is not None:
            self._warm_up({name: p for name, p in self.named_parameters() if p.requires_grad})

    @property
    def counts_steps(self) -> bool:
        """True if the optimizer has counters, which are held at their values."""
        return bool(self._counts)

    # ------------------------------------------------------------------------------------------ one step

    def forward(self, args: Any, kwargs: Any, targets: Any, cotangents: Any) -> dict[str, Any]:
        with torch.enable_grad(), self._leaves() as (leaves, parameters):
            flat, structure = tree_flatten((args, kwargs, targets))
            flat = [x.detach().requires_grad_() if i in self._wanted else x for i, x in enumerate(flat)]
            args, kwargs, targets = tree_unflatten(flat, structure)
            outputs = self._compute(args, kwargs, targets)
            if cotangents is None:  # asked for the outputs that have gradients
                return {"outputs": [x.detach() if _has_gradient(x) else None for x in tree_leaves(outputs)]}
            self._backward(outputs, cotangents)
            found = {f"input {i}": flat[i].grad for i in sorted(self._wanted)}
            found |= {self._places[name]: leaf.grad for name, leaf in leaves.items()}
            found = {name: None if grad is None else grad.detach().clone() for name, grad in found.items()}
            outputs = tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, outputs)
            made: dict[str, Any] = {"outputs" if self._for_all_losses else "loss": outputs, "gradients": found}
            if self._make_optimizer is not None:
                made["counters"] = self._update(leaves, parameters)
        return made

    @property
    def _for_all_losses(self) -> bool:
        return self._run is None and self.loss is None

    def _compute(self, args: Any, kwargs: Any, targets: Any) -> Any:
        if self._run is not None:
            return self._run(self.model, *args, *targets, **kwargs)
        outputs = self.model(*args, **kwargs)
        return outputs if self.loss is None else self.loss(outputs, *targets)

    def _backward(self, outputs: Any, cotangents: Sequence[Tensor | None]) -> None:
        if not self._for_all_losses:
            if not isinstance(outputs, Tensor) or outputs.numel() != 1:
                raise FoldproofError("the loss has to be a tensor of one element; reduce it, or give no loss")
            if outputs.requires_grad:
                outputs.backward()
            return
        pairs = [
            (x, c)
            for x, c in zip(tree_leaves(outputs), cotangents)
            if c is not None and _has_gradient(x) and x.shape == c.shape
        ]
        if pairs:
            torch.autograd.backward([x for x, _ in pairs], [c.to(x.dtype) for x, c in pairs])

    @contextlib.contextmanager
    def _leaves(self) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Put leaves that require gradients, in the memory of the parameters, in the place of these; yields both."""
        named = self.named_parameters(remove_duplicate=False)
        held: dict[str, Tensor] = {name: p for name, p in named if name in self._places}
        made: dict[int, Tensor] = {}
        for name, p in held.items():
            if id(p) not in made:
                made[id(p)] = leaf = p.detach().requires_grad_()
                before, after = self._hooks[name]
                for hook in before:
                    leaf.register_hook(hook)
                for hook in after:
                    leaf.register_post_accumulate_grad_hook(hook)
        leaves = {name: made[id(p)] for name, p in held.items()}
        with reparametrized(self, leaves):
            yield leaves, held

    # ------------------------------------------------------------------------------------------ the optimizer

    def _optimizer(self, leaves: Mapping[str, Tensor]) -> tuple[torch.optim.Optimizer, dict[str, Tensor]]:
        """Return the optimizer of the leaves, tied ones once, and these by name."""
        assert self._make_optimizer is not None
        once = {id(leaf): name for name, leaf in reversed([*leaves.items()])}
        own = {name: leaf for name, leaf in leaves.items() if once[id(leaf)] == name}
        return self._make_optimizer(list(own.values())), own

    def _warm_up(self, parameters: Mapping[str, Tensor]) -> None:
        """Take a step with random gradients on copies, so that the optimizer has a state, and hold that."""
        generator = torch.Generator().manual_seed(0)
        copies = {name: p.detach().clone().requires_grad_() for name, p in parameters.items()}
        for p in copies.values():
            p.grad = torch.randn(p.shape, generator=generator).to(p.device, p.dtype)
        optimizer, own = self._optimizer(copies)
        optimizer.step()
        for name, p in own.items():
            for key, x in optimizer.state[p].items():
                if isinstance(x, Tensor) and x.shape == p.shape:
                    self._holder(key).register_buffer(self._places[name].replace(".", "/"), x.detach().clone())
                else:  # a counter of steps
                    self._counts[name, key] = float(x) if isinstance(x, Tensor) else x

    def _holder(self, key: str) -> nn.Module:
        if key not in self.state:
            self.state[key] = nn.Module()
        return self.state[key]

    def take_state(self, other: StepModule) -> None:
        """Take the values of the other step's state, wherever this one has the same."""
        theirs = dict(other.state.named_buffers())
        for name, buffer in self.state.named_buffers():
            if name in theirs and theirs[name].shape == buffer.shape:
                buffer.copy_(theirs[name])

    @torch.no_grad()
    def _update(self, leaves: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Any]:
        """Take the optimizer's step, write its state into the buffers, and return its counters.

        Each tensor is written once more: operators on lists of tensors do not always count their writes.
        """
        optimizer, own = self._optimizer(leaves)
        held: dict[tuple[str, str], Tensor] = {}
        for name, leaf in own.items():
            state = optimizer.state[leaf]
            for key, module in self.state.items():
                buffer = getattr(module, self._places[name].replace(".", "/"), None)
                if buffer is not None:
                    state[key] = held[name, key] = buffer
            for (owner, key), count in self._counts.items():
                if owner == name:
                    state[key] = torch.tensor(count) if isinstance(count, float) else count
        optimizer.step()
        counters: dict[str, Any] = {}
        for name, leaf in own.items():
            parameters[name].copy_(leaf)
            for key, x in optimizer.state[leaf].items():
                if (name, key) not in held:
                    number = isinstance(x, (Tensor, int)) and not (isinstance(x, Tensor) and x.numel() > 1)
                    counters[f"{key} of {self._places[name]}"] = float(x) if number else x
                else:
                    held[name, key].copy_(x)
        return counters

    # ------------------------------------------------------------------------------------------ preparation

    def draw_cotangents(self, given: Any) -> list[Tensor | None]:
        """Return random cotangents of the outputs on these inputs, and None for outputs without gradients.

        Raises:
            FoldproofError: the step fails on these inputs, or computes no gradients.
        """
        generator = torch.Generator().manual_seed(0)
        cotangents: list[Tensor | None] = []
        if self._for_all_losses:
            outputs = self._call_once((*given, None)).outputs
            cotangents = [x if x is None else torch.randn(x.shape, generator=generator).to(x) for x in outputs]
        made = self._call_once((*given, cotangents))
        gradients = [x for name, x in zip(made.names, made.outputs) if name.startswith("output['gradients']")]
        if all(x is None for x in gradients):
            raise FoldproofError(
                "the first step computes no gradients: no parameter or input that requires them reaches an output"
                " (register a class of outputs by torch.utils._pytree.register_dataclass, or give a loss)"
            )
        return cotangents

    def _call_once(self, args: Any) -> Outcome:
        try:
            with seeded():
                return as_program(self).run_as_it_is(args, {})
        except FoldproofError:
            raise
        except Exception as error:
            raise FoldproofError(f"the first step fails on these inputs: {brief(error)}") from error


def _has_gradient(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad
