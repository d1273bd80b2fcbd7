"""What the browser tests do on a notebook's page: open, run, click. Every wait is for something seen on the page."""

import re
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

SECONDS = 1000
# The execution counts of all code cells; 0 for one that has not run or is running.
_COUNTS = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(
    prompt => Number(/\\[(\\d+)\\]/.exec(prompt.textContent)?.[1] ?? 0))"""
# JupyterLab shows an exception as it shows what was written to stderr; some versions have a type of its own for it.
FAILED = "[data-mime-type='application/vnd.jupyter.stderr'], [data-mime-type='application/vnd.jupyter.error']"
# The first output that says that a cell failed: an exception, or a box of labkit's.
_ERROR = f"""[...document.querySelectorAll('.jp-OutputArea-output')].find(
    output => output.matches("{FAILED}")
        || output.querySelector('[role=status]')?.textContent.startsWith('! That did not work'))"""


class NotebookPage:
    """One notebook, opened in JupyterLab."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        expect(page.locator(".jp-Notebook")).to_be_visible(timeout=60 * SECONDS)
        # Before its kernel is connected, a notebook asked to run would ask which kernel to start.
        expect(page.get_by_role("button", name=re.compile(r"Python 3 .*\| Idle"))).to_be_visible(timeout=60 * SECONDS)

    def set_theme(self, theme: str) -> None:
        """Choose JupyterLab's light or dark theme."""
        name = "JupyterLab Dark" if theme == "dark" else "JupyterLab Light"
        self.menu("Settings", "Theme", name)
        light = "false" if theme == "dark" else "true"
        expect(self.page.locator(f"body[data-jp-theme-light='{light}']")).to_be_attached()

    def menu(self, *names: str) -> None:
        """Choose from the menu bar."""
        first, *rest = names
        self.page.get_by_role("menuitem", name=first, exact=True).click()
        for name in rest:
            label = self.page.locator(".lm-Menu-itemLabel").filter(has_text=re.compile(f"^{re.escape(name)}$"))
            label.last.click()

    def run_all(self, seconds: int = 120) -> None:
        """Run all cells; wait until each has run, or one has failed."""
        before = max(self.page.evaluate(_COUNTS))
        self.menu("Run", "Run All Cells")
        self.page.wait_for_function(
            f"""before => {{
                const counts = ({_COUNTS})();
                return counts.every(count => count > before) || {_ERROR} !== undefined;
            }}""",
            arg=before,
            timeout=seconds * SECONDS,
        )

    def run_cell(self, text: str, seconds: int = 60) -> None:
        """Run the code cell whose source holds `text`, and wait for its end."""
        self.cell(text).locator(".cm-content").click()
        self._run_chosen(seconds)

    def write_cell(self, text: str, source: str, seconds: int = 60) -> None:
        """Replace the source of a code cell as one would by hand, and run it."""
        self.cell(text).locator(".cm-content").click()
        self.page.keyboard.press("Control+A")
        self.page.keyboard.insert_text(source)
        self._run_chosen(seconds)

    def _run_chosen(self, seconds: int) -> None:
        """Run the cell that the cursor is in: its count becomes the highest."""
        before = max(self.page.evaluate(_COUNTS))
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_function(
            f"before => Math.max(...({_COUNTS})()) > before", arg=before, timeout=seconds * SECONDS
        )

    def first_error(self) -> str:
        """What the first failed cell says; empty where none has failed."""
        text: str = self.page.evaluate(f"() => ({_ERROR})?.innerText ?? ''")
        return text

    def cell(self, text: str) -> Locator:
        """The code cell whose source holds `text`, scrolled to."""
        return self.find(f".jp-CodeCell:has(.jp-InputArea-editor:has-text({text!r}))")

    def forget_progress(self, state: Path) -> None:
        """Begin as somebody who has done nothing yet."""
        (state / "progress.json").unlink(missing_ok=True)

    def find(self, selector: str) -> Locator:
        """The first such element of the page, scrolled to."""
        found = self.page.locator(selector).first
        found.scroll_into_view_if_needed()
        return found
