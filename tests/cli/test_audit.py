"""`foldproof audit` and `foldproof replay` as a user meets them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from foldproof.auditing import api
from foldproof.cli import audits

from .conftest import TWICE
from .test_commands import Foldproof, foldproof  # noqa: F401  # the fixture

MODEL = (
    """
import torch
from torch import nn
"""
    + TWICE
    + """

def make():
    torch.manual_seed(0)
    model = Twice()
    model.bn.running_var.uniform_(0.5, 2)
    return model.eval(), (torch.randn(2, 3, 4, 4),)


def right():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(), (torch.randn(2, 3),)


def deep():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval(), (torch.randn(2, 3, 8, 8),)


def trained():
    return right()[0].train(), (torch.randn(2, 3),)


def unfit():
    return right()[0], (torch.randn(2, 5),)
"""
)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(api, "COMPARED_INPUTS", 3)
    (tmp_path / "model.py").write_text(MODEL)
    return f"{tmp_path}/model.py"


def test_a_wrong_pass(foldproof: Foldproof, model: str, tmp_path: Path) -> None:  # noqa: F811
    folder, file = tmp_path / "wrong", tmp_path / "out.json"
    ran = foldproof("audit", f"{model}:make", "--compiler", "fx", "--save", str(folder), "--json", str(file))
    assert ran.status == 1, ran.err
    assert "REFUTED" in ran.out
    assert "wrong: the pass fuse changes the meaning of the model" in ran.out
    assert "audit without it: --disable fuse\n" in ran.out
    assert ", saved in " in ran.out
    assert json.loads(file.read_text())["refuted"] == ["fuse"]
    again = foldproof("replay", str(folder))
    assert again.status == 1
    assert again.out.startswith("still wrong with torch")


def test_without_the_pass(foldproof: Foldproof, model: str) -> None:  # noqa: F811
    ran = foldproof("audit", f"{model}:make", "--compiler", "fx", "--disable", "fuse")
    assert ran.status == 0, ran.out + ran.err


def test_a_right_pass(foldproof: Foldproof, model: str) -> None:  # noqa: F811
    ran = foldproof("audit", f"{model}:right", "--compiler", "fx")
    assert ran.status == 0, ran.out + ran.err
    assert "every graph pass is proved" in ran.out


def test_quantization_is_told_with_its_bounds(foldproof: Foldproof, model: str) -> None:  # noqa: F811
    pytest.importorskip("torchao")
    ran = foldproof("audit", f"{model}:deep", "--compiler", "torchao")
    assert ran.status == 0, ran.out + ran.err
    assert re.search(r"^\w+: within [\d.e-]+: \w+: ", ran.out, re.MULTILINE), ran.out
    conclusion = ran.out.splitlines()[0]
    assert " within named bounds" in conclusion
    assert "the numbers of the prepared model, before anything is quantized, " in conclusion


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", False),
        ("False", False),
        ("TRUE", True),
        ("none", None),
        ("3", 3),
        ("{'a': 1}", {"a": 1}),
        ("x86", "x86"),
    ],
)
def test_options_are_values_of_python(text: str, value: object) -> None:
    assert audits._option(f"freezing={text}") == ("freezing", value)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--compiler", "gcc"], "compiler must be one of"),
        (["--compiler", "fx", "--option", "fast"], "NAME=VALUE"),
        (["--compiler", "fx", "--option", "fast=1"], "no option 'fast'"),
        (["--compiler", "inductor", "--option", "freezing=yes"], "freezing is True or False, not 'yes'"),
        (["--compiler", "inductor", "--option", "freezing=3"], "freezing is True or False, not 3"),
        (["--compiler", "fx", "--save", "models.py/saved"], "models.py/saved can't be written: "),
    ],
)
def test_mistakes(foldproof: Foldproof, model: str, args: list[str], told: str) -> None:  # noqa: F811
    ran = foldproof("audit", f"{model}:make", *args)
    assert ran.status == 2
    assert told in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_model_in_training_mode(foldproof: Foldproof, model: str) -> None:  # noqa: F811
    ran = foldproof("audit", f"{model}:trained", "--compiler", "export")
    assert ran.status == 3
    reason, blank, table = ran.out.splitlines()[2:5]
    assert reason.endswith("it updates statistics until eval() is called")
    assert not blank and table.startswith("pass")
    caution, whole = (line for line in ran.out.splitlines() if line.startswith(("Caution: ", "end to end")))
    assert "in training mode" in caution and "Caution" not in whole


def test_inputs_that_do_not_fit(foldproof: Foldproof, model: str) -> None:  # noqa: F811
    ran = foldproof("audit", f"{model}:unfit", "--compiler", "fx")
    assert ran.status == 2
    assert "the model does not run on its inputs (RuntimeError: " in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_fine_audit_leaves_no_reproduction(foldproof: Foldproof, model: str, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "fine"
    folder.mkdir()
    (folder / "repro.py").write_text("of another audit")
    audit = ("audit", f"{model}:right", "--compiler", "fx", "--save", str(folder))
    told = f"no pass is refuted: wrote only the verdict to {folder}"
    assert f"{told} (the reproduction that was there is gone)\n" in foldproof(*audit).out
    assert [file.name for file in folder.iterdir()] == ["verdict.json"]
    assert f"{told}\n" in foldproof(*audit).out
    again = foldproof("replay", str(folder))
    assert again.status == 2
    assert f"{folder} records no culprit, so there is no reproduction to run" in again.err


def test_replay_of_nothing(foldproof: Foldproof, tmp_path: Path) -> None:  # noqa: F811
    ran = foldproof("replay", str(tmp_path))
    assert ran.status == 2
    assert "no verdict.json" in ran.err
