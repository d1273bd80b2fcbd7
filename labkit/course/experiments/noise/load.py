"""The victim: what is asked of it, and how its answers are timed.

A victim either does a piece of work itself ("compute", "store"), or is a server, of which a client asks something. In
both cases there is a *schedule*: one request every `interval_msec`, whether the one before has been answered or not,
and the time of each runs from the moment at which it was due. Requests are made one after the other, so that one that
is late delays those behind it, as in the queue before a counter.

The latencies go to a file of doubles in memory, which a figure reads meanwhile: 0 for a request still to come, its
latency in ms once it is answered, and below 0 for one that got no answer.
"""

import math
import mmap
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from labkit import procfs
from labkit.course.experiments import stressors
from labkit.errors import InvalidConfig
from labkit.process import run_in_child

REQUESTS_MAX = 2000
PATIENCE = 3  # a victim that has not answered all after so many times the schedule's length is stopped


def _compute(amount: int) -> None:
    number = 0
    for _ in range(amount):
        number += amount


def _store(amount: int) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(amount))
        file.flush()
        os.fsync(file.fileno())


WORK: dict[str, Callable[[int], object]] = {"compute": _compute, "store": _store}


@dataclass(frozen=True)
class Victim:
    """What is asked of whom: `requests` times, one every `interval_msec`.

    `cpu` is where the victim works, and its neighbours beside it.
    """

    work: str = "compute"  #: "compute": additions; "store": bytes that are written to the disk; else a server's name
    amount: int = 20_000  #: of additions or bytes
    requests: int = 100
    interval_msec: float = 20.0
    cpu: int | None = None
    ask: Callable[[], object] | None = None  #: one request to a server; it raises where there is no good answer
    pids: tuple[int, ...] = ()  #: the server's processes; those below them belong to it too

    def __post_init__(self) -> None:
        if not 1 <= self.requests <= REQUESTS_MAX or self.interval_msec <= 0 or self.amount < 1:
            raise InvalidConfig(f"a victim takes from 1 to {REQUESTS_MAX} requests, at an interval above 0 ms")

    @property
    def seconds(self) -> float:
        """How long its schedule is."""
        return self.requests * self.interval_msec / 1000

    def request(self) -> None:
        """Make one request, and wait for its answer. Raises what the client raises."""
        if self.ask is not None:
            self.ask()
        elif self.work in WORK:
            WORK[self.work](self.amount)
        else:
            raise InvalidConfig(
                f"there is no work called {self.work!r}, only {' and '.join(WORK)}, and no server given"
            )


def victim(work: str = "compute", *, requests: int = 100, interval_msec: float = 20.0, load: float = 0.2) -> Victim:
    """A victim that fits this machine: alone, it is at work for `load` of the time.

    Use the same one for all that is to be compared.
    """
    cpu = max(os.sched_getaffinity(0))
    if work == "store":
        return Victim("store", 4096, requests, interval_msec, cpu)
    rate = run_in_child(_additions_per_msec, cpu)
    return Victim(work, max(1, int(rate * interval_msec * load)), requests, interval_msec, cpu)


def server(
    name: str,
    ask: Callable[[], object],
    pids: Sequence[int] = (),
    *,
    requests: int = 200,
    interval_msec: float = 30.0,
) -> Victim:
    """A server as a victim: `ask` makes one request of it, in a process of its own, and `pids` are the server's.

    While an experiment goes on the server runs on one CPU, that of its neighbours; who asks is on another, where the
    machine has one, so that it is the server that suffers and not the asking.
    """
    return Victim(name, 1, requests, interval_msec, max(os.sched_getaffinity(0)), ask, tuple(pids))


def _additions_per_msec(cpu: int) -> float:
    """How many additions this CPU makes in a millisecond: the median of some tries, so as the machine is now."""
    stressors.pin(cpu)
    tries = []
    for _ in range(25):
        began = time.monotonic()
        _compute(20_000)
        tries.append(20_000 / (time.monotonic() - began) / 1000)
    return statistics.median(tries)


# On the lab host


class _TimeUp(BaseException):
    """Not an Exception, so that no client keeps it."""


def serve_together(files: Sequence[str], victims: Sequence[Victim]) -> None:
    """Have all victims answer at the same time, each in a process of its own with a file of its own for latencies."""
    pids = []
    for number, (file, one) in enumerate(zip(files, victims, strict=True)):
        if pid := os.fork():
            pids.append(pid)
            continue
        try:
            serve(file, one, offset=number / len(victims))
        finally:
            os._exit(0)
    for pid in pids:
        os.waitpid(pid, 0)


def serve(file: str, victim: Victim, offset: float = 0.0) -> None:
    """Make the requests on schedule; write each latency to `file`.

    The schedule keeps to multiples of the interval, and `offset` of one: so those of several victims do not coincide.
    """
    interval = victim.interval_msec / 1000
    _take_place(victim)
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as pages, memoryview(pages).cast("d") as latencies:
        with suppress(Exception):  # should it always fail, that will be seen
            victim.request()  # the first time takes longer, with nobody to blame
        begin = (math.floor(time.monotonic() / interval) + 1 + offset) * interval
        stop = begin + victim.seconds * PATIENCE
        failed: list[int] = []
        number, now = 0, begin
        with _patience(stop - time.monotonic()):
            while number < victim.requests and now <= stop:
                due = begin + number * interval
                if (early := due - time.monotonic()) > 0:
                    time.sleep(early)
                try:
                    victim.request()
                except Exception:
                    failed.append(number)
                now = time.monotonic()
                latencies[number] = (due - now if number in failed[-1:] else now - due) * 1000
                number += 1
        now = time.monotonic()
        for place in (*failed, *range(number, victim.requests)):
            latencies[place] = (begin + place * interval - now) * 1000


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Break off what is done under it after `seconds`, even in the middle of a wait for an answer."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise _TimeUp

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    with suppress(_TimeUp):
        yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def _take_place(victim: Victim) -> None:
    """Run where the victim works; who only asks a server, anywhere else."""
    if victim.ask is None:
        stressors.pin(victim.cpu)
    elif others := os.sched_getaffinity(0) - {victim.cpu}:
        with suppress(OSError):
            os.sched_setaffinity(0, others)


def place(pids: Sequence[int], cpus: dict[int, set[int]] | set[int]) -> dict[int, set[int]]:
    """Have processes, and all below them, run on `cpus` alone; return where each of `pids` ran before.

    Given what it returned, it puts them back. One that has ended, or may not be moved, is left out.
    """
    before = {}
    for pid in pids:
        with suppress(OSError):
            before[pid] = os.sched_getaffinity(pid)
            wanted = cpus.get(pid, before[pid]) if isinstance(cpus, dict) else cpus
            for one in (pid, *procfs.descendants(pid)):
                for thread in os.listdir(f"/proc/{one}/task"):
                    with suppress(OSError):
                        os.sched_setaffinity(int(thread), wanted)
    return before
