"""Models on which released compilers go wrong, and one on which they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from tests.proof.models import CalledTwice, ReadTwice, trained


class NormTwice(nn.Module):
    """conv → BatchNorm → BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.conv(x)))


class TiedLinear(nn.Module):
    """One linear layer, used twice, each time with a BatchNorm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.first, self.second = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.linear(self.first(self.linear(x))))


class Counter(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x * self.count


class WriteBetween(nn.Module):
    """Parallel linears, and a write to their input in between."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        out = []
        for i, layer in enumerate(self.layers):
            out.append(F.linear(x, layer.weight, layer.bias))
            if i == 1:
                x.add_(1)
        return torch.cat(out)


class Doubled(nn.Module):
    """A product, and twice a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x @ self.weight, self.bias, alpha=2)


class BelowLargest(nn.Module):
    """Scaled columns, less the largest element of all."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, -3.0, 4.0]))

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.scale
        return y - y.amax(keepdim=True)


class WholeNumbers(nn.Module):
    """Scaled and rounded to whole numbers, less the largest of each row."""

    def forward(self, x: Tensor) -> Tensor:
        y = (x * 2.5).to(torch.int32)
        return (y - y.amax(1, keepdim=True)).float()


class LargestPlaces(nn.Module):
    """Places of the largest elements of the windows of a transposed input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x.transpose(2, 3), 5, return_indices=True)[1]


class Places(nn.Module):
    """A constant, counted up in whole numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.full((4,), 2.5).cumsum(0, dtype=torch.int64)


class Shifted(nn.Module):
    """A convolution, less twice a shift of its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.shift = nn.Conv2d(3, 4, 1), nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sub(self.conv(x), self.shift, alpha=2)


class RoundedDown(nn.Module):
    """Almost a hardsigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.div(torch.clamp(self.conv(x) + 3, 0, 6), 6, rounding_mode="floor")


class Halves(nn.Module):
    """One function of both rows of its input, each by itself."""

    def __init__(self, of: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.of, self.other = of, other or of

    def forward(self, x: Tensor) -> Tensor:
        a, b = (x * 2).unbind()
        return torch.cat([self.of(a) * 3, self.other(b) * 3])


def rectified_in_place(x: Tensor) -> Tensor:
    """Twice the rectified x, since x is rectified itself."""
    return F.relu(x, inplace=True) + x


class TwoHeads(nn.Module):
    """Two linear layers on one input, and a write to it in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        x.add_(1)
        return torch.cat([first, self.second(x)])


class AddedUp(nn.Module):
    """A linear layer on a mean of words."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.linear = nn.Embedding(100, 256), nn.Linear(256, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(self.words(tokens).mean(1))


class NothingAdded(nn.Module):
    """A tensor of zeros plus the input, which is a new tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x) + x


class CountedUp(nn.Module):
    """The numbers 1, 2, 3 in each column."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(x).cumsum(0)


class Called(nn.Module):
    """A function of the input, as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def scattered_before_a_write(x: Tensor) -> Tensor:
    """A copy of x with another row, as it was before x is zeroed."""
    y = torch.slice_scatter(x, x[:1] * 2, 0, 1, 2)
    x.zero_()
    return y


def added_to_its_mirror(x: Tensor) -> Tensor:
    """An operator on lists, which writes to what it reads at other places."""
    torch._foreach_add_([x], [x.flip(0)])
    return x * 2


def attends_along_heads(x: Tensor) -> Tensor:
    """Attention whose scores are normalised over the heads."""
    return (x @ x.transpose(-2, -1)).div(2).softmax(1).matmul(x)


def doubled_and_mirrored(x: Tensor) -> Tensor:
    """Two writes in a row, of which the second reads other places."""
    x.index_put_((torch.arange(x.size(0)),), x * 2.0)
    x.add_(x.flip(0))
    return x * 2


class Counted(nn.Module):
    """The number of positive elements until each one, as position ids are counted from a mask."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).cumsum(0) * 1.0


@dataclass(frozen=True)
class Case:
    """A released compiler's wrong answer: the pass that makes it, and the release of torch that no longer does."""

    compiler: str
    model: nn.Module
    shape: tuple[int, ...]
    culprit: str
    options: dict[str, Any] = field(default_factory=dict)
    fixed: str = ""

    @property
    def is_fixed(self) -> bool:
        """True if the installed release of torch is right."""
        return bool(self.fixed) and TorchVersion(torch.__version__) >= self.fixed

    def build(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        torch.manual_seed(0)
        return trained(self.model), (torch.randn(self.shape),)


def _batched(name: str, model: nn.Module, options: str = "pre_grad_fusion_options", fixed: str = "") -> Case:
    return Case("inductor", model, (2, 4), name, {options: {name: {"min_fuse_set_size": 2}}}, fixed)


WRONG = {
    "executorch: linear, 3-D, BatchNorm": Case(
        "executorch", nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), (4, 6, 6), "FuseBatchNormPass"
    ),
    "executorch: one conv weight, two BatchNorms": Case("executorch", CalledTwice(), (2, 3, 8, 8), "FuseBatchNormPass"),
    "executorch: conv, ReLU, Hardtanh": Case(
        "executorch", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Hardtanh()), (1, 3, 6, 6), "FuseActivationPass"
    ),
    "torchao: conv, BatchNorm, BatchNorm": Case("torchao", NormTwice(), (2, 3, 4, 4), "_fuse_conv_bn_"),
    "torchao: conv output read twice": Case("torchao", ReadTwice(), (2, 3, 4, 4), "_fuse_conv_bn_"),
    "torchao: tied linear": Case("torchao", TiedLinear(), (3, 4), "_fuse_linear_bn_"),
    "torchao: a buffer that is written to": Case("torchao", Counter(), (2, 4), "constant_fold", {"quantizer": "none"}),
    "fx: conv called twice": Case("fx", CalledTwice(), (2, 3, 8, 8), "fuse"),
    "inductor: freezing ConvTranspose2d, BatchNorm": Case(
        "inductor",
        nn.Sequential(nn.ConvTranspose2d(4, 4, 3), nn.BatchNorm2d(4)),
        (2, 4, 8, 8),
        "binary_folding.folded_op",
        {"freezing": True},
    ),
    "inductor: batch_linear over a write": Case(
        "inductor", WriteBetween(), (2, 4), "batch_linear", {"pre_grad_fusion_options": {"batch_linear": {}}}
    ),
    "inductor: matmul, add with alpha": Case("inductor", Doubled(), (3, 4), "post_grad.addmm"),
    "inductor: scaled, less the largest of all": Case(
        "inductor", BelowLargest(), (3, 4), "joint_graph.mul_softmax_pattern"
    ),
    "inductor: whole numbers, less the largest": Case(
        "inductor", WholeNumbers(), (3, 4), "joint_graph.mul_softmax_pattern"
    ),
    "inductor: cumsum in whole numbers": Case(
        "inductor", Places(), (4,), "post_grad.pointless_cumsum_replacement", fixed="2.14.1"
    ),
    "inductor: places of max pooling, transposed": Case("inductor", LargestPlaces(), (1, 2, 15, 10), "lowering"),
    "inductor: freezing conv, sub with alpha": Case(
        "inductor", Shifted(), (2, 3, 4, 4), "binary_folding.folded_op", {"freezing": True}
    ),
}

FOUND = WRONG | {
    "inductor: batch_aten_sub with alpha": _batched(
        "batch_aten_sub", Halves(lambda x: torch.sub(x.cos(), x.sin(), alpha=2)), "post_grad_fusion_options"
    ),
    "inductor: batch_clamp with two minima": _batched(
        "batch_clamp",
        Halves(lambda x: torch.clamp(x, -1, max=1), lambda x: torch.clamp(x, 0, max=1)),
        fixed="2.14.1",
    ),
    "inductor: batch_nan_to_num with a number": _batched(
        "batch_nan_to_num", Halves(lambda x: torch.nan_to_num(x.sqrt(), 5.0)), fixed="2.14.1"
    ),
    "inductor: batch_relu in place": _batched("batch_relu", Halves(rectified_in_place)),
    "inductor: batch_dropout in eval mode": _batched("batch_dropout", Halves(nn.Dropout(0.5)), fixed="2.14.1"),
    "inductor: batch_linear_lhs over a write": _batched("batch_linear_lhs", TwoHeads()),
    "inductor: slice_scatter before a write": Case(
        "inductor", Called(scattered_before_a_write), (3, 4), "reinplace_inplaceable_ops"
    ),
    "inductor: an operator on lists that reads its mirror": Case(
        "inductor", Called(added_to_its_mirror), (4, 4), "lowering"
    ),
    "inductor: index_put_, then added to its mirror": Case(
        "inductor", Called(doubled_and_mirrored), (4, 4), "scheduling"
    ),
    "openvino: cumsum of booleans": Case("openvino", Counted(), (1000,), "conversion to OpenVINO"),
    "inductor: attention along another dimension": Case(
        "inductor", Called(attends_along_heads), (2, 3, 4, 5), "ReplacementPatternEntry._sfdp_pattern_1_inference"
    ),
    "inductor: zeros and a tensor, the tensor itself": Case("inductor", NothingAdded(), (3, 4), "remove_no_ops"),
    "inductor: cumsum of ones in one column": Case(
        "inductor", CountedUp(), (3, 4), "post_grad.pointless_cumsum_replacement", fixed="2.14.1"
    ),
}
"""With fusions that have to be asked for, and wrong memory, where no step is refuted."""


def right() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A model that every compiler folds rightly."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    return trained(nn.Sequential(*layers)), (torch.randn(2, 3, 8, 8),)
