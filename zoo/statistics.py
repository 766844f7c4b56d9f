"""Nontrivial parameters and statistics, in place of the trivial ones of random initialisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves


def amplify(model: nn.Module) -> None:
    """Scale up each matrix, kernel and table with outputs much smaller than its inputs.

    `transformers` draws weights with a standard deviation of 0.02, suited to widths of a thousand. In a narrow
    model, a signal shrinks at each layer, and only biases reach the output.
    """
    for parameter in model.parameters():
        x = parameter.data
        if x.ndim > 1 and x.numel():
            size, wanted = float(x.square().mean().sqrt()), (2 * x.shape[0] / x.numel()) ** 0.5
            if 0 < size < wanted:
                x *= wanted / size


def scatter(model: nn.Module, seed: int = 0) -> None:
    """Add noise to every parameter whose elements are all equal, and draw BatchNorm's scales and shifts anew.

    Norms start as ones and zeros, LayerScale as 1e-6, class tokens as zeros: a rewrite that confuses them, or drops a
    branch behind them, would change no output. Some BatchNorms start with scales of 0.02; trained ones take both signs.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, x in _parameters(module):
            noise = torch.randn(x.shape, generator=generator)
            if _is_batch_norm(module):
                x.copy_(0.2 * noise if name == "bias" else (1 + 0.2 * noise) * _signs(x.shape, generator))
            elif x.numel() and not bool((x != x.flatten()[0]).any()):
                x += 0.2 * noise


def _signs(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.where(torch.rand(shape, generator=generator) < 0.1, -1.0, 1.0)


@torch.no_grad()
def calibrate(model: nn.Module, inputs: Sequence[Tensor], seed: int = 0) -> None:
    """Give each BatchNorm the statistics of its own input in one forward run, moved by a random amount.

    With plain random statistics, the signal of many deep networks vanishes on the way. The outputs then do not depend
    on the inputs, and comparing them says nothing.
    """
    generator = torch.Generator().manual_seed(seed)

    def take(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].float()
        var, mean = torch.var_mean(x, [d for d in range(x.ndim) if d != 1], unbiased=False)
        var = (var + var.mean()) / 2  # a batch of two may happen to agree in a channel
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


def _parameters(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in module.named_parameters(recurse=False):
        yield name, parameter.data
    if _is_batch_norm(module):  # frozen ones keep their affine parameters as buffers
        yield from ((name, x) for name, x in module.named_buffers(recurse=False) if name in ("weight", "bias"))


def _is_batch_norm(module: nn.Module) -> bool:
    # Detectors have a FrozenBatchNorm2d of their own.
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or type(module).__name__.endswith("FrozenBatchNorm2d")


@torch.no_grad()
def sensitivity(model: nn.Module, inputs: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The change by ``others`` in place of ``inputs`` of the output that changes least: relative root mean square."""
    pairs = zip(tree_leaves(model(*inputs)), tree_leaves(model(*others)), strict=True)
    floats = [(a.double(), b.double()) for a, b in pairs if isinstance(a, Tensor) and a.is_floating_point()]
    return min(float((a - b).square().mean().sqrt() / a.square().mean().sqrt()) for a, b in floats)
