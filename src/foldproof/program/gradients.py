"""Calls whose results need gradients: these are not looked at, unless a proof of a training step asks for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.torch_internals import tree_iter

UNSEEN_GRADIENTS = "gradients were not compared; foldproof.prove_step proves training steps"
UNAUDITED_GRADIENTS = "the backward was not audited; training=True, or --training, compiles the model with gradients"


def tell_unseen_gradients(program: Any, inputs: Any, note: str = UNSEEN_GRADIENTS) -> list[str]:
    """Return the ``note`` for a program that is to be trained: a module in training mode, or inputs with gradients.

    Parameters of a module in evaluation mode mostly require gradients, too, and nobody computes them.
    """
    if not torch.is_grad_enabled():
        return []
    trains = isinstance(program, nn.Module) and not isinstance(program, fx.GraphModule) and program.training
    needed = trains and any(p.requires_grad for p in program.parameters())
    needed = needed or any(isinstance(x, Tensor) and x.requires_grad for x in tree_iter(inputs))
    return [note] if needed else []
