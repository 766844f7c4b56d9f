"""Kernels that are wrong on purpose, for a comparison to find and name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
Kernel = Callable[..., Any]
"""A kernel, called with the operator and its arguments."""


@dataclass(frozen=True)
class Bug:
    """A wrong kernel for one operator, and the operator of an exported graph to be blamed for it."""

    name: str
    operator: Any
    kernel: Kernel
    seen_at: str


def planted(model: nn.Module, bug: Bug) -> Any:
    """Compile the model with a backend that changes nothing but the first call of one operator."""

    def backend(graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            with _Planted(bug):
                return graph(*args)

        return run

    torch._dynamo.reset()
    return torch.compile(model, backend=backend)


class _Planted(TorchDispatchMode):
    def __init__(self, bug: Bug) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bug = bug
        self._done = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not self._bug.operator or self._done:
            return func(*args, **(kwargs or {}))
        self._done = True
        return self._bug.kernel(func, *args, **(kwargs or {}))


def ulps(k: int) -> Kernel:
    """A kernel whose (first) result is off by 2^k units in the last place everywhere, up or down at random."""

    def kernel(func: Any, *args: Any, **kwargs: Any) -> Any:
        out = func(*args, **kwargs)
        first = out[0] if isinstance(out, tuple) else out
        signs = torch.randint(0, 2, first.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        off = first * (1 + signs.to(first.dtype) * 2.0**k * torch.finfo(first.dtype).eps)
        return (off, *out[1:]) if isinstance(out, tuple) else off

    return kernel


def _bf16(x: Any) -> Any:
    return x.bfloat16().to(x.dtype) if isinstance(x, Tensor) and x.is_floating_point() else x


def _reduced(func: Any, *args: Any, **kwargs: Any) -> Any:
    return func(*(_bf16(a) for a in args), **kwargs)


def _no_bias(func: Any, x: Tensor, w: Tensor, b: Any, *rest: Any) -> Any:
    return func(x, w, None, *rest)


def _transposed_kernel(func: Any, x: Tensor, w: Tensor, *rest: Any) -> Any:
    return func(x, w.transpose(-1, -2).contiguous(), *rest)


def _unbiased_addmm(func: Any, bias: Tensor, a: Tensor, b: Tensor, **kwargs: Any) -> Any:
    return func(torch.zeros_like(bias), a, b, **kwargs)


def _other_axis(func: Any, x: Tensor, dim: int, half: bool) -> Any:
    return func(x, -2, half)


def _tanh_gelu(func: Any, x: Tensor, **kwargs: Any) -> Any:
    return func(x, approximate="tanh")


def _one_less(func: Any, x: Tensor, dim: Sequence[int], keepdim: bool = False, **kwargs: Any) -> Any:
    out = func(x, dim, keepdim, **kwargs)
    n = x.numel() // out.numel()
    return out * (n / (n - 1))


def _eps_outside(
    func: Any, x: Tensor, w: Any, b: Any, mean: Tensor, var: Tensor, train: bool, m: float, e: float
) -> Any:
    return func(x, w, b, mean, (var.sqrt() + 100 * e).square() - e, train, m, e)


def _layer_norm_eps(func: Any, x: Tensor, shape: Any, w: Any, b: Any, eps: float) -> Any:
    return func(x, shape, w, b, 100 * eps)


def _alpha(func: Any, x: Tensor, y: Any, **kwargs: Any) -> Any:
    return func(x, y, alpha=1.01)


def _next_row(func: Any, table: Tensor, ids: Tensor, *rest: Any) -> Any:
    return func(table, (ids + 1) % table.shape[0], *rest)


def _swapped(func: Any, tensors: Sequence[Tensor], dim: int = 0) -> Any:
    return func(list(reversed(tensors)), dim)


def _hard(func: Any, x: Tensor) -> Any:
    return aten.hardswish(x)


BUGS = (
    Bug("linear without its bias", aten.addmm.default, _unbiased_addmm, "aten.linear.default"),
    Bug("linear in bfloat16", aten.addmm.default, _reduced, "aten.linear.default"),
    Bug("conv2d without its bias", aten.convolution.default, _no_bias, "aten.conv2d.default"),
    Bug(
        "conv2d with height and width of its kernel swapped",
        aten.convolution.default,
        _transposed_kernel,
        "aten.conv2d.default",
    ),
    Bug("conv2d in bfloat16", aten.convolution.default, _reduced, "aten.conv2d.default"),
    Bug("softmax along the wrong axis", aten._softmax.default, _other_axis, "aten.softmax.int"),
    Bug("gelu by tanh", aten.gelu.default, _tanh_gelu, "aten.gelu.default"),
    Bug("mean over n − 1", aten.mean.dim, _one_less, "aten.mean.dim"),
    Bug(
        "batch_norm with epsilon outside the root",
        aten.native_batch_norm.default,
        _eps_outside,
        "aten.batch_norm.default",
    ),
    Bug(
        "layer_norm with a hundredfold epsilon",
        aten.native_layer_norm.default,
        _layer_norm_eps,
        "aten.layer_norm.default",
    ),
    Bug("add with alpha 1.01", aten.add.Tensor, _alpha, "aten.add.Tensor"),
    Bug("embedding of the next row", aten.embedding.default, _next_row, "aten.embedding.default"),
    Bug("cat in the wrong order", aten.cat.default, _swapped, "aten.cat.default"),
    Bug("silu as hardswish", aten.silu.default, _hard, "aten.silu.default"),
)
"""Wrong kernels far beyond rounding."""

OPERATORS = {
    "aten.linear.default": aten.addmm.default,
    "aten.conv2d.default": aten.convolution.default,
    "aten.softmax.int": aten._softmax.default,
    "aten.gelu.default": aten.gelu.default,
    "aten.mean.dim": aten.mean.dim,
    "aten.batch_norm.default": aten.native_batch_norm.default,
    "aten.layer_norm.default": aten.native_layer_norm.default,
    "aten.add.Tensor": aten.add.Tensor,
    "aten.embedding.default": aten.embedding.default,
    "aten.silu.default": aten.silu.default,
}
"""Ten operators of exported graphs, and their kernels."""


class Everything(nn.Module):
    """A program that depends on each of these operators: an image branch and a token branch, then attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.patches = nn.Linear(16, 16)
        self.words = nn.Embedding(50, 16)
        self.query, self.key, self.value = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32)
        self.up, self.down, self.head = nn.Linear(32, 64), nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        seen = (
            torch.nn.functional.silu(self.bn(self.conv(image)))
            .flatten(2)
            .transpose(1, 2)[:, : ids.shape[1]]
            .contiguous()
        )
        x = torch.cat([self.patches(seen), self.words(ids)], dim=-1)
        scores = self.query(x) @ self.key(x).transpose(1, 2) / 32**0.5
        x = x + torch.softmax(scores, dim=-1) @ self.value(x)
        x = x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))
        out: Tensor = self.head(x.mean(dim=1))
        return out


def everything() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """`Everything` with nontrivial statistics, and its inputs; always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Everything().eval()
        with torch.no_grad():
            model.bn.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            model.bn.running_var.uniform_(0.05, 0.5)  # type: ignore[union-attr]
        return model, (torch.randn(4, 3, 8, 8), torch.randint(0, 50, (4, 12)))


class Deep(nn.Module):
    """``depth`` residual blocks of layer_norm, linear, gelu and linear."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return x


def deep(depth: int) -> tuple[nn.Module, tuple[Tensor]]:
    """`Deep` and its input; always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Deep(depth).eval(), (torch.randn(32, 64),)
