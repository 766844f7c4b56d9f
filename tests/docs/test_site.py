"""The site builds without warnings, loads nothing from elsewhere, and can be searched from a folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs import make_compilers, make_schema
from docs.make_commands import PAGE, page
from foldproof.verdict import Kind
from foldproof.version import __version__

from ..report.browsers import browser

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_it_is_whole(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for one in pages:
        text = one.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]*)"', text)
        loaded += re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="([^"]*)"', text)
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], one
    assert "accuracy_limit" in (site / "api.html").read_text(encoding="utf-8")


def test_it_is_searched_without_a_server(site: Path) -> None:
    wait = pytest.importorskip("selenium.webdriver.support.wait")
    with browser() as chrome:
        chrome.get((site / "index.html").as_uri())
        chrome.find_element("css selector", ".md-search__input").send_keys("counterexample")
        found = wait.WebDriverWait(chrome, 20).until(
            lambda page: page.find_elements("css selector", ".md-search-result__item a")
        )
        hrefs = [link.get_attribute("href") for link in found]
        assert any("verdicts.html" in href for href in hrefs), hrefs
        # Files do not count as resources; requests to a network do, even failed ones.
        assert chrome.execute_script("return performance.getEntriesByType('resource').map(one => one.name)") == []
        assert not [entry for entry in chrome.get_log("browser") if entry["level"] == "SEVERE"]


def test_links_of_the_readme() -> None:
    """Links of the README; those of the site are checked when it is built."""
    text = re.sub(r"```[\s\S]*?```", "", (ROOT / "README.md").read_text(encoding="utf-8"))
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_the_page_of_commands_is_fresh() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m docs.make_commands"


def test_the_table_of_compilers_is_as_they_are_declared() -> None:
    text = make_compilers.PAGE.read_text(encoding="utf-8")
    assert make_compilers.table() in text, "run: python -m docs.make_compilers"


def test_the_page_of_the_format_is_fresh() -> None:
    assert make_schema.PAGE.read_text(encoding="utf-8") == make_schema.page(), "run: python -m docs.make_schema"


def test_the_changelog_and_the_citation_name_this_version() -> None:
    released = re.findall(r"(?m)^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert released[0] == __version__
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_table_of_verdicts_has_one_copy() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    rows = [page.name for page in pages if re.search(r"(?m)^\|[^|]*`PROVED`[^|]*\| the same", page.read_text("utf-8"))]
    assert rows == ["README.md"]
    assert all(f"`{kind}`" in (ROOT / "README.md").read_text("utf-8") for kind in Kind)
