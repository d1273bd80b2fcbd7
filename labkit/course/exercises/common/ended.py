"""End what a learner's function has left running, so that what works afterwards is the kernel's doing alone."""

import os
import signal
import time
from contextlib import suppress

from labkit import host, procfs
from labkit.course.framework import pace
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.time_limit import kill, on_the_lab_host

_SECONDS = 2.0


def running() -> set[int]:
    """The processes that a function on the lab host may have begun, and others, but none that has ended.

    In a room these are all that are in it: nothing begins there meanwhile but what the function has begun.
    """
    pids = {int(one) for one in os.listdir("/proc") if one.isdigit()} if Exercise.in_room else on_the_lab_host()
    return {pid for pid in pids if not _has_ended(pid)}


def _has_ended(pid: int) -> bool:
    with suppress(ProcessLookupError):
        return procfs.stat(pid)[2] in ("Z", "X")
    return True


def all_but(before: set[int]) -> None:
    """End all processes that were not `running()` before. One that is killed may just have forked, so ask again."""
    deadline = time.monotonic() + pace.scaled(_SECONDS)
    while (left := running() - before) and time.monotonic() < deadline:
        kill(left)
        time.sleep(0.01)


def still(pids: list[int]) -> None:
    """Stop processes that only hold a namespace, in case somebody has made them do something else.

    A signal is sent at once, and stops its process when that has its turn: wait for that.
    """
    held = [*pids, *([host.pid()] if Exercise.in_room else [])]
    for pid in held:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + pace.scaled(_SECONDS)
    while any(_runs(pid) for pid in held) and time.monotonic() < deadline:
        time.sleep(0.001)


def _runs(pid: int) -> bool:
    with suppress(ProcessLookupError):
        return procfs.stat(pid)[2] not in ("T", "Z", "X")
    return False
