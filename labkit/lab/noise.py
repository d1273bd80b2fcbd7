"""The noisy-neighbour experiment: how long do requests take, and what do neighbours do to that?

A *victim* gets requests on a fixed schedule, one every `interval_msec`, and does a small piece of work for each. What
is measured is the time from the moment at which a request was *due* to the moment at which it was answered. So a victim
that falls behind is late for every request that waits meanwhile, as a server's users would see it. A loop that asks
only after it has been answered would leave exactly those out ("coordinated omission").

    phases = [Phase("alone"), Phase("beside 8 busy processes", (hogs.cpu(8),))]
    result = experiment(phases)            # draws it while it goes on
    result["alone"].percentile(99)         # ms
"""

import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import temporary
from labkit.errors import InvalidConfig
from labkit.lab import hogs, show
from labkit.process import run_in_child, spawn

if TYPE_CHECKING:
    from labkit.lab.views.noise_view import NoiseView

PERCENTILES = (50, 95, 99)
REQUESTS_MAX = 2000
PATIENCE = 3  # a victim that has not answered all after so many times the schedule's length is stopped


@dataclass(frozen=True)
class Victim:
    """What is asked of the victim: `requests` times, one every `interval_msec`, `work` of size `amount`, on `cpu`."""

    work: str = "compute"  #: "compute": additions; "store": bytes that are written to the disk
    amount: int = 20_000
    requests: int = 100
    interval_msec: float = 20.0
    cpu: int | None = None

    def __post_init__(self) -> None:
        if self.work not in WORK:
            raise InvalidConfig(f"there is no work called {self.work!r}, only {' and '.join(WORK)}")
        if not 1 <= self.requests <= REQUESTS_MAX or self.interval_msec <= 0 or self.amount < 1:
            raise InvalidConfig(f"a victim takes from 1 to {REQUESTS_MAX} requests, at an interval above 0 ms")

    @property
    def seconds(self) -> float:
        """How long its schedule is."""
        return self.requests * self.interval_msec / 1000


@dataclass(frozen=True)
class Measured:
    """One phase: how late each answer was, in the order in which the requests were due.

    The last `unanswered` were still waiting when the victim was stopped; theirs is how long they had waited by then.
    """

    name: str
    latencies_msec: tuple[float, ...]
    unanswered: int = 0

    def percentile(self, percent: float) -> float:
        """The latency that `percent` of the requests do not exceed, in ms. `ValueError`: nothing was measured."""
        return percentile(self.latencies_msec, percent)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest of `samples` that at least `percent` per cent of them do not exceed ("nearest rank")."""
    if not samples or not 0 < percent <= 100:
        raise ValueError("a percentile takes one sample at least, and a percentage above 0 and up to 100")
    return sorted(samples)[max(0, -int(-len(samples) * percent // 100) - 1)]


@dataclass(frozen=True)
class Result:
    """What an experiment has found: the victim, and one measurement for each phase."""

    victim: Victim
    phases: tuple[Measured, ...]

    def __getitem__(self, name: str) -> Measured:
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise KeyError(f"no phase {name!r}; there are: {', '.join(phase.name for phase in self.phases)}")

    def as_text(self) -> str:
        """The figures as a table of lines."""
        wide = max([len(phase.name) for phase in self.phases], default=0)
        lines = [f"{'latency in ms':<{wide}}" + "".join(f"{f'p{percent}':>10}" for percent in PERCENTILES)]
        for phase in self.phases:
            figures = "".join(f"{phase.percentile(percent):>10.1f}" for percent in PERCENTILES)
            late = f"   {phase.unanswered} of {len(phase.latencies_msec)} never answered" if phase.unanswered else ""
            lines.append(f"{phase.name:<{wide}}{figures}{late}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<experiment: {', '.join(phase.name for phase in self.phases)}>"


@dataclass(frozen=True)
class Phase:
    """One phase of an experiment: who runs beside the victim, and in which groups they and the victim are."""

    name: str
    neighbours: tuple[hogs.Hog, ...] = ()
    group: hogs.Group | None = None  #: of the neighbours
    victim_group: hogs.Group | None = None


def victim(work: str = "compute", *, requests: int = 100, interval_msec: float = 20.0, load: float = 0.2) -> Victim:
    """A victim that fits this machine: alone, it is at work for `load` of the time.

    Use the same one for all that is to be compared.
    """
    cpu = max(os.sched_getaffinity(0))
    if work == "store":
        return Victim("store", 4096, requests, interval_msec, cpu)
    rate = run_in_child(_additions_per_msec, cpu)
    return Victim(work, max(1, int(rate * interval_msec * load)), requests, interval_msec, cpu)


def measure(
    name: str, victim: Victim, *, group: hogs.Group | None = None, so_far: "NoiseView | None" = None
) -> Measured:
    """Have the victim answer its requests, in `group` if there is one; return how late it was for each."""
    with temporary.Folder(_memory_folder()) as folder, spawn(int) as child:
        shared = Path(folder, "latencies")
        shared.write_bytes(bytes(8 * victim.requests))
        if group is not None:
            group.add(child.pid)
        if so_far is not None:
            so_far.begin(name, shared)
        unanswered = child.call(_serve, str(shared), victim)
        return Measured(name, tuple(read(shared)), unanswered)


def read(shared: Path) -> list[float]:
    """The latencies that a victim has written so far."""
    data = shared.read_bytes()
    return [value for value in memoryview(data).cast("d") if value > 0]


def experiment(phases: Sequence[Phase], of: Victim | None = None, *, title: str = "How long a request takes") -> Result:
    """Go through the phases, one after the other, and draw what is found as it is found."""
    from labkit.lab.views.noise_view import NoiseView

    if len({phase.name for phase in phases}) != len(phases) or not phases:
        raise InvalidConfig("an experiment has one phase at least, and each has a name of its own")
    measured: list[Measured] = []
    subject = of or victim()
    with NoiseView(subject, [phase.name for phase in phases], title=title) as view:
        if show.in_notebook():
            view.show()
        for phase in phases:
            limit = subject.seconds * PATIENCE + 10
            with hogs.Neighbours(*phase.neighbours, group=phase.group, seconds=limit, cpu=subject.cpu):
                measured.append(measure(phase.name, subject, group=phase.victim_group, so_far=view))
            view.finish(measured[-1])
        if not show.in_notebook():
            view.show()
        return Result(subject, tuple(measured))


def _memory_folder() -> str | None:
    """Where files lie in memory, so that a disk that is busy does not disturb the measuring."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


# In the victim's process


def _compute(amount: int) -> None:
    number = 0
    for _ in range(amount):
        number += amount


def _store(amount: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(amount))
        file.flush()
        os.fsync(file.fileno())


WORK = {"compute": _compute, "store": _store}


def _additions_per_msec(cpu: int) -> float:
    """How many additions this CPU makes in a millisecond: the median of some tries, so as the machine is now."""
    hogs.pin(cpu)
    tries = []
    for _ in range(25):
        began = time.monotonic()
        _compute(20_000)
        tries.append(20_000 / (time.monotonic() - began) / 1000)
    return statistics.median(tries)


def _serve(shared: str, victim: Victim) -> int:
    """Answer the requests on schedule; write each latency to the file `shared`; return how many got no answer."""
    hogs.pin(victim.cpu)
    work, interval = WORK[victim.work], victim.interval_msec / 1000
    with open(shared, "r+b") as file, mmap.mmap(file.fileno(), 0) as pages, memoryview(pages).cast("d") as latencies:
        work(victim.amount)  # the first time takes longer, with nobody to blame
        begin = time.monotonic() + interval
        stop = begin + victim.seconds * PATIENCE
        for number in range(victim.requests):
            due = begin + number * interval
            if (early := due - time.monotonic()) > 0:
                time.sleep(early)
            work(victim.amount)
            now = time.monotonic()
            latencies[number] = (now - due) * 1000
            if now > stop:
                break
        unanswered = victim.requests - number - 1
        for waiting in range(number + 1, victim.requests):
            latencies[waiting] = (now - (begin + waiting * interval)) * 1000
    return unanswered
