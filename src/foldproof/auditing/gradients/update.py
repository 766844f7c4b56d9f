"""The step of an optimizer, from one state of the parameters and of its own at each call.

The state is that after a first step with random gradients, since momentum is zero before it. Counters of steps are a
part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from foldproof.errors import FoldproofError, brief
from foldproof.generators import kept_generators

MakeOptimizer = Callable[[list[Tensor]], torch.optim.Optimizer]
"""A function of the parameters that require gradients."""


@dataclass(frozen=True)
class Start:
    """The parameters and the state of their optimizer before a step; ``states`` has one mapping for each parameter."""

    make: MakeOptimizer
    names: Sequence[str]
    """Names of the results of a step: the parameters and their state."""
    parameters: Sequence[Tensor]
    states: Sequence[Mapping[str, Any]]

    @staticmethod
    def of(make: MakeOptimizer, model: nn.Module) -> Start:
        """Take a first step on copies of the model's parameters.

        Raises:
            FoldproofError: the optimizer can't be made of them, or takes no step.
        """
        own = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
        copies = [p.clone().requires_grad_() for p in own.values()]
        generator = torch.Generator().manual_seed(0)
        for p in copies:
            p.grad = torch.randn(p.shape, generator=generator).to(p)
        try:
            optimizer = make(list(copies))
            with kept_generators():
                optimizer.step()
        except Exception as error:
            raise FoldproofError(f"the optimizer takes no step on the model's parameters: {brief(error)}") from error
        states = [dict(optimizer.state[p]) for p in copies]
        names = [f"{name} after the update" for name in own]
        names += [f"{key} of {name}" for name, state in zip(own, states) for key in _tensors(state)]
        return Start(make, names, list(own.values()), states)

    def prepare(self, parameters: Sequence[Tensor]) -> Update:
        """Return the update of these parameters, which it writes to."""
        optimizer = self.make(list(parameters))
        for p, state in zip(parameters, self.states):
            optimizer.state[p] = {key: _copied(x) for key, x in state.items()}
        return Update(self, parameters, optimizer)


@dataclass(frozen=True)
class Update:
    """An optimizer of parameters that are in work."""

    start: Start
    parameters: Sequence[Tensor]
    optimizer: torch.optim.Optimizer

    def step(self) -> None:
        """Take the optimizer's step with the gradients that the parameters have."""
        self.optimizer.step()

    @torch.no_grad()
    def restart(self) -> None:
        """Go back to the state before the step, in the same memory."""
        for p, first, state in zip(self.parameters, self.start.parameters, self.start.states):
            p.copy_(first)
            for key, x in state.items():
                held = self.optimizer.state[p]
                held[key] = held[key].copy_(x) if isinstance(x, Tensor) else x

    def run(self, step: Callable[[], Any]) -> list[Tensor]:
        """Take the step, and return the new parameters and their state."""
        step()
        for p in self.parameters:
            p.grad = None
        states = [self.optimizer.state[p] for p in self.parameters]
        made = [p.detach().clone() for p in self.parameters]
        return [*made, *(state[key].detach().clone() for state in states for key in _tensors(state))]


def _copied(x: Any) -> Any:
    """Return a copy; a tracer reads the number in a counter of steps, but not in a copy of a tensor."""
    if isinstance(x, Tensor) and not x.ndim:
        return torch.tensor(x.item(), dtype=x.dtype, device=x.device)
    return x.clone() if isinstance(x, Tensor) else x


def _tensors(state: Mapping[str, Any]) -> list[str]:
    return [key for key, x in state.items() if isinstance(x, Tensor)]
