"""In a room: a pytest plugin that has nbval's kernel watched, so that no cell holds it up or fills its memory.

nbval reads what a cell prints only once the cell has ended, and goes on reading for as long as something comes. Here it
is read while the cell runs, counted, and given to nbval afterwards; where there is too much of it the kernel is ended.
A cell that takes too long is interrupted, as nbval does it, and ended where it does not heed that.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty
from typing import Any

import nbval.plugin
import pytest

from labkit import procfs
from labkit.course.authoring.nbval_plugin import NotebookKernel

GRACE_SECONDS = 10.0  # in which a cell that has ended, or was interrupted, must be done with its output
_MESSAGE_BYTES = 50  # what each message counts for besides its texts
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Limits:
    """What a notebook may use. The wall time of a cell is nbval's own option."""

    cpu_seconds_per_cell: float = 30.0  #: of one with an answer
    printed_bytes: int = 1_000_000  #: of the whole notebook


limits = Limits()
is_answer = False  #: whether the cell that runs has an answer in it


class TooMuch(Exception):
    """The kernel was ended; says why."""


class WatchedKernel(NotebookKernel):
    """A kernel that is ended where it uses too much."""

    def __init__(self, kernel_name: str, cwd: str | None = None, startup_timeout: int = 60) -> None:
        self._read: deque[Any] = deque()  # of what the kernel has published, read and not yet asked for
        self._printed = 0
        self._cpu_before = 0.0
        self._until: float | None = None
        self.trouble = ""  #: why the last cell was interrupted, where its time was not up
        self.raised = False  #: whether the kernel answered that the last cell raised
        super().__init__(kernel_name, cwd, startup_timeout)

    def execute_cell_input(self, cell_input: str, allow_stdin: bool | None = None) -> str:
        """Send a cell; what the room's processes have used so far counts for the cells before it."""
        self._cpu_before, self._until, self.raised, self.trouble = _cpu_seconds(), None, False, ""
        return super().execute_cell_input(cell_input, allow_stdin)

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        """Wait for the cell's end. `Empty`: it takes too long. `TooMuch`, RuntimeError: the kernel has ended."""
        deadline = time.monotonic() + (timeout or 0)
        try:
            while True:
                self._read_what_is_there()
                try:
                    reply = self.kc.get_shell_msg(timeout=0.1)
                except Empty:
                    if not self.is_alive():
                        raise RuntimeError("the kernel died while this cell ran") from None
                    if timeout is not None and time.monotonic() >= deadline:
                        raise
                    if is_answer and _cpu_seconds() - self._cpu_before > limits.cpu_seconds_per_cell:
                        self.trouble = f"It used more than {limits.cpu_seconds_per_cell:g} s of processor time.\n"
                        raise
                    continue
                if reply["parent_header"].get("msg_id") == msg_id:
                    self.raised = reply["content"].get("status") != "ok"
                    return
        finally:
            self._until = time.monotonic() + GRACE_SECONDS

    def get_message(self, stream: str, timeout: float | None = None) -> Any:
        """The next message; as nbval's, but never for longer than the cell has left."""
        if stream != "iopub":
            return super().get_message(stream, timeout)
        if not self._read:
            if self._until is not None and time.monotonic() > self._until:
                self._end("it could not be interrupted")
            self._keep(super().get_message(stream, timeout))
        return self._read.popleft()

    def _read_what_is_there(self) -> None:
        with suppress(Empty):
            while True:
                self._keep(self.kc.get_iopub_msg(timeout=0))

    def _keep(self, message: Any) -> None:
        self._printed += _MESSAGE_BYTES + _size(message["content"])
        if self._printed > limits.printed_bytes:
            self._end(f"the notebook printed more than {limits.printed_bytes:,} bytes")
        self._read.append(message)

    def _end(self, why: str) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.km.provisioner.pid, signal.SIGKILL)
        raise TooMuch(f"The kernel was ended: {why}.")


def _size(value: Any) -> int:
    """About how many bytes the texts in a message are."""
    size, todo = 0, [value]
    while todo:
        one = todo.pop()
        if isinstance(one, str):
            size += len(one)
        elif isinstance(one, dict):
            todo += one.keys()
            todo += one.values()
        elif isinstance(one, list):
            todo += one
    return size


def _cpu_seconds() -> float:
    """What all other processes of the room have used so far, in seconds; also those that were waited for."""
    total = 0
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with suppress(OSError, ValueError):
                total += sum(int(field) for field in procfs.stat(int(entry))[13:17])
    return total / _TICKS


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """Fail a cell that raised although nbval saw nothing of it: what it raised was too long for the kernel to send."""
    outcome = yield
    if isinstance(item, nbval.plugin.IPyNbCell) and outcome.excinfo is None and item.parent.kernel.raised:
        pytest.fail("this cell raised something that could not be shown")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have nbval start a watched kernel."""
    nbval.plugin.RunningKernel = WatchedKernel
