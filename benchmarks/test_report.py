"""The page of a fusion of 5,000 operators in a real browser: the target is 2 seconds until its graphs are drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foldproof.report import html
from tests.report.browsers import browser
from tests.report.documents import large_fuse

OPERATORS = 5000
DRAWN = """
const done = arguments[arguments.length - 1];
document.querySelector("[data-graphs=graphs]").scrollIntoView();
(function look() {
  if (document.querySelectorAll("[data-graphs=graphs] svg").length === 2) requestAnimationFrame(() => done(true));
  else setTimeout(look, 5);
})();
"""

UNFOLD = "document.querySelector('[data-graphs=graphs] .box.group').dispatchEvent(new Event('click'))"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    driver = browser()
    yield driver
    driver.quit()


def test_page_is_made(benchmark: Any) -> None:
    text = benchmark.pedantic(html, (large_fuse(OPERATORS),), rounds=3)
    benchmark.extra_info["megabytes"] = round(len(text) / 1e6, 1)


def test_page_is_opened(benchmark: Any, chrome: Any, tmp_path: Path) -> None:
    """Time from the request of the page until both graphs of the whole program are drawn."""
    file = tmp_path / "page.html"
    file.write_text(html(large_fuse(OPERATORS)), encoding="utf-8")

    def opened() -> None:
        chrome.get("about:blank")
        chrome.get(file.as_uri())
        chrome.execute_async_script(DRAWN)

    benchmark.pedantic(opened, rounds=5)


def test_box_is_unfolded(benchmark: Any, chrome: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(html(large_fuse(OPERATORS)), encoding="utf-8")
    chrome.get(file.as_uri())
    chrome.execute_async_script(DRAWN)
    times = []

    def unfolded() -> None:
        start = time.perf_counter()
        chrome.execute_script(UNFOLD)
        times.append(time.perf_counter() - start)

    benchmark.pedantic(unfolded, rounds=5)
    benchmark.extra_info["slowest, seconds"] = round(max(times), 2)
