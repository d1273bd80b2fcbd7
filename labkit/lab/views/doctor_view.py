"""The doctor in a notebook: its tables, looked at again every few seconds while they are shown.

from labkit.lab.views.doctor_view import doctor_table
doctor_table()
"""

import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labkit.lab import doctor, show

INTERVAL_SECONDS = 10.0
_FILES = Path(__file__).parent
_PLAIN = "The doctor's table of this machine. Run the cell in JupyterLab to see it, or `./lab doctor` in a terminal."
_shown: "DoctorTable | None" = None


class DoctorTable:
    """What the doctor finds, as tables that follow the machine. `close()` stops that."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}
        self._watchers = 0  # how many front ends show it: while none does, nobody needs to look
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._widget: Any = None
        self.look()

    def look(self) -> None:
        """Examine the machine now, and pass on what has changed: about a fifth of a second."""
        report = doctor.report()
        state = {
            "findings": [asdict(finding) for finding in report.findings],
            "labs": [{**asdict(lab), "lacks": list(lab.lacks)} for lab in report.labs],
        }
        if state == self.state:
            return
        self.state = state
        if self._widget is not None:
            with suppress(Exception):  # the kernel may be shutting down under us
                self._widget.state = state

    def show(self) -> None:
        """Show the tables here; in a notebook they follow the machine."""
        if not show.in_notebook():
            show.display(_PLAIN)
            return
        self._widget = _widget(self.state)
        self._widget.on_msg(self._on_message)
        show.display(_PLAIN, widget=self._widget)
        self._thread = threading.Thread(target=self._follow, name="labkit-doctor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following; what was last seen stays on show."""
        self._closing = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _follow(self) -> None:
        while not self._closing:
            asked = self._wake.wait(INTERVAL_SECONDS if self._watchers else None)
            self._wake.clear()
            if not self._closing and (asked or self._watchers):
                with suppress(Exception):  # a look that fails is made again; the table must never break a lab
                    self.look()

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        kind = content.get("kind") if isinstance(content, dict) else None
        if kind in ("shown", "hidden"):
            self._watchers = max(0, self._watchers + (1 if kind == "shown" else -1))
        self._wake.set()

    def __repr__(self) -> str:
        return "<the doctor's table>"

    def _ipython_display_(self) -> None:
        return None  # it was shown when it was made


def doctor_table() -> DoctorTable:
    """Show the doctor's tables. A second call stops the table of the first."""
    global _shown
    if _shown is not None:
        _shown.close()
    _shown = DoctorTable()
    _shown.show()
    return _shown


def _widget(state: dict[str, Any]) -> Any:
    import anywidget
    import traitlets

    class DoctorView(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        """Shows `state`; all of it is drawn in the browser, by doctor_view.js."""

        _esm = _FILES / "doctor_view.js"
        _css = _FILES / "live.css"
        state = traitlets.Dict().tag(sync=True)

    return DoctorView(state=state)
