"""The noisy-neighbour experiment: how long do requests take, and what do neighbours do to that?

A *victim* gets requests on a fixed schedule, one every `interval_msec`. What is measured is the time from the moment at
which a request was *due* to the moment at which it was answered. So a victim that falls behind is late for every
request that waits meanwhile, as a server's users would see it. A loop that asks only after it has been answered would
leave exactly those out ("coordinated omission").

    phases = [Phase("alone"), Phase("beside 8 busy processes", (hogs.cpu(8),))]
    result = experiment(phases)            # draws it while it goes on
    result["alone"].percentile(99)         # ms

Without a victim of your own it is a process that computes. A real server becomes one by what is asked of it, and by its
processes, wherever these run: on the machine itself, in a container, or as a virtual machine's::

    web = server("web", lambda: urlopen("http://127.0.0.1:8080/").read(), [nginx.pid])
    result = experiment(phases, web)
    results = side_by_side(phases, [web, database])    # several, asked at the same time
    keep("bare metal", results)                        # for another notebook, which may
    draw_kept()                                        # draw them beside others

The parts: `load` asks and times, `measured` is what was found, `kept` stores it; `figure` and `servers_figure` draw.
The neighbours are `labkit.course.experiments.stressors`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from labkit import temporary
from labkit.course.experiments import stressors
from labkit.course.experiments.noise.kept import Kept, draw_kept, keep, kept
from labkit.course.experiments.noise.load import PATIENCE, Victim, place, serve_together, server, victim
from labkit.course.experiments.noise.measured import PERCENTILES, Measured, Result, percentile
from labkit.course.framework import rendering
from labkit.errors import InvalidConfig
from labkit.process import run_in_child, spawn

__all__ = [
    "PERCENTILES",
    "Kept",
    "Measured",
    "Phase",
    "Result",
    "Victim",
    "draw_kept",
    "experiment",
    "keep",
    "kept",
    "measure",
    "percentile",
    "server",
    "side_by_side",
    "victim",
]


@dataclass(frozen=True)
class Phase:
    """One phase of an experiment: who runs beside the victim, and in which groups they and the victim are."""

    name: str
    neighbours: tuple[stressors.Hog, ...] = ()
    group: stressors.Group | None = None  #: of the neighbours
    victim_group: stressors.Group | None = (
        None  #: of a victim that is no server: a server is in the group it was started in
    )


class Watcher(Protocol):
    """Who is told how an experiment goes on: a figure."""

    def begin(self, name: str, shared: Sequence[Path]) -> None:
        """Phase `name` begins; each victim writes to its file of `shared`."""

    def finish(self, measured: Sequence[Measured]) -> None:
        """A phase is over."""


def experiment(phases: Sequence[Phase], of: Victim | None = None, *, title: str = "How long a request takes") -> Result:
    """Go through the phases with one victim, one after the other, and draw what is found as it is found."""
    from labkit.course.experiments.noise.figure import NoiseView

    _refuse(phases)
    subject = of or victim()
    with NoiseView(subject, [phase.name for phase in phases], title=title) as view:
        if rendering.in_notebook():
            view.show()
        [result] = _go_through(phases, [subject], view)
        if not rendering.in_notebook():
            view.show()
        return result


def side_by_side(
    phases: Sequence[Phase], victims: Sequence[Victim], *, title: str = "How long a request takes"
) -> dict[str, Result]:
    """Go through the phases with several victims that get their requests at the same time; results by their names."""
    from labkit.course.experiments.noise.servers_figure import ServersView

    _refuse(phases)
    names = [one.work for one in victims]
    if len(set(names)) != len(names) or not names:
        raise InvalidConfig("side by side takes one victim at least, and each has a name of its own")
    with ServersView(victims, [phase.name for phase in phases], title=title) as view:
        if rendering.in_notebook():
            view.show()
        results = _go_through(phases, victims, view)
        if not rendering.in_notebook():
            view.show()
        return dict(zip(names, results, strict=True))


def _refuse(phases: Sequence[Phase]) -> None:
    if len({phase.name for phase in phases}) != len(phases) or not phases:
        raise InvalidConfig("an experiment has one phase at least, and each has a name of its own")


def _go_through(phases: Sequence[Phase], victims: Sequence[Victim], view: Watcher) -> list[Result]:
    for one in victims:
        run_in_child(one.request)  # raises here, before anything is measured, where there is nobody to answer
    found: list[tuple[Measured, ...]] = []
    limit = max(one.seconds for one in victims) * PATIENCE + 10
    cpu = victims[0].cpu
    with _on_one_cpu(victims):
        for phase in phases:
            with stressors.Neighbours(*phase.neighbours, group=phase.group, seconds=limit, cpu=cpu):
                found.append(measure_together(phase.name, victims, group=phase.victim_group, so_far=view))
            view.finish(found[-1])
    return [Result(one, tuple(measured)) for one, *measured in zip(victims, *found, strict=True)]


@contextmanager
def _on_one_cpu(victims: Sequence[Victim]) -> Iterator[None]:
    """Have servers run where their neighbours will, and afterwards where they ran before."""
    pids = [pid for one in victims for pid in one.pids]
    cpu = victims[0].cpu
    if not pids or cpu is None:
        yield
        return
    before = run_in_child(place, pids, {cpu})
    try:
        yield
    finally:
        run_in_child(place, pids, before)


def measure(
    name: str, victim: Victim, *, group: stressors.Group | None = None, so_far: Watcher | None = None
) -> Measured:
    """Have one victim answer its requests, in `group` if there is one; return how late it was for each."""
    [measured] = measure_together(name, [victim], group=group, so_far=so_far)
    return measured


def measure_together(
    name: str, victims: Sequence[Victim], *, group: stressors.Group | None = None, so_far: Watcher | None = None
) -> tuple[Measured, ...]:
    """The same for several at the same time."""
    with temporary.Folder(_memory_folder()) as folder, spawn(int) as child:
        shared = [Path(folder, f"latencies-{number}") for number in range(len(victims))]
        for file, one in zip(shared, victims, strict=True):
            file.write_bytes(bytes(8 * one.requests))
        if group is not None:
            group.add(child.pid)
        if so_far is not None:
            so_far.begin(name, shared)
        child.call(serve_together, [str(file) for file in shared], victims)
        return tuple(Measured.read(name, file) for file in shared)


def _memory_folder() -> str | None:
    """Where files lie in memory, so that a disk that is busy does not disturb the measuring."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
