"""Runs every block of code in the README and the documentation, page by page."""

from __future__ import annotations

import contextlib
import io
import linecache
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .names import NAMES
from .pages import FENCES, ROOT, SYBIL, runs_elsewhere

NOT_RUN = {
    ("CONTRIBUTING.md", "@exact(aten.mm.default)"): "the operator already has its rule",
    (
        "docs/howto/audit.md",
        "$ foldproof audit examples/two_activations.py:make",
    ): "takes minutes; covered by auditing/test_audit.py",
    (
        "docs/howto/audit.md",
        "$ foldproof audit examples/trained.py:make",
    ): "takes minutes; covered by auditing/test_training.py",
    (
        "docs/howto/audit.md",
        "$ foldproof audit counting.py:make",
    ): "takes minutes; covered by auditing/test_training.py",
    (
        "docs/howto/parallel_linears.md",
        "batch_linears into one linear: ",
    ): "on another machine the fusion may not be faster",
    ("docs/howto/torch_compile.md", "$ foldproof audit examples/parallel_linears.py:make"): "takes minutes",
    ("docs/howto/hunt.md", "$ foldproof hunt --compiler"): "takes minutes; covered by hunting/test_campaign.py",
    ("docs/howto/hunt.md", "$ foldproof hunt replay"): "takes minutes; covered by hunting/test_campaign.py",
    (
        "docs/howto/torch_compile.md",
        "foldproof audit model.py:make",
    ): "takes minutes; auditing/test_audit.py is similar",
}
"""Beginnings of blocks that no test runs, with the reason."""


def code(text: str) -> list[re.Match[str]]:
    """All blocks of Python and commands."""
    blocks = FENCES.finditer(text)
    return [b for b in blocks if re.match(r"python|console|sh|bash", b[1]) or re.search(r"^\$ ", b[2], re.MULTILINE)]


def reason(page: str, source: str) -> str | None:
    """The reason why a block is not run here, or None."""
    if runs_elsewhere(source):
        return "a test of its own"
    return next((why for (where, start), why in NOT_RUN.items() if where == page and source.startswith(start)), None)


TEXTS = {
    str(page.relative_to(ROOT)): page.read_text(encoding="utf-8")
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
}
PAGES = [page for page, text in TEXTS.items() if any(not reason(page, block[2]) for block in code(text))]


@pytest.fixture
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Write the files of a page into an empty folder, importable until the page ends."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]
    linecache.checkcache()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("_in_a_folder")
def test_its_code_runs_and_prints_what_is_shown(page: str) -> None:
    document = SYBIL.parse(ROOT / page)
    known = NAMES[page]() if page in NAMES else {}
    left = [block.span() for block in FENCES.finditer(document.text) if reason(page, block[2])]
    for example in document:
        if not any(start <= example.start < end for start, end in left):
            document.namespace.update(known)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                example.evaluate()
            document.namespace["printed"] = out.getvalue()


@pytest.mark.parametrize("page", TEXTS)
def test_no_code_is_overlooked(page: str) -> None:
    starts = [example.start for example in SYBIL.parse(ROOT / page)]
    for block in code(TEXTS[page]):
        assert reason(page, block[2]) or any(block.start() <= at < block.end() for at in starts), block[0]


@pytest.mark.parametrize(("page", "start"), NOT_RUN)
def test_what_is_not_run_is_there(page: str, start: str) -> None:
    assert f"```\n{start}" in TEXTS[page] or f"```python\n{start}" in TEXTS[page] or f"```sh\n{start}" in TEXTS[page]
