"""The figure of several servers beside the same neighbours: one panel for each server, in it one column for each phase.

What was measured in one place is drawn as in the figure of one victim; of several places (bare metal, virtual machine,
container) only the percentiles are, beside each other. All panels have one scale.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from labkit.course.experiments.noise.figure import drawn
from labkit.course.experiments.noise.kept import Kept
from labkit.course.experiments.noise.load import Victim
from labkit.course.experiments.noise.measured import Measured, Result, read_or_none
from labkit.course.framework.measurements import machine_line
from labkit.course.views.live import LiveView

Place = tuple[str, str, list[list[Measured | None]]]  # its name, its machine, and for each server its phases


class ServersView(LiveView):
    """The figure, while its experiment goes on and afterwards."""

    script = "servers_figure.js"
    library = "chart.js"
    style = "chart.css"
    plain = (
        "Figure: how late each server answered in each phase, alone and beside its neighbours. Run the cell in "
        "JupyterLab to see it."
    )

    def __init__(self, victims: Sequence[Victim], names: Sequence[str], *, title: str) -> None:
        self._victims = victims
        self._names = list(names)
        self._done: dict[str, Sequence[Measured]] = {}
        self._now: tuple[str, Sequence[Path]] | None = None
        self._machine = machine_line()
        super().__init__(title)

    def begin(self, name: str, shared: Sequence[Path]) -> None:
        """Phase `name` begins; each victim writes to its file of `shared`."""
        self._now = (name, shared)

    def finish(self, measured: Sequence[Measured]) -> None:
        """A phase is over."""
        self._done[measured[0].name] = measured
        self._now = None
        self.refresh()

    def look(self) -> dict[str, Any]:
        """Every phase of every server as far as it has come."""
        phases: list[Sequence[Measured | None]] = []
        now = self._now
        for name in self._names:
            if name in self._done:
                phases.append(self._done[name])
            elif now and name == now[0]:
                phases.append([read_or_none(name, shared) for shared in now[1]])
            else:
                phases.append([None] * len(self._victims))
        cells = [list(one) for one in zip(*phases, strict=True)]
        return _state(self._victims, self._names, [("", self._machine, cells)])

    def as_text(self) -> str:
        """What a terminal gets, where nothing moves: a table for each server."""
        done = zip(*self._done.values(), strict=True) if self._done else ()
        results = {one.work: Result(one, measured) for one, measured in zip(self._victims, done, strict=False)}
        return _tables({"": Kept(self._machine, results)})


class KeptView(LiveView):
    """The same figure of what was kept, of one place or several."""

    script, library, style, plain = ServersView.script, ServersView.library, ServersView.style, ServersView.plain

    def __init__(self, kept: Mapping[str, Kept], *, title: str) -> None:
        self._kept = kept
        super().__init__(title)

    def look(self) -> dict[str, Any]:
        """All that was kept; a server or a phase that a place lacks stays empty there."""
        results = [result for one in self._kept.values() for result in one.results.values()]
        servers = {result.victim.work: result.victim for result in results}
        names = list(dict.fromkeys(phase.name for result in results for phase in result.phases))
        places: list[Place] = []
        for place, one in self._kept.items():
            cells = [[_phase(one.results.get(server), name) for name in names] for server in servers]
            places.append((place, one.machine, cells))
        return _state(list(servers.values()), names, places)

    def as_text(self) -> str:
        """The tables."""
        return _tables(self._kept)


def _phase(result: Result | None, name: str) -> Measured | None:
    return next((phase for phase in result.phases if phase.name == name), None) if result else None


def _state(victims: Sequence[Victim], names: list[str], places: list[Place]) -> dict[str, Any]:
    every = len(places) == 1  # of several places only the percentiles are drawn
    return {
        "servers": [one.work for one in victims],
        "phases": names,
        "requests": victims[0].requests,
        "interval_msec": victims[0].interval_msec,
        "places": [
            {
                "name": name,
                "machine": machine,
                "cells": [[_cell(phase, every) for phase in phases] for phases in cells],
            }
            for name, machine, cells in places
        ],
    }


def _cell(phase: Measured | None, every: bool) -> dict[str, Any]:
    cell = drawn("", phase)
    cell["unanswered_count"] = len(cell["unanswered"])
    return cell if every else {**cell, "latencies_msec": [], "unanswered": []}


def _tables(places: Mapping[str, Kept]) -> str:
    lines = []
    for place, one in places.items():
        lines.append(f"{place + ': ' if place else ''}{one.machine}")
        lines += [f"\n{name}\n{result.as_text()}" for name, result in one.results.items()]
    return "\n".join(lines)


def draw(kept: Mapping[str, Kept], title: str) -> None:
    """Draw the figure of what was kept; in a terminal, print its tables."""
    with KeptView(kept, title=title) as view:
        view.show()
