"""One model, two algorithms: the parallel form of a layer against its recurrence, and other ways to convolve."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.ports.port import TOKENS, Pair, Port


def mamba() -> Pair:
    """Mamba over all tokens at once, and token by token with its state in the cache."""
    transformers = import_module("transformers")
    config = transformers.MambaConfig(
        vocab_size=61, hidden_size=16, state_size=4, num_hidden_layers=2, use_mambapy=False
    )
    model, port = transformers.MambaModel(config).eval(), transformers.MambaModel(config).eval()

    def at_once(tokens: Tensor) -> Tensor:
        hidden: Tensor = model(input_ids=tokens, use_cache=False).last_hidden_state
        return hidden

    def one_by_one(tokens: Tensor) -> Tensor:
        made, state = [], dict[str, Any]()
        for t in range(tokens.shape[1]):
            found = port(input_ids=tokens[:, t : t + 1], use_cache=True, **state)
            state = {"cache_params": found.cache_params, "cache_position": torch.tensor([t + 1])}
            made.append(found.last_hidden_state)
        return torch.cat(made, 1)

    return Pair(at_once, one_by_one, (TOKENS,), dict)


class Convolution(nn.Module):
    """A 3×3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)


class Winograd(Convolution):
    """Winograd's F(2×2, 3×3), Lavin and Gray 2016: 16 products for 4 outputs instead of 36."""

    def forward(self, x: Tensor) -> Tensor:
        of_kernel = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
        of_tile = torch.tensor([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
        of_result = torch.tensor([[1.0, 1, 1, 0], [0, 1, -1, -1]])
        kernels = of_kernel @ self.weight @ of_kernel.T
        tiles = of_tile @ x.unfold(2, 4, 2).unfold(3, 4, 2) @ of_tile.T
        results = of_result @ torch.einsum("nchwij,ocij->nohwij", tiles, kernels) @ of_result.T
        n, o, h, w, _, _ = results.shape
        return results.permute(0, 1, 2, 4, 3, 5).reshape(n, o, 2 * h, 2 * w)


class Columns(Convolution):
    """The product of a matrix of all windows and one of all kernels."""

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        return (self.weight.flatten(1) @ F.unfold(x, 3)).reshape(n, -1, h - 2, w - 2)


def convolution(other: type[Convolution]) -> Callable[[], Pair]:
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return lambda: Pair(Convolution(), other(), (image,), dict)


def gated_delta_rule() -> Pair:
    """Qwen3-Next's linear attention, over chunks of 4 tokens and token by token."""
    made = import_module("transformers.models.qwen3_next.modeling_qwen3_next")
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 6, 2, 4, generator=generator) for _ in range(3))
    decay, beta = (torch.rand(1, 6, 2, generator=generator) for _ in range(2))

    class Chunks(nn.Module):
        def forward(self, *given: Tensor) -> Tensor:
            out: Tensor = made.torch_chunk_gated_delta_rule(*given, chunk_size=4)[0]
            return out

    class Recurrence(nn.Module):
        def forward(self, *given: Tensor) -> Tensor:
            out: Tensor = made.torch_recurrent_gated_delta_rule(*given, initial_state=None, output_final_state=False)[0]
            return out

    return Pair(Chunks(), Recurrence(), (q, k, v, -decay, beta), dict)


ALGORITHMS = (
    Port("Mamba", "transformers, all tokens at once", "its own recurrence, token by token", "the same names", mamba),
    Port("A convolution", "torch", "Winograd's F(2×2, 3×3), written here", "the same names", convolution(Winograd)),
    Port("A convolution", "torch", "a product of matrices, written here", "the same names", convolution(Columns)),
    Port(
        "Qwen3-Next's gated delta rule",
        "transformers, in chunks",
        "its own recurrence, token by token",
        "no parameters",
        gated_delta_rule,
        "Chunks take the exponential of a sum of decays for each pair of tokens, and the recurrence multiplies"
        " exponentials. The sums differ from element to element, and exponentials are read by their identities only"
        " where those of a whole tensor agree.",
    ),
)
