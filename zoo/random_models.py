"""Random models of ordinary layers: correct programs that must not raise an alarm."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

_ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.ELU,
    nn.Softplus,
    nn.Hardswish,
    nn.Mish,
    nn.LeakyReLU,
)


class _Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.body(x)
        return out


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, w = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(y.transpose(1, 2).reshape(b, n, w))
        return out


class _Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


def random_model(seed: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A perceptron, a convolutional network or a small transformer, with inputs; the same for the same seed."""
    rng = random.Random(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        make = rng.choice((_perceptron, _convolutional, _transformer))
        model, inputs = make(rng)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                with torch.no_grad():
                    module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr]
                    module.running_var.uniform_(0.2, 2.0)  # type: ignore[union-attr]
        return model.eval(), inputs


def _perceptron(rng: random.Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    width = rng.choice((24, 64, 200))
    layers: list[nn.Module] = []
    for _ in range(rng.randint(1, 8)):
        block = [nn.Linear(width, width, bias=rng.random() < 0.8), rng.choice(_ACTIVATIONS)()]
        if rng.random() < 0.4:
            block.insert(0, rng.choice((nn.LayerNorm, nn.RMSNorm))(width))
        if rng.random() < 0.3:
            block.append(nn.BatchNorm1d(width))
        layers.append(_Residual(nn.Sequential(*block)) if rng.random() < 0.5 else nn.Sequential(*block))
    head = nn.Sequential(
        nn.Linear(width, rng.choice((1, 7, 40))), *rng.choice(([], [nn.Softmax(-1)], [nn.LogSoftmax(-1)]))
    )
    return nn.Sequential(*layers, head), (rng.choice((0.1, 1.0, 30.0)) * torch.randn(rng.choice((1, 5, 32)), width),)


def _convolutional(rng: random.Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    width = rng.choice((8, 16, 24))
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    for _ in range(rng.randint(1, 5)):
        norm = rng.choice((nn.BatchNorm2d(width), nn.GroupNorm(4, width), nn.InstanceNorm2d(width)))
        groups = rng.choice((1, width))
        block = [
            nn.Conv2d(width, width, rng.choice((1, 3)), padding="same", groups=groups),
            norm,
            rng.choice(_ACTIVATIONS)(),
        ]
        layers.append(_Residual(nn.Sequential(*block)) if rng.random() < 0.5 else nn.Sequential(*block))
        if rng.random() < 0.3:
            layers.append(rng.choice((nn.MaxPool2d(2, 2, ceil_mode=True), nn.AvgPool2d(2, 2, ceil_mode=True))))
    head = [nn.AdaptiveAvgPool2d(rng.choice((1, 2))), nn.Flatten(), nn.LazyLinear(10)]
    model, x = nn.Sequential(*layers, *head), torch.randn(2, 3, 16, 16)
    model(x)  # initialises lazy layers
    return model, (x,)


def _transformer(rng: random.Random) -> tuple[nn.Module, tuple[Tensor, ...]]:
    size, count = rng.choice(((32, 4), (64, 8)))
    blocks: list[nn.Module] = [nn.Embedding(100, size)]
    for _ in range(rng.randint(1, 3)):
        mlp = nn.Sequential(nn.Linear(size, 2 * size), rng.choice(_ACTIVATIONS)(), nn.Linear(2 * size, size))
        norm = rng.choice((nn.LayerNorm, nn.RMSNorm))
        blocks += [
            _Residual(nn.Sequential(norm(size), _Attention(size, count))),
            _Residual(nn.Sequential(norm(size), mlp)),
        ]
    blocks += [_Mean()] if rng.random() < 0.5 else []
    return nn.Sequential(*blocks, nn.Linear(size, 11)), (torch.randint(0, 100, (2, rng.choice((5, 17)))),)
