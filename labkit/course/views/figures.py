"""Measured figures beside each other, as bars on a scale of powers of ten, with the machine that they are of.

    figures.show("What a call costs", {"a function": 12.0, "a system call": 210.0}, unit="ns")

What was measured differs from run to run, so none of it is in a saved notebook.
"""

from collections.abc import Mapping
from typing import Any

from labkit.course.framework.measurements import machine_line
from labkit.course.views.live import LiveView
from labkit.errors import InvalidConfig

#: What a figure may be of: the factor to its smallest unit, and that unit's family.
UNITS = {
    "ns": (1, "time"),
    "us": (10**3, "time"),
    "ms": (10**6, "time"),
    "s": (10**9, "time"),
    "bytes": (1, "memory"),
    "KiB": (2**10, "memory"),
    "MiB": (2**20, "memory"),
}


class FiguresView(LiveView):
    """The bars, in the order given; a figure that is None was not measured, and its note says why."""

    script = "figures.js"
    style = "chart.css"
    plain = "Figure: what was measured on this machine, side by side. Run the cell in JupyterLab to see it."

    def __init__(self, title: str, figures: Mapping[str, float | None], unit: str, notes: Mapping[str, str]) -> None:
        """`notes` has a few words for some of the figures, by their names. `InvalidConfig`: no such unit."""
        if unit not in UNITS:
            raise InvalidConfig(f"there is no unit {unit!r}, only {', '.join(UNITS)}")
        self._factor, self._family = UNITS[unit]
        self._figures, self._notes, self._machine = dict(figures), dict(notes), machine_line()
        super().__init__(title)

    def look(self) -> dict[str, Any]:
        """The figures, in ns or bytes."""
        return {
            "family": self._family,
            "machine": self._machine,
            "ended_note": "",
            "rows": [
                [name, None if value is None else value * self._factor, self._notes.get(name, "")]
                for name, value in self._figures.items()
            ],
        }

    def as_text(self) -> str:
        """What a terminal gets: a line for each."""
        wide = max(map(len, self._figures), default=0)
        lines = [self._machine]
        for name, value in self._figures.items():
            shown = "" if value is None else in_words(value * self._factor, self._family)
            lines.append(f"{name:<{wide}}  {shown:>10}  {self._notes.get(name, '')}".rstrip())
        return "\n".join(lines)


def in_words(value: float, family: str) -> str:
    """A figure in ns or bytes with the unit that fits: "210 ns", "3.4 MiB"."""
    steps = ("ns", "µs", "ms", "s") if family == "time" else ("bytes", "KiB", "MiB", "GiB")
    size, place = 1000 if family == "time" else 1024, 0
    while value >= size and place < len(steps) - 1:
        value, place = value / size, place + 1
    return f"{value:.{0 if value >= 100 or (not place and family == 'memory') else 1}f} {steps[place]}"


def show(title: str, figures: Mapping[str, float | None], *, unit: str, notes: Mapping[str, str] | None = None) -> None:
    """Draw the figures; in a terminal, print them."""
    with FiguresView(title, figures, unit, notes or {}) as view:
        view.show()
