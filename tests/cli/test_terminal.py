"""Output on narrow and wide terminals: the conclusion first, whole words, equal reasons once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from foldproof.auditing import api
from foldproof.cli import audits, work

from .conftest import TWICE
from .test_commands import Foldproof, foldproof  # noqa: F401  # the fixture

ESCAPES = re.compile(r"\x1b\[[\d;]*m")
MANY = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x).relu().sin()).cos()


def make():
    return nn.Sequential(*[Block() for _ in range(3)]).eval(), (torch.randn(2, 3, 4, 4),)
"""
COMMANDS = [
    ("fuse", "many.py:make", "-o", "out.pt2"),
    ("explain", "many.py:make"),
    ("prove", "models.py:conv_bn", "models.py:without_bias_of_bn"),
    ("compare", "models.py:conv_bn", "--against", "eager"),
    ("audit", "twice.py:make", "--compiler", "fx"),
]


@pytest.fixture(autouse=True)
def more_models() -> None:
    Path("many.py").write_text(MANY)
    body = "    return Twice().eval(), (torch.randn(2, 3, 4, 4),)"
    Path("twice.py").write_text(f"import torch\nfrom torch import nn\n{TWICE}\ndef make():\n{body}\n")


def words_of(text: str) -> list[str]:
    """The words of an output, without colours, rulers and measured numbers."""
    plain = re.sub(r"[\u2500]+|\x1b\[[\d;]*m", "", text)
    return sorted({word for word in plain.split() if not re.search(r"\d", word)})


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece of work is done once, however often it is printed."""
    monkeypatch.setattr(api, "COMPARED_INPUTS", 3)
    for module, name in [(work, n) for n in ("fuse", "explain", "prove", "compare")] + [(audits, "audit")]:
        monkeypatch.setattr(module, name, _held(getattr(module, name)))


def _held(function: Callable[..., Any]) -> Callable[..., Any]:
    held: list[Any] = []

    def called(*args: Any) -> Any:
        held[:] = held or [function(*args)]
        return held[0]

    return called


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_what_is_printed(foldproof: Foldproof, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:  # noqa: F811
    # No word is broken.
    monkeypatch.setenv("COLUMNS", "400")
    wide = words_of(foldproof(*command, "--color", "always").out)
    for width in (80, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        out = foldproof(*command, "--color", "always").out
        lines = ESCAPES.sub("", out).splitlines()
        assert max(map(len, lines)) <= width, max(lines, key=len)
        # A narrow table becomes lines, each with a label and a colon.
        narrow = [word for word in words_of(out) if word.removesuffix(":") not in wide and word not in wide]
        assert not narrow, narrow
        lost = {word for word in wide if word not in words_of(out) and f"{word}:" not in words_of(out)}
        assert lost <= {"node", "pass"}, lost  # the names of first columns
    # The conclusion comes first, and --quiet prints nothing else.
    monkeypatch.delenv("COLUMNS")
    whole, quiet = foldproof(*command), foldproof(*command, "--quiet")
    assert quiet.status == whole.status and quiet.err == ""
    assert quiet.out.count("\n") == 1 and re.match(r"[A-Z_]+: |wrong: |\d+ operators? not folded", quiet.out)
    assert whole.out.startswith(re.split(r"[\d(]", quiet.out)[0])


def test_primes_are_for_those_who_ask(foldproof: Foldproof) -> None:  # noqa: F811
    command = ("prove", "models.py:conv_bn", "models.py:conv_bn")
    short, full = foldproof(*command).out, foldproof(*command, "-v").out
    assert "below 2^-" in short and "primes" not in short and "uninterpreted" not in short
    assert "primes [" in full and "uninterpreted (any function will do)" in full and "shapes: " in full
    assert foldproof("-v", *command).out.count("\n") == full.count("\n")


def test_both_are_too_much(foldproof: Foldproof) -> None:  # noqa: F811
    ran = foldproof("explain", "models.py:relu", "-v", "-q")
    assert ran.status == 2 and "exclude each other" in ran.err
    assert foldproof("-v", "prove", "models.py:relu", "models.py:relu", "-q").out.count("\n") == 1


def test_equal_reasons_are_told_once(foldproof: Foldproof) -> None:  # noqa: F811
    out = foldproof("explain", "many.py:make").out
    assert out.startswith("3 operators not folded\n")
    assert out.count("which is neither a linear operator") == 1
    assert "(and so for the others, each with its own nodes)" in out
    table = " ".join(foldproof("fuse", "many.py:make", "-o", "out.pt2").out.split())
    assert table.count("neither a linear operator") == 1, table


def test_empty_columns_are_dropped(foldproof: Foldproof) -> None:  # noqa: F811
    out = foldproof("fuse", "models.py:deep", "-o", "out.pt2").out
    assert "through" not in out and "error" in out
    assert "source" in out


@pytest.mark.parametrize(("color", "escapes"), [("always", True), ("never", False), ("auto", False)])
def test_colors(foldproof: Foldproof, color: str, escapes: bool) -> None:  # noqa: F811
    out = foldproof("prove", "models.py:relu", "models.py:sigmoid", "--color", color).out
    assert bool(ESCAPES.search(out)) == escapes


class TestDevice:
    def test_on_the_meta_device(self, foldproof: Foldproof) -> None:  # noqa: F811
        ran = foldproof("prove", "models.py:conv_bn", "models.py:conv_bn", "--device", "meta")
        assert ran.status == 0 and ran.out.startswith("PROVED"), ran

    def test_of_an_exported_program(self, foldproof: Foldproof) -> None:  # noqa: F811
        from foldproof.program.loading import load_spec, moved

        loaded = load_spec("models.py:conv_bn")
        torch.export.save(torch.export.export(loaded.program, loaded.require_inputs()), "model.pt2")
        on_meta = moved(load_spec("model.pt2"), "meta")
        assert {x.device.type for x in on_meta.program.state_dict.values()} == {"meta"}
        assert on_meta.inputs is not None and on_meta.inputs[0].device.type == "meta"

    @pytest.mark.parametrize("device", ["cuda", "nonsense"])
    def test_that_is_not_here(self, foldproof: Foldproof, device: str) -> None:  # noqa: F811
        if device == "cuda" and torch.cuda.is_available():
            pytest.skip("it is here")
        ran = foldproof("explain", "models.py:conv_bn", "--device", device)
        assert ran.status == 2 and f"can't be moved to '{device}'" in ran.err and ran.err.count("\n") == 1
