"""The page in headless Chromium: opens offline, draws every figure, runs nothing that a name carries."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pared.report import write
from report.record import example_record

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=quiet)
        yield opened
        opened.close()


class Visit:
    """A page opened from its file, with everything that happened while it loaded."""

    def __init__(self, browser, path: Path, width: int = 1200):
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.events: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.events.append(str(error)))
        self.page.on("console", lambda message: self.events.append(message.text))
        self.page.on("dialog", lambda dialog: (self.events.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri(), wait_until="load")


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return write(example_record(), tmp_path_factory.mktemp("report") / "report.html")


def test_no_error_no_request_right_title(browser, report):
    visit = Visit(browser, report)
    assert visit.events == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [report.as_uri()]
    assert visit.page.title() == "pared: logistic-3.99"


def test_every_figure_is_drawn_with_an_accessible_name(browser, report):
    visit = Visit(browser, report)
    figures = visit.page.locator("figure")
    assert figures.count() == 6
    for figure in figures.all():
        box = figure.locator("svg").bounding_box()
        assert box is not None
        assert box["width"] > 500
        assert box["height"] > 200
        assert figure.locator("svg path").count() > 10
        assert len(figure.locator("[role=img]").get_attribute("aria-label") or "") > 40
        assert figure.locator("svg text").count() > 5
        assert figure.locator("figcaption").inner_text().strip()


def test_no_label_leaves_its_figure(browser, report):
    outside = Visit(browser, report).page.evaluate(
        """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
            const frame = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter(text => {
                const box = text.getBoundingClientRect();
                return box.left < frame.left - 1 || box.right > frame.right + 1
                    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
            }).map(text => text.textContent);
        })"""
    )
    assert outside == []


@pytest.mark.parametrize("width", [400, 1200])
def test_only_tables_and_figures_scroll_sideways(browser, report, width):
    page = Visit(browser, report, width).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_hostile_names_are_text(browser, tmp_path):
    record = example_record(finding=HOSTILE, notes=[HOSTILE])
    record["data"] |= {"name": HOSTILE, "columns": [HOSTILE], "source": HOSTILE}
    record["candidates"][0]["label"] = HOSTILE
    visit = Visit(browser, write(record, tmp_path / "hostile.html"))
    assert visit.events == []
    assert visit.page.locator("script, img").count() == 0
    assert visit.page.title() == f"pared: {HOSTILE}"
    assert HOSTILE in visit.page.locator("h1").inner_text()
    assert HOSTILE in visit.page.locator("#figure-sizes svg").text_content()
