"""The live view "what is isolated": the lab host and a process side by side, following what happens."""

import os
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from labkit import host
from labkit.course.views import isolation
from labkit.course.views.live import LiveView
from labkit.errors import LabkitError


class IsolationView(LiveView):
    """A view of one process. `close()` stops it; the process's end does so by itself."""

    script = "view.js"
    plain = (
        "Live view: what is isolated, the lab host and the process side by side. Run the cell in JupyterLab to see it."
    )

    def __init__(self, of: Any, *, title: str = "", host_pid: int | None = None) -> None:
        """Look at `of`: a child, a container (anything with a `pid`), or a PID. `TypeError`: it is none of these."""
        pid = of if isinstance(of, int) else getattr(of, "pid", None)
        if not isinstance(pid, int):
            raise TypeError(f"a view needs a process: a child, a container or a PID, not {of!r}")
        self._of = pid
        self._host_pid = host_pid or _host_pid()
        super().__init__(title or f"What is isolated: process {pid}", pid)

    def look(self) -> dict[str, Any]:
        """One look at the process, as plain data. `ProcessLookupError`: it has ended."""
        found = isolation.look(self._of, self._host_pid)
        namespaces = [{**asdict(one), "same": one.same} for one in found.namespaces]
        return {**asdict(found), "namespaces": namespaces}

    def as_text(self) -> str:
        """One look as lines of text."""
        with suppress(OSError):
            return isolation.as_text(isolation.look(self._of, self._host_pid))
        return f"Process {self._of} has ended."


def _host_pid() -> int:
    try:
        return host.pid()
    except LabkitError:
        return os.getpid()  # no lab host on this machine: compare with the notebook itself
