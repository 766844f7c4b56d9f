"""Parameters and statistics that matter: what random initialisation leaves trivial is moved away from there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def scatter(model: nn.Module, seed: int = 0) -> None:
    """Add noise to every floating-point parameter whose elements are all equal, and give some scales a minus sign.

    Norms start as ones and zeros, LayerScale as 1e-6, class tokens as zeros: a rewrite that mixed them up, or forgot a
    branch behind them, would change no output.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            x = parameter.data
            if not x.is_floating_point() or not x.numel() or bool((x != x.flatten()[0]).any()):
                continue
            x += 0.2 * torch.randn(x.shape, generator=generator)
            if _is_batch_norm(module) and name == "weight":
                x *= torch.where(torch.rand(x.shape, generator=generator) < 0.1, -1.0, 1.0)


@torch.no_grad()
def calibrate(model: nn.Module, inputs: Sequence[Tensor], seed: int = 0) -> None:
    """Give each BatchNorm the statistics of its own input in one forward run, moved by a random amount.

    With plain random statistics the signal of many deep networks vanishes on the way, the outputs no longer depend on
    the inputs, and comparing outputs says nothing.
    """
    generator = torch.Generator().manual_seed(seed)

    def take(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].float()
        var, mean = torch.var_mean(x, [d for d in range(x.ndim) if d != 1], unbiased=False)
        var = var.clamp_min(1e-4)
        assert isinstance(module.running_mean, Tensor) and isinstance(module.running_var, Tensor)
        module.running_mean.copy_(mean + 0.2 * var.sqrt() * torch.randn(mean.shape, generator=generator))
        module.running_var.copy_(var * (0.5 + 1.5 * torch.rand(var.shape, generator=generator)))

    norms = [m for m in model.modules() if _is_batch_norm(m) and getattr(m, "running_mean", None) is not None]
    hooks = [m.register_forward_pre_hook(take) for m in norms]
    try:
        model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()


def _is_batch_norm(module: nn.Module) -> bool:
    # Detectors bring their own FrozenBatchNorm2d, whose affine parameters are buffers.
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or type(module).__name__.endswith("FrozenBatchNorm2d")
