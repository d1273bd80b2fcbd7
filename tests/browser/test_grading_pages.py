"""The pages that grading writes, in a browser: light and dark, wide and narrow, on paper, and with hostile texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from labkit.course.grading import report
from labkit.course.grading.results import CellRun, Judged, Replay
from tests.browser.conftest import picture
from tests.gradings import a_class, exercise, result

THEMES = ["light", "dark"]
WIDTHS = [1280, 400]
HOSTILE = (
    "<script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    "<style>* { display: none }</style><svg onload=\"document.title = 'taken'\"></svg>\u202e]]>"
)


@pytest.fixture(autouse=True)
def own_kernel() -> None:
    """These pages need no JupyterLab."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a made-up class of 50, and one who wrote HTML wherever a learner can."""
    judged = Judged("not yet", HOSTILE, HOSTILE)
    answers = [exercise("isolate", judged, answer=HOSTILE + "x" * 3000), exercise("join", judged, hidden=(judged,))]
    cells = Replay((CellRun(4, False, HOSTILE, HOSTILE + "y" * 3000),), HOSTILE)
    hostile = result(HOSTILE, "05", *answers, file=HOSTILE, notes=(HOSTILE, "z" * 3000), replay=cells)
    path = tmp_path_factory.mktemp("graded") / "it's 100% #1"
    report.write([*a_class(50), hostile], path)
    return path


@pytest.fixture
def trouble(page: Page) -> Iterator[list[str]]:
    """What the browser complains of; a test fails that leaves anything in it."""
    found: list[str] = []

    def complain(message: Any) -> None:
        found.append(f"{message.type}: {message.text}")

    page.on("console", complain)
    page.on("pageerror", lambda error: found.append(f"error: {error}"))
    page.on("requestfailed", lambda request: found.append(f"could not load {request.url}"))
    yield found
    assert found == []


def fits(page: Page) -> None:
    """Nothing makes the page itself scroll sideways; and it is not empty."""
    width = page.evaluate("document.documentElement.scrollWidth")
    viewport = page.viewport_size
    assert viewport and width <= viewport["width"], f"{width} pixels wide"
    assert page.evaluate("document.body.innerText.length") > 200


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
def test_pages_read_well(page: Page, folder: Path, trouble: list[str], theme: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    page.goto((folder / "index.html").as_uri())
    fits(page)
    style = "getComputedStyle(document.documentElement)"
    ground, ink = page.evaluate(f"{style}.backgroundColor"), page.evaluate(f"{style}.color")
    assert (brightness(ground) > brightness(ink)) == (theme == "light")
    expect(page.locator("#overview")).to_be_visible()
    page.locator("#lab-07").scroll_into_view_if_needed()
    bar = page.locator("section:has(#lab-07) svg.bar").first
    assert bar.bounding_box()["width"] > 150  # type: ignore[index]
    picture(page, f"class-{theme}-{width}")

    page.locator("section:has(#lab-07) td a:has-text('not yet')").first.click()
    article = page.locator("article:has(:target)")
    expect(article).to_be_in_viewport()
    expect(article.locator("dt").first).to_have_text("Asked")
    fits(page)
    picture(page, f"learner-{theme}-{width}")

    page.get_by_role("link", name="← The class").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The class")


def brightness(colour: str) -> int:
    """Of `rgb(r, g, b)`."""
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))


@pytest.mark.parametrize("width", WIDTHS)
def test_what_learners_wrote_is_only_read(page: Page, folder: Path, trouble: list[str], width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((folder / "index.html").as_uri())
    page.locator("th a:has-text('<script>')").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("<script>document.title")
    assert page.title().startswith("Grading: <script>document.title = 'taken'</script>")
    fits(page)
    assert page.locator("script, img, iframe, article svg").count() == 0


def test_even_a_script_that_got_into_a_page_would_not_run(page: Page, folder: Path, tmp_path: Path) -> None:
    """The policy holds by itself: if an escape were forgotten one day, nothing would come of it."""
    text = (folder / "index.html").read_text(encoding="utf-8")
    holes = "<script>document.title = 'taken'</script><img src='data:,' onerror=\"document.title = 'taken'\">"
    (tmp_path / "holes.html").write_text(
        text.replace("<main>", f"<main style='display: none'>{holes}"), encoding="utf-8"
    )
    page.goto((tmp_path / "holes.html").as_uri())
    expect(page).to_have_title("Grading: the class")
    expect(page.locator("#overview")).to_be_visible()


def test_every_colour_is_easy_to_read(page: Page, folder: Path) -> None:
    """A contrast of 4.5 at least, between each text and its ground: WCAG 2.2, 1.4.3."""
    learner = page
    for theme in THEMES:
        learner.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
        for path in (folder / "index.html", min((folder / "learners").glob("*.html"))):
            learner.goto(path.as_uri())
            assert learner.evaluate(CONTRAST) == []


CONTRAST = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = numbers(colour).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ground = element => {
    for (; element; element = element.parentElement) {
      const found = numbers(getComputedStyle(element).backgroundColor);
      if (found.length === 3 || found[3] > 0) return getComputedStyle(element).backgroundColor;
    }
    return "rgb(255, 255, 255)";
  };
  const poor = new Set();
  for (const element of document.querySelectorAll("body *")) {
    if (![...element.childNodes].some(node => node.nodeType === 3 && node.data.trim())) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
    const contrast = (a + .05) / (b + .05);
    if (contrast < 4.5) poor.add(`${element.tagName}.${element.className}: ${contrast.toFixed(2)}`);
  }
  return [...poor];
}"""


def test_pages_go_on_paper(page: Page, folder: Path) -> None:
    page.goto((folder / "index.html").as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert brightness(page.evaluate("getComputedStyle(document.documentElement).backgroundColor")) == 3 * 255
    expect(page.locator("nav").first).to_be_hidden()
    assert page.locator("div.wide").first.evaluate("e => getComputedStyle(e).overflowX") == "visible"
