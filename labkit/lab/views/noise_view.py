"""The figure of the noisy-neighbour experiment, the same each time: every request as a point, percentiles as lines.

Time runs to the right, phase after phase; the latency goes up, on a scale of powers of ten.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from labkit.lab.noise import PERCENTILES, Measured, Result, Victim, percentile, read
from labkit.lab.views.live import LiveView


class NoiseView(LiveView):
    """The figure, while its experiment goes on and afterwards."""

    script = "noise_view.js"
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
        super().__init__(title)

    def begin(self, name: str, shared: Path) -> None:
        """Phase `name` begins; its victim writes to the file `shared`."""
        self._now = (name, shared)

    def finish(self, measured: Measured) -> None:
        """A phase is over."""
        self._done[measured.name] = measured
        self._now = None
        self.refresh()

    def look(self) -> dict[str, Any]:
        """Every phase as far as it has come."""
        now, running = self._now, None
        if now is not None:
            with suppress(OSError):  # it may be over by now
                running = Measured(now[0], tuple(read(now[1])))
        phases = [self._done.get(name) or (running if now and name == now[0] else None) for name in self._names]
        return {
            "phases": [_drawn(name, phase) for name, phase in zip(self._names, phases, strict=True)],
            "requests": self._victim.requests,
            "interval_msec": self._victim.interval_msec,
        }

    def as_text(self) -> str:
        """What a terminal gets, where nothing moves: the figures so far."""
        return Result(self._victim, tuple(self._done.values())).as_text() if self._done else ""


def _drawn(name: str, phase: Measured | None) -> dict[str, Any]:
    samples = phase.latencies_msec if phase else ()
    return {
        "name": name,
        "latencies_msec": [round(sample, 2) for sample in samples],
        "unanswered": phase.unanswered if phase else 0,
        "percentiles": [[percent, round(percentile(samples, percent), 2)] for percent in PERCENTILES if samples],
    }


def draw(result: Result, title: str = "How long a request takes") -> None:
    """Draw the figure of a result; in a terminal, print its table."""
    with NoiseView(result.victim, [phase.name for phase in result.phases], title=title) as view:
        for phase in result.phases:
            view.finish(phase)
        view.show()
