"""Runs the code of pages unchanged: Python, files, and commands with their output."""

from __future__ import annotations

import ast
import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock

from sybil import Document, Example, Region, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from foldproof.cli import main
from zoo.findings import FINDINGS
from zoo.wrong_answers import WRONG_ANSWERS

ROOT = Path(__file__).parents[2]
REPRODUCTIONS = sorted((ROOT / "docs" / "findings").glob("*/repro.py"))
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
FENCES = re.compile(r"^```(.*)\n([\s\S]*?)^```$", re.MULTILINE)
_FILE = RawFencedCodeBlockLexer(re.compile(r'python title="(?P<name>[\w.]+)"$\n', re.MULTILINE))


def files(document: Document) -> list[Region]:
    """Find blocks with a title: files, to be written into the working folder."""
    return [
        Region(region.start, region.end, (region.lexemes["name"], region.lexemes["source"]), _write)
        for region in _FILE(document)
    ]


def _write(example: Example) -> None:
    name, source = example.parsed
    Path(name).write_text(source, encoding="utf-8")


def run(example: Example) -> str | None:
    """Run each command of a ``console`` block, and compare its output with the block.

    Numbers may differ, since they are measured; ``...`` stands for anything.
    """
    for part in re.split(r"(?m)^\$ ", example.parsed)[1:]:
        command, _, expected = part.partition("\n")
        got = output_of(command)
        if not doctest.OutputChecker().check_output(_plain(expected), _plain(got), FLAGS):
            return f"$ {command}\nshows:\n{expected}\nbut prints:\n{got}"
    return None


def _plain(text: str) -> str:
    """The text without values of numbers and lengths of rulers."""
    return re.sub("─+", "─", re.sub(r"\d+(\.\d+)?(e[+-]\d+)?", "#", text))


def output_of(command: str) -> str:
    """The output of a command: foldproof runs in this process, pytest in one of its own."""
    program, *args = shlex.split(command)
    if program == "pytest":
        ran = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
        return subprocess.run(ran, capture_output=True, encoding="utf-8").stdout
    assert program == "foldproof", command
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
        mock.patch.dict(os.environ),
    ):
        os.environ.pop("COLUMNS", None)  # workers of pytest-xdist have it
        main(args)
    # Progress, which is told every ten seconds, depends on the machine.
    return out.getvalue() + re.sub(r"(?m)^foldproof: .*, \d+ s\n", "", err.getvalue())


def printed(document: Document) -> list[Region]:
    """Find blocks without a language after Python: its output, held in the namespace as ``printed``."""
    found, end = [], -1
    for block in FENCES.finditer(document.text):
        if not block[1] and document.text[end : block.start()].isspace():
            found.append(Region(block.start(), block.end(), block[2], _was_printed))
        end = block.end() if block[1] == "python" else -1
    return found


def _was_printed(example: Example) -> str | None:
    got = example.namespace["printed"]
    if doctest.OutputChecker().check_output(_plain(example.parsed), _plain(got), FLAGS):
        return None
    return f"shown:\n{example.parsed}\nbut printed:\n{got}"


def _form(source: str) -> str | None:
    """The syntax tree of a program, without comments and layout."""
    try:
        return ast.dump(ast.parse(source))
    except SyntaxError:  # an interactive session, ``>>>``
        return None


_TESTED = [*(one.program for one in (*FINDINGS, *WRONG_ANSWERS)), *(path.read_text() for path in REPRODUCTIONS)]
_PROGRAMS = {_form(program) for program in _TESTED}


def runs_elsewhere(source: str) -> bool:
    """True if a block is the program of a finding, which has a test of its own."""
    form = _form(source)
    return form is not None and form in _PROGRAMS


SYBIL = Sybil([files, printed, PythonCodeBlockParser(doctest_optionflags=FLAGS), CodeBlockParser("console", run)])
