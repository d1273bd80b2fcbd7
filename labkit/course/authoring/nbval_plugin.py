"""A pytest plugin that has nbval run notebooks as a notebook would, and fail where nbval looks away.

Loaded with `-p labkit.course.authoring.nbval_plugin` beside `--nbval`, or `--nbval-lax`, by which only cells that raise
fail. What it mends:

- nbval executes cells without history, so a trailing `;` hides nothing; and pytest's PYTEST_CURRENT_TEST, inherited by
  the kernel, makes ipykernel drop what child processes write;
- a cell without an execution count was never run, and nbval compares nothing of it: it fails here;
- tags and comments that make nbval skip a cell or ignore its output are refused;
- a kernel that died is noticed within a second, not at the time-out;
- a cell that caught the interrupt after its time-out would pass: it fails here;
- the kernel's working directory is `LABKIT_NOTEBOOK_FOLDER`, where that is set.
"""

import os
import time
from collections.abc import Generator
from queue import Empty
from typing import Any

import nbval.plugin
import pytest
from nbval.kernel import RunningKernel


class NotebookKernel(RunningKernel):  # type: ignore[misc]
    """A kernel that is started, asked and watched as JupyterLab does it."""

    def __init__(self, kernel_name: str, cwd: str | None = None, startup_timeout: int = 60) -> None:
        hidden = {
            name: os.environ.pop(name) for name in ("PYTEST_CURRENT_TEST", "PYTEST_VERSION") if name in os.environ
        }
        try:
            super().__init__(kernel_name, os.environ.get("LABKIT_NOTEBOOK_FOLDER") or cwd, startup_timeout)
        finally:
            os.environ.update(hidden)

    def execute_cell_input(self, cell_input: str, allow_stdin: bool | None = None) -> str:
        """Send a cell, with history, so that it is the same as a cell run by hand."""
        sent: str = self.kc.execute(cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)
        return sent

    def get_message(self, stream: str, timeout: float | None = None) -> Any:
        """The next message; RuntimeError at once where the kernel is dead, Empty after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))
            try:
                return super().get_message(stream, left)
            except Empty:
                if not self.is_alive():
                    raise RuntimeError("the kernel died while this cell ran") from None
                if deadline is not None and time.monotonic() >= deadline:
                    raise


def pytest_configure(config: pytest.Config) -> None:
    """Have nbval start our kernel instead of its own."""
    nbval.plugin.RunningKernel = NotebookKernel


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """Run one cell, and fail it for what nbval would let pass."""
    if not isinstance(item, nbval.plugin.IPyNbCell):
        yield
        return
    if item.cell.source.strip() and item.cell.execution_count is None:
        pytest.fail("this cell has no execution count: it was never run, so nothing of it would be compared")
    if item.options["skip"] or not (item.options["check"] or item.config.option.nbval_lax):
        pytest.fail("this cell asks not to be run or not to be compared")
    timed_out_before = item.parent.timed_out
    outcome = yield
    if item.parent.timed_out and not timed_out_before and outcome.excinfo is None:
        pytest.fail("this cell ran into its time limit and caught the interrupt")
