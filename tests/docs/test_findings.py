"""The programs of the findings: each still shows its wrong answer in the installed releases."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch._dynamo
import torch._inductor.config as inductor

from docs.make_findings import NAMES
from tests.auditing.models import FOUND

from .pages import REPRODUCTIONS


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    """Restore the settings of Inductor, since all programs run in one process."""
    fusions = {f"{when}_grad_fusion_options": {} for when in ("pre", "post")}
    with inductor.patch({"freezing": False, "force_disable_caches": True} | fusions):
        yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("program", REPRODUCTIONS, ids=lambda path: path.parent.name)
def test_it_is_still_wrong(program: Path) -> None:
    """If this fails, the release has been fixed: enter it into ``fixed`` of the case, and make the page again."""
    [case] = [FOUND[title] for title, name in NAMES.items() if name == program.parent.name]
    if case.is_fixed:
        runpy.run_path(str(program))
        return
    with pytest.raises(AssertionError, match="not close|not equal|do not match"):
        runpy.run_path(str(program))


@pytest.mark.parametrize("program", REPRODUCTIONS, ids=lambda path: path.parent.name)
def test_its_page_shows_it(program: Path) -> None:
    page = program.parents[1] / f"{program.parent.name}.md"
    assert f"```python\n{program.read_text().rstrip()}\n```" in page.read_text()
