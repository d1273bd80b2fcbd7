"""System calls as a table, in the order in which they came, as strace prints them.

    calls.show("One request, call by call", seen)     # of labkit.tracer.Call

Addresses and PIDs differ each time, so none of it is in a saved notebook.
"""

import os
from collections.abc import Sequence
from typing import Any

from labkit.course.views.live import LiveView
from labkit.tracer import Call

SHOWN_MAX = 300


class CallsView(LiveView):
    """A row for each call: who made it, its name, its arguments as numbers, its result."""

    script = "calls.js"
    plain = "Table: system calls as they came, with arguments and results. Run the cell in JupyterLab to see it."

    def __init__(self, title: str, seen: Sequence[Call]) -> None:
        self._seen = seen
        super().__init__(title)

    def look(self) -> dict[str, Any]:
        """The rows, up to SHOWN_MAX of them."""
        return {
            "ended_note": "",
            "left_out": max(0, len(self._seen) - SHOWN_MAX),
            "rows": [
                [call.pid, call.name, [f"{argument:#x}" for argument in call.arguments], result(call.result)]
                for call in self._seen[:SHOWN_MAX]
            ],
        }

    def as_text(self) -> str:
        """What a terminal gets."""
        return "\n".join(f"{call.pid} {call}" for call in self._seen[:SHOWN_MAX])


def result(value: int | None) -> str:
    """A result in words: a number, an error with its name, or that there was none."""
    if value is None:
        return "does not return"
    if -4096 < value < 0:
        return f"error: {os.strerror(-value)}"
    return str(value) if value < 1 << 32 else f"{value:#x}"


def show(title: str, seen: Sequence[Call]) -> None:
    """Show the calls; in a terminal, print them."""
    with CallsView(title, seen) as view:
        view.show()
