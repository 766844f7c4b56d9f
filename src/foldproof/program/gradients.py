"""Calls whose results need gradients: these are not looked at, unless a proof of a training step asks for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from foldproof.torch_internals import tree_iter

UNSEEN_GRADIENTS = "gradients were not compared; foldproof.prove_step proves training steps"


def tell_unseen_gradients(program: Any, inputs: Any) -> list[str]:
    """Return a note for a program that is about to be trained: a module in training mode, or inputs with gradients.

    Parameters of a module in evaluation mode mostly require gradients, too, and nobody computes them.
    """
    if not torch.is_grad_enabled():
        return []
    trains = isinstance(program, nn.Module) and not isinstance(program, fx.GraphModule) and program.training
    needed = trains and any(p.requires_grad for p in program.parameters())
    needed = needed or any(isinstance(x, Tensor) and x.requires_grad for x in tree_iter(inputs))
    return [UNSEEN_GRADIENTS] if needed else []
