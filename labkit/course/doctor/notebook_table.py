"""The doctor in a notebook: its tables, looked at again every few seconds while they are shown.

from labkit.course.doctor.notebook_table import doctor_table
doctor_table()
"""

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from labkit.course.doctor import doctor
from labkit.course.views.live import LiveView

_shown: "DoctorTable | None" = None


class DoctorTable(LiveView):
    """What the doctor finds, as tables that follow the machine."""

    script = "notebook_table.js"
    plain = "The doctor's table of this machine. Run the cell in JupyterLab to see it, or `./lab doctor` in a terminal."
    interval_seconds = 10.0  # a look takes about a fifth of a second

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}
        super().__init__("This machine")

    def look(self) -> dict[str, Any]:
        """Examine the machine. Where that fails, what was seen last stays, and the next look tries again."""
        with suppress(OSError):
            report = doctor.report()
            self._found = {
                "findings": [asdict(finding) for finding in report.findings],
                "labs": [{**asdict(lab), "lacks": list(lab.lacks)} for lab in report.labs],
            }
        return self._found

    def __repr__(self) -> str:
        return "<the doctor's table>"


def doctor_table() -> DoctorTable:
    """Show the doctor's tables. A second call stops the table of the first."""
    global _shown
    if _shown is not None:
        _shown.close()
    _shown = DoctorTable()
    _shown.show()
    return _shown
