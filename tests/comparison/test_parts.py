"""Parts of the outputs, and saved outputs without a program."""

from __future__ import annotations

from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn

from foldproof import Kind, compare
from foldproof.errors import FoldproofError


class Tagger(nn.Module):
    """Logits of each token, and a score, of which ``wrong`` may be."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head, self.wrong = nn.Embedding(20, 16), nn.Linear(16, 5), wrong

    def forward(self, tokens: Tensor, counts: Tensor) -> dict[str, Tensor]:
        x = self.words(tokens)
        logits = self.head(x) * (1.5 if self.wrong == "logits" else 1.0)
        if self.wrong == "padding":
            logits = torch.where(counts[..., None] == 0, logits + 1, logits)
        return {"score": x.sum((1, 2)) + (1.0 if self.wrong == "score" else 0.0), "logits": logits}


def inputs() -> tuple[Tensor, dict[str, Tensor]]:
    counts = torch.ones(3, 6, dtype=torch.int64)
    counts[0, 4:] = 0
    return torch.randint(20, (3, 6)), {"counts": counts}


@pytest.mark.parametrize("chosen", ["score", 1])
def test_only_some_outputs_count(chosen: str | int) -> None:
    tokens, kwargs = inputs()
    assert compare(Tagger(), Tagger("logits"), (tokens,), kwargs, trials=2).kind is Kind.REFUTED
    assert compare(Tagger(), Tagger("logits"), (tokens,), kwargs, trials=2, outputs=[chosen]).identical
    found = compare(Tagger(), Tagger("score"), (tokens,), kwargs, trials=2, outputs=[chosen])
    assert found.kind is Kind.REFUTED and found.verdict.difference is not None


def test_only_some_positions_count() -> None:
    tokens, kwargs = inputs()
    assert compare(Tagger(), Tagger("padding"), (tokens,), kwargs, trials=2).kind is Kind.REFUTED
    for mask, trials in (("counts", 3), (kwargs["counts"] == 1, 1)):  # other inputs are masked elsewhere
        assert compare(Tagger(), Tagger("padding"), (tokens,), kwargs, trials=trials, mask=mask).identical
        assert compare(Tagger(), Tagger("logits"), (tokens,), kwargs, trials=trials, mask=mask).kind is Kind.REFUTED


def test_a_mask_is_named_by_its_parameter() -> None:
    tokens, kwargs = inputs()
    found = compare(Tagger(), Tagger("padding"), (tokens, kwargs["counts"]), trials=2, mask="counts")
    assert found.identical
    assert compare(Tagger(), Tagger("padding"), (tokens, kwargs["counts"]), trials=2, mask="1").identical


def test_parts_of_a_file(tmp_path: Path) -> None:
    tokens, kwargs = inputs()
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    torch.onnx.export(Tagger("score"), (tokens,), str(path), kwargs=kwargs, dynamo=True, verbose=False)
    assert compare(Tagger(), path, (tokens,), kwargs, trials=2, outputs=["score"]).kind is Kind.REFUTED
    assert compare(Tagger(), path, (tokens,), kwargs, trials=2, outputs=["logits"]).kind is Kind.ROUNDING


def test_parts_that_are_not_there() -> None:
    tokens, kwargs = inputs()
    with pytest.raises(FoldproofError, match="no output 'boxes'; it has logits, score"):
        compare(Tagger(), Tagger(), (tokens,), kwargs, outputs=["boxes"])
    with pytest.raises(FoldproofError, match="no input 'padding' for a mask; it has tokens, counts"):
        compare(Tagger(), Tagger(), (tokens,), kwargs, mask="padding")


def test_two_files_of_outputs(tmp_path: Path) -> None:
    one, other = {"a": torch.randn(3, 4), "b": torch.arange(3)}, tmp_path / "other.npz"
    torch.save(one, tmp_path / "one.pt")
    numpy.savez(other, **{name: x.numpy() for name, x in one.items()})
    assert compare(tmp_path / "one.pt", other, ()).identical
    moved = one | {"a": one["a"] * (1 + 2.0**-22)}
    found = compare(tmp_path / "one.pt", moved, ())
    assert found.kind is Kind.UNDECIDED and "in the last place" in found.verdict.reason and found.largest > 0
    assert compare(one, {"a": one["a"][:2], "b": one["b"]}, ()).kind is Kind.REFUTED
    assert compare(one, {"a": one["a"]}, ()).kind is Kind.REFUTED
    with pytest.raises(FoldproofError, match="give the program first"):
        compare(one, Tagger(), ())
