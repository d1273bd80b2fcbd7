"""The figure of the noisy-neighbour experiment, the same each time: every request as a point, percentiles as lines.

Time runs to the right, phase after phase; the latency goes up, on a scale of powers of ten.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labkit.course.experiments.noise.load import Victim
from labkit.course.experiments.noise.measured import PERCENTILES, Measured, Result, percentile, read_or_none
from labkit.course.framework.measurements import machine_line
from labkit.course.views.live import LiveView


class NoiseView(LiveView):
    """The figure, while its experiment goes on and afterwards."""

    script = "figure.js"
    library = "chart.js"
    style = "chart.css"
    plain = (
        "Figure: how late each request was answered, and the percentiles of each phase. Run the cell in JupyterLab "
        "to see it."
    )
    interval_seconds = 0.5

    def __init__(self, victim: Victim, names: Sequence[str], *, title: str) -> None:
        self._victim = victim
        self._names = list(names)
        self._done: dict[str, Measured] = {}
        self._now: tuple[str, Path] | None = None
        self._machine = machine_line()
        super().__init__(title)

    def begin(self, name: str, shared: Sequence[Path]) -> None:
        """Phase `name` begins; its victim writes to the one file of `shared`."""
        self._now = (name, shared[0])

    def finish(self, measured: Sequence[Measured]) -> None:
        """A phase is over."""
        self._done[measured[0].name] = measured[0]
        self._now = None
        self.refresh()

    def look(self) -> dict[str, Any]:
        """Every phase as far as it has come."""
        now = self._now
        running = read_or_none(*now) if now else None
        phases = [self._done.get(name) or (running if now and name == now[0] else None) for name in self._names]
        return {
            "phases": [drawn(name, phase) for name, phase in zip(self._names, phases, strict=True)],
            "requests": self._victim.requests,
            "interval_msec": self._victim.interval_msec,
            "machine": self._machine,
        }

    def as_text(self) -> str:
        """What a terminal gets, where nothing moves: the figures so far."""
        return Result(self._victim, tuple(self._done.values())).as_text() if self._done else ""


def drawn(name: str, phase: Measured | None) -> dict[str, Any]:
    """One phase as the figures have it; empty where nothing was measured yet."""
    samples = phase.latencies_msec if phase else ()
    return {
        "name": name,
        "latencies_msec": [round(sample, 2) for sample in samples],
        "unanswered": list(phase.unanswered) if phase else [],
        "percentiles": [[percent, round(percentile(samples, percent), 2)] for percent in PERCENTILES if samples],
    }


def draw(result: Result, title: str = "How long a request takes") -> None:
    """Draw the figure of a result; in a terminal, print its table."""
    with NoiseView(result.victim, [phase.name for phase in result.phases], title=title) as view:
        for phase in result.phases:
            view.finish([phase])
        view.show()
