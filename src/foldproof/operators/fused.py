"""Fused steps of optimizers, ``_fused_adam_`` and others: each is a few operators on each parameter, in place.

The numbers are those of PyTorch's loops over single tensors, so that a fused step is proved equal to a plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from foldproof.torch_internals import OpOverload

aten = torch.ops.aten


def _require_no_scaler(operator: str, given: dict[str, Any]) -> None:
    if given.get("grad_scale") is not None or given.get("found_inf") is not None:
        raise NotImplementedError(f"no rule for {operator} with a gradient scaler")


def _step_sgd(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    buffers: Sequence[Tensor],
    *,
    weight_decay: float,
    momentum: float,
    lr: float,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    is_first_step: bool,
    **scaler: Any,
) -> None:
    _require_no_scaler("aten._fused_sgd_", scaler)
    for i, (p, g) in enumerate(zip(parameters, gradients)):
        g = -g if maximize else g
        if weight_decay:
            g = g.add(p, alpha=weight_decay)
        if momentum:
            buffer = buffers[i]
            buffer.copy_(g if is_first_step else (buffer * momentum).add(g, alpha=1 - dampening))
            g = g.add(buffer, alpha=momentum) if nesterov else buffer
        p.add_(g, alpha=-lr)


def _step_adam(decoupled: bool) -> Callable[..., None]:
    def step(
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        means: Sequence[Tensor],
        squares: Sequence[Tensor],
        largest: Sequence[Tensor],
        steps: Sequence[Tensor],
        *,
        lr: float,
        beta1: float,
        beta2: float,
        weight_decay: float,
        eps: float,
        amsgrad: bool,
        maximize: bool,
        **scaler: Any,
    ) -> None:
        _require_no_scaler("aten._fused_adam_", scaler)
        for i, (p, g, mean, square) in enumerate(zip(parameters, gradients, means, squares)):
            count = float(steps[i])
            g = -g if maximize else g
            if weight_decay and decoupled:
                p.mul_(1 - lr * weight_decay)
            elif weight_decay:
                g = g.add(p, alpha=weight_decay)
            mean.lerp_(g, 1 - beta1)
            square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            root = (1 - beta2**count) ** 0.5
            if amsgrad:
                largest[i].copy_(torch.maximum(largest[i], square))
            spread = ((largest[i] if amsgrad else square).sqrt() / root).add(eps)
            p.addcdiv_(mean, spread, value=-(lr / (1 - beta1**count)))

    return step


def _step_adagrad(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    sums: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    lr: float,
    lr_decay: float,
    weight_decay: float,
    eps: float,
    maximize: bool,
    **scaler: Any,
) -> None:
    _require_no_scaler("aten._fused_adagrad_", scaler)
    for p, g, total, count in zip(parameters, gradients, sums, steps):
        g = -g if maximize else g
        if weight_decay:
            g = g.add(p, alpha=weight_decay)
        total.addcmul_(g, g, value=1)
        p.addcdiv_(g, total.sqrt().add(eps), value=-lr / (1 + (float(count) - 1) * lr_decay))


FUSED: dict[OpOverload, Callable[..., None]] = {
    aten._fused_adagrad_.default: _step_adagrad,
    aten._fused_adam_.default: _step_adam(decoupled=False),
    aten._fused_adamw_.default: _step_adam(decoupled=True),
    aten._fused_sgd_.default: _step_sgd,
}
"""Fused steps as functions of other operators, with the arguments of the operator."""
