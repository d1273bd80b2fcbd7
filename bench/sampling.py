"""Measuring several ways of doing the same, fairly: in turn, in another order each round, from one calling process."""

import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

CALLER_MIB = 300
CALLER_THREADS = 7
REFERENCE = "crun"  # what ratios are to
_PAUSE_S = 0.005


class Sample(NamedTuple):
    """What one go took: seconds on the clock, and seconds of CPU of all processes involved where that is known."""

    wall_s: float
    cpu_s: float | None = None


@dataclass(frozen=True)
class Row:
    """One way, measured: the median and the quartiles around it. `at` is how many containers at a time, or already
    running; `note` says why there are no figures, or what they hold."""

    benchmark: str
    way: str
    unit: str
    median: float | None = None
    low: float | None = None
    high: float | None = None
    cpu_ms: float | None = None
    ratio_to_crun: float | None = None
    at: int | None = None
    note: str = ""


Way = Callable[[int], Sample]
K = TypeVar("K")  # what tells the ways of one run apart


def interleaved(ways: Mapping[K, Way], rounds: int) -> dict[K, list[Sample]]:
    """Go each way once a round, `rounds` times. What one leaves the kernel to clean up must not be charged to the
    next: the order is another one each round, and there is a short pause between two."""
    samples: dict[K, list[Sample]] = {name: [] for name in ways}
    order, shuffle = list(ways), random.Random(1).shuffle
    for number in range(rounds):
        shuffle(order)
        for name in order:
            time.sleep(_PAUSE_S)
            samples[name].append(ways[name](number))
    return samples


def tried(ways: Mapping[K, Way]) -> tuple[dict[K, Way], dict[K, str]]:
    """The ways that work here, each gone once, uncounted; and why the others do not."""
    working: dict[K, Way] = {}
    why: dict[K, str] = {}
    for name, way in ways.items():
        try:
            way(-1)
            working[name] = way
        except RuntimeError as error:
            why[name] = str(error)
    return working, why


def row(
    benchmark: str, way: str, samples: Sequence[Sample], crun: Sequence[Sample] | None, at: int | None = None
) -> Row:
    """A row of milliseconds; the ratio is the median of the ratios round by round."""
    walls = [sample.wall_s * 1e3 for sample in samples]
    cpus = [sample.cpu_s * 1e3 for sample in samples if sample.cpu_s is not None]
    ratio = None
    if crun:
        ratio = round(statistics.median(a.wall_s / b.wall_s for a, b in zip(samples, crun, strict=True)), 3)
    low, median, high = quartiles(walls)
    cpu = round(statistics.median(cpus), 2) if cpus else None
    return Row(benchmark, way, "ms", median, low, high, cpu, ratio, at)


def quartiles(values: Sequence[float], digits: int = 2) -> tuple[float, float, float]:
    """The first quartile, the median and the third."""
    if len(values) < 2:
        return round(values[0], digits), round(values[0], digits), round(values[0], digits)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return round(low, digits), round(median, digits), round(high, digits)


@contextmanager
def large_caller(mebibytes: int = CALLER_MIB) -> Iterator[None]:
    """Make the calling process as large as a Jupyter kernel, with as many threads."""
    stop = threading.Event()
    for _ in range(CALLER_THREADS - threading.active_count()):
        threading.Thread(target=stop.wait, daemon=True).start()
    ballast = filled(mebibytes)
    try:
        yield
    finally:
        stop.set()
        del ballast


def filled(mebibytes: int) -> bytearray:
    """So much memory, every page of it touched, so that it is really there."""
    memory = bytearray(mebibytes << 20)
    for page in range(0, len(memory), 4096):
        memory[page] = 1
    return memory
