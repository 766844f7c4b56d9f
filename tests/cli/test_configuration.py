"""Settings in pyproject.toml: defaults of options, which the command line overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from .test_commands import Foldproof, foldproof  # noqa: F401  # the fixture


def configure(text: str, file: str = "pyproject.toml") -> None:
    Path(file).write_text(text)


def test_options_of_all_commands_and_of_one(foldproof: Foldproof) -> None:  # noqa: F811
    configure("[tool.foldproof]\nquiet = true\n[tool.foldproof.explain]\njson = 'why.json'\n")
    ran = foldproof("explain", "models.py:residual")
    assert (ran.status, ran.out) == (0, "1 operator not folded\n") and Path("why.json").is_file()
    assert foldproof("prove", "models.py:relu", "models.py:relu").out.count("\n") == 1
    assert foldproof("prove", "models.py:relu", "models.py:relu", "-v").out.count("\n") > 1


def test_required_options_and_lists(foldproof: Foldproof) -> None:  # noqa: F811
    configure("[tool.foldproof.audit]\ncompiler = 'fx'\ndisable = ['fuse']\n")
    ran = foldproof("audit", "models.py:conv_bn")
    assert ran.status == 0 and "no pass changed the graph" in ran.out


def test_the_nearest_file_counts(foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    configure("[tool.foldproof]\nquiet = true\n")
    Path("below").mkdir()
    monkeypatch.chdir("below")
    assert foldproof("prove", "../models.py:relu", "../models.py:relu").out.count("\n") == 1
    configure("[project]\nname = 'other'\n")
    assert foldproof("prove", "../models.py:relu", "../models.py:relu").out.count("\n") > 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[tool.foldproof]\nthread = 2\n",
            "[tool.foldproof] has 'thread', which is no option; there are: quiet, verbose",
        ),
        (
            "[tool.foldproof.compare]\nprecison = 'tf32'\n",
            "[tool.foldproof.compare] has 'precison', which is no option",
        ),
        ("[tool.foldproof.nothing]\na = 1\n", "has 'nothing', which is no option"),
        ("[tool.foldproof\n", "can't be read"),
    ],
)
def test_what_is_no_setting_is_not_ignored(foldproof: Foldproof, text: str, told: str) -> None:  # noqa: F811
    configure(text)
    ran = foldproof("explain", "models.py:relu")
    assert ran.status == 2 and told in ran.err and ran.err.count("\n") == 1


def test_a_value_of_another_kind(foldproof: Foldproof) -> None:  # noqa: F811
    configure("[tool.foldproof]\nthreads = 'two'\n")
    ran = foldproof("explain", "models.py:relu")
    assert ran.status == 2 and "--threads" in ran.err
    configure("[tool.foldproof]\nthreads = 1\n")
    before = torch.get_num_threads()
    try:
        assert foldproof("explain", "models.py:relu").status == 0
    finally:
        torch.set_num_threads(before)
