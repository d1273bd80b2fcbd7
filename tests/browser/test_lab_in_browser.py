"""A learner in the browser: run a lab, predict, click through an exercise, and see the live view move."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from labkit.course.needs import lacking
from labkit.course.source import lab_source
from labkit.files import state_folder
from tests.browser.conftest import Jupyter, picture
from tests.browser.notebook_page import FAILED, NotebookPage

pytestmark = pytest.mark.timeout(300)
LABS = sorted(path.name for path in (state_folder.checkout() / "labs").glob("[0-9][0-9]_*.ipynb"))


def test_check_again_hint_and_solution_by_button(page: Page, jupyter: Jupyter, theme: str) -> None:
    notebook = NotebookPage(page, jupyter.url("untouched.ipynb"))
    notebook.set_theme(theme)
    notebook.run_all()
    outcome = notebook.find(".jp-OutputArea-output:has-text('Not attempted'):has-text('Begin with')")
    expect(outcome).to_be_visible()

    # The notebook's last cell has shown the first hint already: the buttons climb on from there.
    notebook.find(".labkit-hint").click()
    expect(page.locator(".labkit-exercise").first).to_contain_text("Look at unshare(2)")
    notebook.find(".labkit-hint").click()
    expect(page.locator(".labkit-exercise").first).to_contain_text("3 of 3")
    picture(page, f"exercise-hint-{theme}")

    notebook.write_cell("def isolate(hostname: str)", "def isolate(hostname):\n    sethostname(hostname)\n")
    notebook.find(".labkit-check-again").click()
    first = page.locator(".jp-OutputArea:has(.labkit-exercise)").first
    expect(first).to_contain_text("Not yet", timeout=30_000)
    expect(first).to_contain_text("and so is the lab host")

    right = "def isolate(hostname):\n    unshare(CLONE_NEWUTS)\n    sethostname(hostname)\n"
    notebook.write_cell("def isolate(hostname)", right)
    notebook.find(".labkit-check-again").click()
    expect(first).to_contain_text("Passed", timeout=30_000)
    picture(page, f"exercise-passed-{theme}")

    notebook.find(".labkit-solution").click()
    expect(page.locator(".labkit-exercise").first).to_contain_text("The namespace comes first")
    picture(page, f"exercise-solution-{theme}")


def test_observation_waits_for_the_prediction(page: Page, jupyter: Jupyter) -> None:
    notebook = NotebookPage(page, jupyter.url("untouched.ipynb"))
    notebook.forget_progress(jupyter.state)
    notebook.run_all()
    expect(notebook.find(".jp-OutputArea-output:has-text('First make your prediction')")).to_be_visible()
    notebook.find(".labkit-predict label:has-text('the old one')").click()
    expect(page.locator(".labkit-predict")).to_contain_text("You predicted: the old one")
    picture(page, "prediction")
    notebook.run_cell("%%observe stays")
    expect(notebook.find(".jp-OutputArea-output:has-text('in the child')")).to_be_visible()
    expect(notebook.find(".jp-OutputArea-output:has-text('You predicted: the old one')")).to_be_visible()
    picture(page, "observation")


def test_live_view_moves(page: Page, jupyter: Jupyter, theme: str) -> None:
    notebook = NotebookPage(page, jupyter.url("toy.ipynb"))
    notebook.set_theme(theme)
    notebook.run_cell("import toy_exercises")
    notebook.run_cell("box = spawn(print")
    view = page.locator(".labkit-view")
    expect(notebook.find(".labkit-view")).to_be_visible()
    expect(view).to_contain_text("● live")
    hostname = view.locator("tr:has(code:text-is('uts'))")
    expect(hostname).to_contain_text("= same")
    notebook.run_cell("box.call(unshare, CLONE_NEWUTS)")
    expect(hostname).to_contain_text("≠ different", timeout=15_000)
    notebook.find(".labkit-view")
    picture(page, f"live-view-{theme}")
    notebook.run_cell("box.kill()")
    expect(view).to_contain_text("■ ended", timeout=15_000)


def test_failures_are_short(page: Page, jupyter: Jupyter, theme: str) -> None:
    notebook = NotebookPage(page, jupyter.url("untouched.ipynb"))
    notebook.set_theme(theme)
    notebook.run_cell("import toy_exercises")
    assert notebook.first_error() == ""
    notebook.write_cell("def isolate(hostname: str)", "import os\nrun_in_child(os._exit, 3)")
    box = notebook.find("[role=status]:has-text('That did not work')")
    expect(box).to_contain_text("ended with exit code 3")
    expect(box).to_contain_text("What to do: A function in a child must return.")
    expect(box).to_contain_text("Where: Line 2 of the cell, run_in_child(os._exit, 3).")
    assert "That did not work" in notebook.first_error()
    refused = (
        "from labkit.syscalls import umount2\n\n\ndef detach():\n    umount2('/usr/bin')\n\n\nrun_in_child(detach)"
    )
    notebook.write_cell("def count()", refused)
    error = notebook.find(FAILED)
    expect(error).to_contain_text("/usr/bin is not a mount point here")
    expect(error).to_contain_text("line 5 of detach(): umount2('/usr/bin')")
    expect(error).not_to_contain_text("process.py")
    box.scroll_into_view_if_needed()
    picture(page, f"failures-{theme}")


@pytest.mark.parametrize("lab", LABS)
def test_lab_runs_untouched_and_answers(lab: str, page: Page, jupyter: Jupyter) -> None:
    notebook = NotebookPage(page, jupyter.url(lab))
    notebook.forget_progress(jupyter.state)
    notebook.run_all()
    assert notebook.first_error() == ""
    picture(page, f"lab-{Path(lab).stem}")

    first = page.locator(".jp-OutputArea:has(.labkit-exercise)").first
    expect(first).to_contain_text("Not attempted")
    notebook.find(".labkit-hint").click()
    expect(first).to_contain_text("1 of ")
    exercise = next(cell for cell in lab_source.read(lab_source.path_of(lab[:2])) if cell.exercise)
    notebook.write_cell(exercise.learner.splitlines()[0], exercise.solved)
    notebook.find(".labkit-check-again").click()
    if lack := lacking(lab_source.needs(lab_source.path_of(lab[:2]))):
        expect(first).to_contain_text("Not checked", timeout=30_000)
        expect(first).to_contain_text(lack.mend)
        expect(page.locator("[role=status]:has-text('Not on this machine')").first).to_contain_text(lack.mend)
        return
    expect(first).to_contain_text("Passed", timeout=30_000)
    picture(page, f"lab-{Path(lab).stem}-passed")

    if lab.startswith("00"):
        doctors_table(notebook)
    elif lab.startswith("05"):
        live_view_of_lab_05(notebook)
    elif lab.startswith("07"):
        live_view_of_lab_07(notebook)
    elif lab.startswith("10"):
        for theme in ("light", "dark"):
            live_view_of_lab_10(notebook, theme)


def doctors_table(notebook: NotebookPage) -> None:
    table = notebook.find(".labkit-view")
    expect(table).to_contain_text("● live")
    expect(table.locator("tbody").first.locator("tr").nth(5)).to_be_visible()
    table.get_by_role("button", name="Look again").click()
    expect(table).to_contain_text("A name of one's own")
    picture(notebook.page, "doctors-table")


def live_view_of_lab_05(notebook: NotebookPage) -> None:
    notebook.run_cell("lab.view(watched")
    hostname = notebook.page.locator(".labkit-view tr:has(code:text-is('uts'))")
    expect(hostname).to_contain_text("= same")
    notebook.run_cell("watched.call(unshare, CLONE_NEWUTS)")
    expect(hostname).to_contain_text("≠ different", timeout=15_000)


def live_view_of_lab_07(notebook: NotebookPage) -> None:
    notebook.run_cell("lab.view(running")
    view = notebook.page.locator(".labkit-view[aria-label^='container.start']")
    expect(view).to_contain_text("● live")
    expect(view.locator("tr:has(code:text-is('pid'))")).to_contain_text("≠ different")
    picture(notebook.page, "lab-07-view")
    notebook.run_cell("running.kill()")
    expect(view).to_contain_text("■ ended", timeout=15_000)


def live_view_of_lab_10(notebook: NotebookPage, theme: str) -> None:
    """The picture shows who is there, a route that goes, and an address that is there twice; not by colour alone."""
    notebook.set_theme(theme)
    notebook.run_cell('street = Network("street"')
    view = notebook.page.locator(".labkit-view[aria-label='Our street']")
    expect(view).to_contain_text("● live")
    expect(view.locator("svg")).to_have_attribute("aria-label", re.compile(r"a: .*eth0 up 10\.0\.5\.2/24 to a-"))
    notebook.run_cell("def world_outside")
    expect(view.locator("svg")).to_contain_text("uplink", timeout=15_000)
    notebook.find(".labkit-view[aria-label='Our street']")
    picture(notebook.page, f"lab-10-street-{theme}")
    notebook.run_cell("picture = lab.network(street, outside")
    view = notebook.page.locator(".labkit-view[aria-label='Our street, and the world outside']")
    expect(view.locator("svg")).to_contain_text("→ default via 10.0.5.1 dev eth0")
    notebook.run_cell("def in_endpoint")
    notebook.run_cell("in_endpoint(b, lambda ip: ip.addr")
    expect(view.locator("svg")).to_contain_text("⚠ 10.0.5.2/24 twice", timeout=15_000)
    expect(view).to_contain_text("10.0.5.2 is there more than once: eth0 of a and eth0 of b.")
    notebook.find(".labkit-view[aria-label='Our street, and the world outside']")
    picture(notebook.page, f"lab-10-twice-{theme}")
    notebook.run_cell("outside.kill()")
    expect(view).to_contain_text("■ ended", timeout=15_000)
