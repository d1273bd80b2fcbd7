"""The figures that draw themselves while something goes on, in both themes."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Jupyter, picture
from tests.browser.notebook_page import NotebookPage

pytestmark = pytest.mark.timeout(300)

EXPERIMENT = """
from labkit.lab import hogs, noise
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


WATCHED = """
from labkit import cgroups
from labkit.lab import Lab, hogs
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
