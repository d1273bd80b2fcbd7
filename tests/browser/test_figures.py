"""The figures that draw themselves while something goes on, in both themes."""

import pytest
from playwright.sync_api import Page, expect

from labkit import vm
from tests.browser.conftest import Jupyter, picture
from tests.browser.notebook_page import NotebookPage

pytestmark = pytest.mark.timeout(300)

EXPERIMENT = """
from labkit.course.experiments import noise, stressors as hogs
asked = noise.victim(requests=60, interval_msec=10.0)
phases = [noise.Phase("alone"), noise.Phase("beside 8 processes that only count", (hogs.cpu(8),)), noise.Phase("after")]
result = noise.experiment(phases, asked)
"""


def test_the_noisy_neighbour_is_drawn(page: Page, jupyter: Jupyter, theme: str) -> None:
    notebook = NotebookPage(page, jupyter.url("untouched.ipynb"))
    notebook.set_theme(theme)
    notebook.write_cell("import toy_exercises", EXPERIMENT)
    assert notebook.first_error() == ""
    figure = page.locator(".labkit-view")
    expect(notebook.find(".labkit-view svg.chart")).to_be_visible()
    expect(figure.locator("svg.chart circle.point, svg.chart path.mark")).to_have_count(180)
    expect(figure.locator("tbody tr")).to_have_count(3)
    expect(figure).to_contain_text("■ ended")
    for percent in ("p50", "p95", "p99"):
        expect(figure.locator(f"svg.chart text:has-text('{percent}')")).to_have_count(3)
    lines = figure.locator("svg.chart line.line")
    dashes = lines.evaluate_all("lines => [...new Set(lines.map(line => getComputedStyle(line).strokeDasharray))]")
    assert len(dashes) == 3, "the percentiles are told apart without their colours"
    picture(page, f"noise-{theme}")


SEVERAL = """
from labkit.course.experiments import noise, stressors as hogs
servers = [
    noise.server(name, lambda amount=amount: sum(range(amount)), requests=50, interval_msec=10.0)
    for name, amount in (("file", 2000), ("database", 60000), ("web", 500), ("application", 30000))
]
phases = [noise.Phase("alone"), noise.Phase("CPU", (hogs.cpu(8),)), noise.Phase("memory", (hogs.memory(64),))]
results = noise.side_by_side(phases, servers, title="Four servers")
noise.keep("bare metal", results)
noise.keep("container", results, machine="the same again")
noise.draw_kept(title="Two places")
"""


def test_several_servers_are_drawn_and_kept(page: Page, jupyter: Jupyter, theme: str) -> None:
    notebook = NotebookPage(page, jupyter.url("untouched.ipynb"))
    notebook.set_theme(theme)
    notebook.write_cell("import toy_exercises", SEVERAL)
    assert notebook.first_error() == ""
    live = page.locator(".labkit-view:has-text('Four servers')")
    notebook.find(".labkit-view:has-text('Four servers') svg.chart")
    expect(live).to_contain_text("■ ended", timeout=60_000)
    expect(live.locator("svg.chart path.points")).to_have_count(12)
    drawn = live.locator("svg.chart path.points").evaluate_all("all => all.map(one => one.getAttribute('d'))")
    assert [one.count("h0") for one in drawn] == [50] * 12, "every request of every server in every phase"
    expect(live.locator("svg.chart line.line")).to_have_count(36)
    expect(live.locator("tbody tr")).to_have_count(4)
    expect(live).to_contain_text("Measured on: ")
    picture(page, f"servers-{theme}")
    kept = page.locator(".labkit-view:has-text('Two places')")
    notebook.find(".labkit-view:has-text('Two places') svg.chart")
    shapes = kept.locator("ul.places path.place").evaluate_all("all => all.map(one => one.getAttribute('d'))")
    assert len(set(shapes)) == 2, "places are told apart without their colours"
    expect(kept.locator("svg.chart:not(.key) path.place")).to_have_count(24)
    expect(kept.locator("tbody tr")).to_have_count(8)
    picture(page, f"kept-{theme}")


WATCHED = """
from labkit import cgroups
from labkit.course.experiments import stressors as hogs
from labkit.course.lab import Lab
lab = Lab("09")
shop = cgroups.create("shop", cgroups.Limits(cpus=0.2, memory_max_bytes=16 << 20, pids_max=30))
seen = lab.groups()
busy = hogs.Neighbours(hogs.cpu(2), group=shop)
"""
REMOVED = "busy.end(); shop.remove()"


def test_the_groups_move(page: Page, jupyter_in_vm: Jupyter, theme: str) -> None:
    notebook = NotebookPage(page, jupyter_in_vm.url("untouched.ipynb"))
    notebook.set_theme(theme)
    notebook.write_cell("import toy_exercises", WATCHED)
    assert notebook.first_error() == ""
    view = page.locator(".labkit-view")
    shop = view.locator("tr:has(code:text-is('shop'))")
    expect(shop).to_contain_text("of 20 % allowed")
    expect(shop).to_contain_text("of 16 MiB allowed")
    expect(shop).to_contain_text("4 of 30", timeout=30_000)
    expect(shop.locator("rect.stopped").nth(2)).to_be_attached(timeout=30_000)
    notebook.find(".labkit-view")
    picture(page, f"groups-{theme}")
    notebook.write_cell("def isolate(hostname", "shop.freeze()")
    expect(shop).to_contain_text("frozen", timeout=30_000)
    notebook.write_cell("shop.freeze()", REMOVED)
    assert notebook.first_error() == ""
    expect(shop).to_contain_text("removed", timeout=30_000)
    notebook.write_cell(REMOVED, "from labkit import host; host.reset()")
    expect(view).to_contain_text("■ ended", timeout=30_000)


BOOTED = """
from labkit import vm
from labkit.course.lab import Lab
lab = Lab("90")
guest = vm.start(memory_mib=128, watch=lab.console)
"""


TYPED = """
from labkit.course.views import figures
figures.show("A figure of another kind", {"one": 1.0}, unit="ns")
guest.type("echo more$((1 + 1))\\n")
"""


def test_a_console_can_be_typed_into(page: Page, jupyter: Jupyter, theme: str) -> None:
    if lack := vm.kinds()["qemu"]:
        pytest.skip(f"no qemu machine here: {lack}")
    notebook = NotebookPage(page, jupyter.url("untouched.ipynb"))
    notebook.set_theme(theme)
    notebook.write_cell("import toy_exercises", BOOTED, seconds=250)
    assert notebook.first_error() == ""
    view = page.locator(".labkit-view.console")
    screen, line = view.locator("pre.screen"), view.locator("input.line")
    notebook.find(".labkit-view.console")
    expect(view).to_contain_text("● live")
    expect(screen).to_contain_text("guest:~#", timeout=60_000)
    line.click()
    line.type("echo $((6 * 7))0 '<b>text</b>'", delay=20)
    line.press("Enter")
    expect(screen).to_contain_text("420 <b>text</b>", timeout=30_000)
    expect(screen.locator("b")).to_have_count(0)
    expect(line).to_be_focused()
    below = screen.evaluate("one => one.scrollHeight - one.scrollTop - one.clientHeight")
    assert below < 30, "it follows what comes"
    line.press("ArrowUp")
    expect(line).to_have_value("echo $((6 * 7))0 '<b>text</b>'")
    screen.evaluate("one => { one.scrollTop = 0; }")
    notebook.write_cell("def isolate(hostname", TYPED)
    expect(screen).to_contain_text("more2", timeout=30_000)
    expect(page.locator(".labkit-view:has-text('A figure of another kind') .bar .fill")).to_be_visible()
    expect(screen).to_have_css("height", "300px")  # its style sheet is still there
    assert screen.evaluate("one => one.scrollTop") == 0, "who reads further up is left in peace"
    expect(line).to_have_value("echo $((6 * 7))0 '<b>text</b>'")
    line.fill("sleep 1000")
    line.press("Enter")
    expect(screen).to_contain_text("sleep 1000")
    view.evaluate("one => one.scrollIntoView()")
    picture(page, f"console-{theme}")
    view.locator("button.interrupt").click()
    line.fill("echo back$((1 + 1))")
    line.press("Enter")
    expect(screen).to_contain_text("back2", timeout=30_000)
    line.fill("poweroff")
    line.press("Enter")
    expect(view).to_contain_text("■ ended", timeout=60_000)
    expect(screen).to_contain_text("Power down")
    expect(line).to_be_disabled()
    view.evaluate("one => one.scrollIntoView()")
    picture(page, f"console-ended-{theme}")
