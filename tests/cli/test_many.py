"""Audits of several SPECs, each in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foldproof.cli.many import Answer, Question, worst
from foldproof.cli.setup import Setup

from .conftest import TWICE
from .test_commands import Foldproof, foldproof  # noqa: F401  # the fixture

MODEL = (
    """
import os
import torch
from pathlib import Path
from torch import nn


def right():
    with Path("calls").open("a") as file:
        file.write("right ")
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval(), (torch.randn(2, 3),)
"""
    + TWICE
    + """

def wrong():
    torch.manual_seed(0)
    model = Twice()
    model.bn.running_var.uniform_(0.5, 2)
    return model.eval(), (torch.randn(2, 3, 4, 4),)


def unfit():
    return right()[0], (torch.randn(2, 5),)


def crash():
    os.abort()
"""
)


@pytest.fixture(autouse=True)
def model() -> None:
    Path("model.py").write_text(MODEL)


def results() -> dict[str, str]:
    documents = [json.loads(path.read_text()) for path in Path("results").iterdir()]
    return {document["subject"]: document["kind"] for document in documents}


def test_each_is_answered_in_order_and_kept(foldproof: Foldproof) -> None:  # noqa: F811
    names = ["crash", "wrong", "unfit", "right"]
    command = ["audit", *(f"model.py:{name}" for name in names), "--compiler", "fx", "--results", "results", "-j", "2"]
    ran = foldproof(*command)
    assert ran.status == 1, ran
    lines = ran.out.splitlines()
    assert [line.partition(":")[2].partition(":")[0] for line in lines[:4]] == names
    assert lines[0] == "model.py:crash: failed: the process ended with signal 6, by a crash or because it was killed"
    assert lines[1].startswith("model.py:wrong: wrong: the pass fuse changes the meaning of the model")
    assert lines[2].startswith("model.py:unfit: failed: the model does not run on its inputs (RuntimeError: ")
    assert "every graph pass is proved" in lines[3]
    assert results() == {"model.py:wrong": "REFUTED", "model.py:right": "ROUNDING"}

    Path("calls").unlink()
    right = ["audit", "model.py:right", "--compiler", "fx", "--results", "results"]
    again = foldproof(*right)
    assert again.status == 0 and again.out.splitlines()[0] == lines[3]
    assert not Path("calls").exists()

    Path("model.py").write_text(MODEL.replace("Linear(3, 4)", "Linear(3, 4, bias=False)"))
    assert foldproof(*right).status == 0
    assert Path("calls").read_text() == "right "
    assert len(list(Path("results").iterdir())) == 3


def test_a_result_is_of_one_question() -> None:
    asked = Question("model.py:right", Setup("fx", (), ()))
    others = [
        Question("model.py:wrong", Setup("fx", (), ())),
        Question("model.py:right", Setup("inductor", (), ())),
        Question("model.py:right", Setup("fx", ("a=1",), ())),
        Question("model.py:right", Setup("fx", (), ("a=1",))),
    ]
    places = {question.place(Path("results")) for question in (asked, *others)}
    assert len(places) == 5
    assert asked.place(Path("results")) in places


def test_a_wrong_pass_is_worse_than_a_failure() -> None:
    answers = [Answer(status, "") for status in (0, 3, 2, 70, 1)]
    assert [worst(answers[:n]) for n in range(1, 6)] == [0, 3, 2, 70, 1]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["model.py:wrong"], "several SPECs take --results FOLDER"),
        (["freezing=True"], "freezing=True is no SPEC; an option of the compiler is written --option freezing=True"),
        (["--results", "results", "--json", "out.json"], "--save, --json and --html take one SPEC"),
        (["--results", "model.py"], "model.py can't be written: model.py is not a folder"),
    ],
)
def test_mistakes(foldproof: Foldproof, args: list[str], told: str) -> None:  # noqa: F811
    ran = foldproof("audit", "model.py:right", "--compiler", "fx", *args)
    assert ran.status == 2 and told in ran.err and len(ran.err.splitlines()) == 1, ran


@pytest.mark.parametrize(
    ("text", "told"), [("{}", "is not the result of an audit"), ("{", "can't be read as the result of an audit")]
)
def test_a_damaged_result_is_told(foldproof: Foldproof, text: str, told: str) -> None:  # noqa: F811
    Path("results").mkdir()
    place = Question("model.py:right", Setup("fx", (), ())).place(Path("results"))
    place.write_text(text)
    ran = foldproof("audit", "model.py:right", "--compiler", "fx", "--results", "results")
    assert ran.status == 2 and f"{place} {told}; remove it" in ran.err
