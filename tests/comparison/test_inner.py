"""Values inside of files: a mistake that is in the file, and not in its exporter, is located, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import foldproof
from foldproof import Kind
from tests.comparison.test_candidates import onnx, pte, xml


class Layers(nn.Module):
    def __init__(self, bug: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bug = bug
        self.conv, self.bn = nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8)
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.conv(x))).mean(-1)
        x = self.norm(x) if self.bug != "norm" else F.layer_norm(x, (8,), self.norm.weight, self.norm.bias, 0.1)
        out: Tensor = self.out(F.silu(x) if self.bug != "silu" else F.hardswish(x))
        return out


@pytest.mark.parametrize("make", [onnx, xml, pte], ids=lambda make: make.__name__)
def test_a_mistake_in_a_file_is_located(make: Callable[..., None], tmp_path: Path) -> None:
    model, inputs = Layers().eval(), (torch.randn(6, 4, 9),)
    for bug, operator in (("norm", "aten.layer_norm.default"), ("silu", "aten.silu.default")):
        path = tmp_path / f"{bug}.{make.__name__}"
        make(Layers(bug).eval(), inputs, path)
        found = foldproof.compare(model, path, inputs, trials=2)
        assert found.kind is Kind.REFUTED and found.verdict.difference is not None
        assert found.verdict.difference.operator == operator
        assert found.sources[0].share is not None and found.sources[0].share > 0.9
        assert "inside of the file" in found.found and "compil" not in found.found


@pytest.mark.parametrize("make", [onnx, xml, pte], ids=lambda make: make.__name__)
def test_rounding_in_a_file_is_measured(make: Callable[..., None], tmp_path: Path) -> None:
    model, inputs = Layers().eval(), (torch.randn(6, 4, 9),)
    make(model, inputs, tmp_path / f"right.{make.__name__}")
    found = foldproof.compare(model, tmp_path / f"right.{make.__name__}", inputs, trials=2)
    assert found.kind is Kind.ROUNDING
    assert found.identical or (found.sources[0].measured and "inside of the file" in found.found)


class Whole(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_integers_are_located() -> None:
    x = torch.arange(-8, 8, dtype=torch.int8).reshape(4, 4)
    found = foldproof.compare(
        Whole(lambda x: (x.amin(-1) + 1) * 2), Whole(lambda x: (x.clamp_min(-5).amin(-1) + 1) * 2), (x,), trials=1
    )
    assert found.kind is Kind.REFUTED and found.verdict.difference is not None
    assert found.verdict.difference.operator == "aten.amin.default" and "noise floor" not in str(found)


class Decoder(nn.Module):
    """One layer of attention over tokens with positions; the logits of the last token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.places = nn.Embedding(50, 32), nn.Embedding(16, 32)
        self.qkv, self.head = nn.Linear(32, 96), nn.Linear(32, 50)

    def embed(self, tokens: Tensor, start: int = 0) -> Tensor:
        embedded: Tensor = self.words(tokens) + self.places(torch.arange(start, start + tokens.shape[1]))
        return embedded

    def attend(self, x: Tensor, past: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 4, 8).permute(2, 0, 3, 1, 4)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril(k.shape[2] - q.shape[2])
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return x + y.transpose(1, 2).reshape(x.shape), (k, v)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.attend(self.embed(tokens))[0])[:, -1]
        return out


class Cached(Decoder):
    """The same with the keys and values of all tokens but the last in a cache."""

    def __init__(self, off: int) -> None:
        super().__init__()
        self.off = off

    def forward(self, tokens: Tensor) -> Tensor:
        count = tokens.shape[1] - 1
        _, past = self.attend(self.embed(tokens[:, :count]))
        out: Tensor = self.head(self.attend(self.embed(tokens[:, count:], count + self.off), past)[0])[:, -1]
        return out


class Padded(Decoder):
    def forward(self, tokens: Tensor) -> Tensor:
        padded = F.pad(tokens, (0, 3))
        out: Tensor = self.head(self.attend(self.embed(padded))[0])[:, tokens.shape[1] - 1]
        return out


class OneByOne(Decoder):
    def forward(self, tokens: Tensor) -> Tensor:
        return torch.cat([super(OneByOne, self).forward(tokens[i : i + 1]) for i in range(len(tokens))])


@pytest.mark.parametrize("make", [lambda: Cached(0), Padded, OneByOne], ids=["cache", "padding", "one by one"])
def test_other_pieces_are_matched(make: Callable[[], nn.Module]) -> None:
    found = foldproof.compare(Decoder().eval(), make().eval(), (torch.randint(50, (3, 12)),), trials=3)
    assert found.kind is Kind.ROUNDING
    if not found.identical:
        assert "(7 of 7 operators are in both" in found.found and found.sources


def test_a_position_that_is_wrong_in_the_cache_is_located() -> None:
    found = foldproof.compare(Decoder().eval(), Cached(-1).eval(), (torch.randint(50, (3, 12)),), trials=1)
    assert found.kind is Kind.REFUTED and found.verdict.difference is not None
    assert found.verdict.difference.operator == "aten.embedding.default"
    assert found.sources[0].share is not None and found.sources[0].share > 0.9
