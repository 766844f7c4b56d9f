"""Pages in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from foldproof.report import html

from .browsers import browser
from .conftest import COMMANDS
from .documents import large_fuse

Written = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    driver = browser()
    yield driver
    driver.quit()


class Page:
    """A page that is open."""

    def __init__(self, chrome: Any, file: Path) -> None:
        self._chrome = chrome
        self.emulate("light", 1280)
        chrome.get(file.as_uri())

    def emulate(self, scheme: str, width: int) -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self._chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self._chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def __call__(self, script: str, *args: Any) -> Any:
        return self._chrome.execute_script(f"return {script}", *args)

    def all(self, selector: str) -> list[Any]:
        return self._chrome.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        """The first one; scrolled to, as a person would look at it, so that what is lazy is drawn."""
        found = self._chrome.find_element("css selector", selector)
        self._chrome.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        return found

    def wait(self, selector: str) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self._chrome, 20).until(lambda _: self.all(selector))
        return self.one(selector)

    def type(self, *keys: str) -> None:
        self._chrome.switch_to.active_element.send_keys(*keys)

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self._chrome.get_log("browser")]


@pytest.fixture
def page(chrome: Any, tmp_path: Path) -> Callable[[dict[str, Any]], Page]:
    def opened(document: dict[str, Any]) -> Page:
        file = tmp_path / "page.html"
        file.write_text(html(document), encoding="utf-8")
        return Page(chrome, file)

    return opened


@pytest.mark.parametrize("name", COMMANDS)
def test_every_page_renders_without_a_complaint_or_a_request(
    page: Callable[[dict[str, Any]], Page], written: Written, name: str
) -> None:
    shown = page(written(name))
    for place in shown.all("[data-graphs], [data-plots]"):
        shown("arguments[0].scrollIntoView()", place)
    shown("new Promise((done) => setTimeout(done, 200))")
    assert shown.complaints() == []
    assert shown("performance.getEntriesByType('resource').length") == 0
    assert shown.one("h1").text
    shown.emulate("light", 390)
    assert shown("document.documentElement.scrollWidth") <= 390, "a phone has to scroll sideways"


def test_a_rewrite_unfolds_with_its_graphs_and_the_axis_marked(
    page: Callable[[dict[str, Any]], Page], written: Written
) -> None:
    shown = page(written("fuse"))
    assert not shown.one(".rewrite .graphs").is_displayed()
    shown.one(".rewrite summary").click()
    shown.wait(".rewrite .graph svg")
    before, after = shown.all(".rewrite .graph")
    assert "batch_norm" in before.text and "batch_norm" not in after.text
    axes = shown("[...document.querySelectorAll('.rewrite .graph tspan.axis')].map((t) => t.textContent)")
    assert axes == ["4", "4", "4"]  # of the convolution, the flatten and the normalisation
    shown.one(".rewrite .graph .box.call").click()
    assert "aten.conv2d.default" in shown.one(".rewrite .graph .about").text


def test_search_keeps_what_fits(page: Callable[[dict[str, Any]], Page]) -> None:
    shown = page(large_fuse(80))
    shown.one("[data-filter=rewrite-rows]").send_keys("batch_norm_7 proved")
    assert len([row for row in shown.all(".rewrite") if row.is_displayed()]) == 1
    assert shown.one("[data-filter=rewrite-rows] + output").text == "1 of 20"


def test_colours_follow_the_system_and_the_button(page: Callable[[dict[str, Any]], Page], written: Written) -> None:
    shown = page(written("prove"))
    colour = "getComputedStyle(document.body).backgroundColor"
    light = shown(colour)
    shown.emulate("dark", 1280)
    dark = shown(colour)
    assert light != dark
    shown.one("#theme").click()
    assert shown.one("#theme").text.endswith("light") and shown(colour) == light
    shown.one("#theme").click()
    shown.emulate("light", 1280)
    assert shown.one("#theme").text.endswith("dark") and shown(colour) == dark
    shown.one("#theme").click()
    assert shown(colour) == light


def test_a_pass_is_chosen_with_the_keyboard(page: Callable[[dict[str, Any]], Page], written: Written) -> None:
    document = written("audit")
    extra = document["steps"][0] | {"name": "another", "fired": True}
    shown = page(document | {"steps": [*document["steps"], extra]})
    assert shown.one("[role=tab][aria-selected=true]").text.startswith("✗")
    assert shown.one(".panel:not([hidden]) h3").text.endswith("fuse")
    shown("document.querySelector('[aria-selected=true]').focus()")
    shown.type("\ue014")  # arrow to the right
    assert shown.one(".panel:not([hidden]) h3").text.endswith("another")
    assert shown.wait(".panel:not([hidden]) .box.differs")
    assert "torch.testing.assert_close" in shown.one(".panel .code pre").get_attribute("textContent")


def test_five_thousand_operators_are_folded_and_can_be_found(page: Callable[[dict[str, Any]], Page]) -> None:
    shown = page(large_fuse(5000))
    shown("document.querySelector('[data-graphs=graphs]').scrollIntoView()")
    shown.wait("[data-graphs=graphs] .graph svg")
    boxes = "[data-graphs=graphs] .graph:first-child .box"
    assert 2 < len(shown.all(boxes)) <= 60
    group = shown.one(f"{boxes}.group")
    shown("arguments[0].focus()", group)
    few = len(shown.all(boxes))
    shown.type("\ue007")  # Enter unfolds
    assert len(shown.all(boxes)) > few
    find = shown.one("[data-graphs=graphs] .graph:first-child input")
    find.send_keys("batch_norm_1234", "\ue007")
    assert shown.one(f"{boxes}.chosen").text.startswith("batch_norm_1234")
    assert shown.complaints() == []


def drawn(shown: Page) -> None:
    """Open and scroll to everything, so that all graphs and plots are drawn."""
    shown("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    for place in shown.all("[data-graphs], [data-plots]"):
        shown("arguments[0].scrollIntoView()", place)
        shown("new Promise((done) => setTimeout(done, 100))")


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_with_plots_drawn(
    page: Callable[[dict[str, Any]], Page], written: Written, name: str, scheme: str
) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="axe-core-python is not installed")
    shown = page(written(name))
    shown.emulate(scheme, 1280)
    drawn(shown)
    shown(f"(() => {{{(Path(axe.__file__).parent / 'axe.min.js').read_text('utf-8')}}})()")
    found = shown("axe.run().then((found) => found.violations)")
    assert [(one["id"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found] == []


def test_paper_shows_everything(page: Callable[[dict[str, Any]], Page]) -> None:
    shown = page(large_fuse(120))
    places = len(shown.all("[data-graphs]"))
    shown("dispatchEvent(new Event('beforeprint'))")
    assert len(shown.all("[data-graphs] .graph:first-of-type .view > svg")) >= places
    assert not shown.all("details:not([open])") and shown.all("[data-plots] svg")
    shown._chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    boxes = "[...document.querySelectorAll('.rows, .code pre, .view')]"
    assert shown(f"{boxes}.filter((one) => one.scrollHeight > one.clientHeight + 1).length") == 0
    shown._chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    shown("dispatchEvent(new Event('afterprint'))")
    assert not shown.all(".row[open]")


def test_all_passes_are_on_paper(page: Callable[[dict[str, Any]], Page], written: Written) -> None:
    shown = page(written("audit"))
    panels = len(shown.all(".panel"))
    shown("dispatchEvent(new Event('beforeprint'))")
    assert len(shown.all(".panel:not([hidden])")) == panels
    shown("dispatchEvent(new Event('afterprint'))")
    assert len(shown.all(".panel:not([hidden])")) == 1


def test_refuted_rewrites_come_first_with_their_own_graphs(page: Callable[[dict[str, Any]], Page]) -> None:
    document = large_fuse(80)
    document["rewrites"][7]["verdict"] = document["rewrites"][7]["verdict"] | {"kind": "REFUTED"}
    shown = page(document)
    first = shown.one(".rewrite")
    assert first.text.startswith("✗") and document["rewrites"][7]["reported"] in first.text
    assert first.find_element("css selector", "[data-graphs]").get_attribute("data-graphs") == "rewrites/7/graphs"
    assert "error ×" in first.text and "means that the rewritten region" in shown.one("#rewrites + p").text


def test_ticks_of_an_axis_differ(page: Callable[[dict[str, Any]], Page], written: Written) -> None:
    document = written("compare")
    narrow = [
        {"node": f"n{i}", "operator": "aten.relu.default", "source": None, "size": 1.0}
        | {"reference": 1.2e-7 + i * 1e-10, "candidate": 1.21e-7 + i * 1e-10, "floor": 1.2e-7}
        for i in range(5)
    ]
    shown = page(document | {"layers": narrow})
    drawn(shown)
    axes = shown(
        "[...document.querySelectorAll('.plots svg > g')].filter((group) => group.querySelectorAll('text').length > 1)"
        ".map((axis) => [...axis.querySelectorAll('text')].map((t) => t.textContent).filter(Boolean))"
    )
    assert axes and all(len(set(labels)) == len(labels) for labels in axes), axes
