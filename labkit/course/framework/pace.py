"""How slow this machine is at the moment, so that time limits measure a learner's code and not the machine.

A check is about processes, so its measure is the start of one. Where that takes longer than on an idle machine (others
compute beside it, or the kernel is one of a virtual machine), every limit of the check is longer in proportion.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from labkit.errors import LabkitError
from labkit.process import run_in_child

QUICK_SECONDS = 0.05  #: to start a child and wait for it: what an idle machine does not need
MOST = 5.0  #: by which limits grow at most
_factor = 1.0


def measure() -> float:
    """By how much limits must grow at this moment, from 1.0 to `MOST`; 1.0 where no child can be started at all."""
    taken = []
    try:
        for _ in range(2):  # the first may start the lab host, or come just when something else does
            begun = time.monotonic()
            run_in_child(_nothing)
            taken.append(time.monotonic() - begun)
    except LabkitError:
        return 1.0
    return min(max(min(taken) / QUICK_SECONDS, 1.0), MOST)


@contextmanager
def measured() -> Iterator[float]:
    """Measure now; in the body `scaled` gives limits by that."""
    global _factor
    before, _factor = _factor, measure()
    try:
        yield _factor
    finally:
        _factor = before


def scaled(seconds: float) -> float:
    """The limit that a check has in place of `seconds`, for the process that checks; children are told."""
    return seconds * _factor


def _nothing() -> None:
    pass
