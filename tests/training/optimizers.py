"""Optimizers written by hand, right ones and ones with a planted fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ADAM = {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}
SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}

ADAM_FAULTS = (
    "epsilon inside the root",
    "decay is decoupled",
    "no correction of the first moment",
    "no correction of the second moment",
    "the moments' rates are exchanged",
    "decay is forgotten",
    "the second moment is of the gradient without decay",
)
SGD_FAULTS = (
    "decay after momentum",
    "no Nesterov momentum",
    "the gradient is damped",
    "the sign of the decay",
    "momentum holds the rate",
)


class _ByHand(torch.optim.Optimizer):
    def __init__(self, parameters: list[Tensor], fault: str) -> None:
        super().__init__(parameters, {})
        self.fault = fault

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.update(p, p.grad, self.state[p])

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
        raise NotImplementedError


class Adam(_ByHand):
    """Adam with coupled weight decay."""

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        fault, (first, second) = self.fault, ADAM["betas"]
        if fault == "the moments' rates are exchanged":
            first, second = second, first
        state["step"] += 1
        raw = g
        if fault == "decay is decoupled":
            p.mul_(1 - ADAM["lr"] * ADAM["weight_decay"])
        elif fault != "decay is forgotten":
            g = g + ADAM["weight_decay"] * p
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        mean.mul_(first).add_(g * (1 - first))
        of = raw if fault == "the second moment is of the gradient without decay" else g
        square.mul_(second).add_(of * of * (1 - second))
        rate = ADAM["lr"] / (1 if fault == "no correction of the first moment" else 1 - first ** state["step"])
        bias = 1 if fault == "no correction of the second moment" else 1 - second ** state["step"]
        eps = ADAM["eps"]
        root = (square / bias + eps).sqrt() if fault == "epsilon inside the root" else square.sqrt() / bias**0.5 + eps
        p.sub_(mean / root * rate)


class SGD_(_ByHand):
    """SGD with weight decay and Nesterov momentum."""

    def update(self, p: Tensor, g: Tensor, state: dict[str, Any]) -> None:
        fault, decay, momentum, rate = self.fault, SGD["weight_decay"], SGD["momentum"], SGD["lr"]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer = state["momentum_buffer"]
        if fault != "decay after momentum":
            g = g + (-decay if fault == "the sign of the decay" else decay) * p
        damped = g * (1 - momentum) if fault == "the gradient is damped" else g
        buffer.mul_(momentum).add_(damped * (rate if fault == "momentum holds the rate" else 1))
        step = buffer if fault == "no Nesterov momentum" else g + momentum * buffer
        if fault == "decay after momentum":
            step = step + decay * p
        p.sub_(step * (1 if fault == "momentum holds the rate" else rate))


def make(cls: type[_ByHand], fault: str = "") -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    return lambda parameters: cls(parameters, fault)
