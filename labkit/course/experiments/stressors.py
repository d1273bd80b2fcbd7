"""Noisy neighbours: programs that use up what a machine has, bounded in number, in size and in time.

======  ====================================  =================================================
kind    what it does                          its bounds
======  ====================================  =================================================
cpu     counts for ever                       so many processes, all on one CPU
memory  writes page after page                so many MiB, and at most a quarter of what is free
disk    writes a file and waits for the disk  a file of so many MiB, written over and over
forks   every process makes two more          so many processes in all, ever
======  ====================================  =================================================

Each ends at the latest after `seconds`, whatever happens to the notebook, and with `Neighbours.end()`. The CPU is the
same for all (`cpu`), so that a machine with many does not hide what is to be seen, and stays usable meanwhile.
"""

import errno
import mmap
import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, Self

from labkit import constants as c
from labkit import procfs, syscalls
from labkit.errors import ChildDied, InvalidConfig
from labkit.process import Child, spawn
from labkit.process.stdio import readable

PROCESSES_MAX = 64
FORKS_MAX = 500
MEMORY_MAX_MIB = 2048
DISK_MAX_MIB = 256
SECONDS_MAX = 300
KILL_SECONDS = 10


class Group(Protocol):
    """What is needed of a control group (`labkit.cgroups.Cgroup`)."""

    @property
    def frozen(self) -> bool:
        """Whether its processes are stopped."""

    def add(self, pid: int, /) -> None:
        """Move a process into it; its later children are born there."""


@dataclass(frozen=True)
class Hog:
    """One kind of neighbour: `processes` processes that each call `fn(*arguments)`."""

    kind: str
    processes: int
    fn: Callable[..., object]
    arguments: tuple[Any, ...] = ()


def cpu(processes: int = 8) -> Hog:
    """`processes` that only count. Eight beside one victim leave it a ninth of the CPU."""
    return Hog("cpu", _within(processes, PROCESSES_MAX, "processes"), _count)


def memory(mib: int = 256) -> Hog:
    """One process that writes to `mib` MiB of memory, again and again."""
    return Hog("memory", 1, _remember, (_within(mib, MEMORY_MAX_MIB, "MiB of memory"),))


def disk(mib: int = 32, folder: str | None = None) -> Hog:
    """One process that writes `mib` MiB to a file and has them written to the disk, again and again."""
    return Hog("disk", 1, _store, (_within(mib, DISK_MAX_MIB, "MiB of disk"), folder))


def fork_bomb(processes: int = 100) -> Hog:
    """A process that becomes two, which become four, until there have been `processes`; all of them count."""
    return Hog("forks", 1, explode, (_within(processes, FORKS_MAX, "processes"),))


def _within(number: int, most: int, what: str) -> int:
    if not 1 <= number <= most:
        raise InvalidConfig(f"a neighbour may have from 1 to {most} {what}, not {number}")
    return number


class Neighbours:
    """Hogs that run from the moment this is made until `end()`, or until the `with` statement is left."""

    def __init__(self, *hogs: Hog, group: Group | None = None, seconds: float = 60, cpu: int | None = None) -> None:
        """Start them: in `group` where one is given, and on CPU number `cpu` alone where one is given."""
        if not 0 < seconds <= SECONDS_MAX:
            raise InvalidConfig(f"neighbours may stay for up to {SECONDS_MAX} seconds, not {seconds:g}")
        self._group = group
        self._holders: list[Child] = []
        try:
            for hog in hogs:
                for _ in range(hog.processes):
                    self._start(hog, seconds, cpu)
        except BaseException:
            self.end()
            raise

    def _start(self, hog: Hog, seconds: float, cpu: int | None) -> None:
        # A child of its own for each: a session each, so that a kernel that shares the CPU by sessions (autogroup)
        # takes each for a neighbour. The child only holds the hog, its fork, which is born in the group.
        holder = spawn(_hold)
        self._holders.append(holder)
        if self._group is not None:
            self._group.add(holder.pid)
        holder.call(_begin, hog.fn, hog.arguments, seconds, cpu)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that hold the hogs, which are children of theirs."""
        return tuple(holder.pid for holder in self._holders)

    def end(self) -> None:
        """End them all, with all that they have started. Twice is as good as once."""
        frozen = self._group is not None and self._group.frozen
        while self._holders:
            holder = self._holders.pop()
            if frozen:  # it takes no calls, but it can be killed
                _kill_below(holder.pid)
            else:
                with suppress(ChildDied):
                    holder.call(_end_all)
            holder.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def _kill_below(pid: int) -> None:
    """Kill what is below a process that is frozen with all of it, so that none can be added; wait until all ended.

    Otherwise they would end a moment after their holder, and their group could not be removed meanwhile.
    """
    pidfds: list[int] = []
    try:
        for below in procfs.descendants(pid):
            with suppress(ProcessLookupError):
                pidfds.append(syscalls.pidfd_open(below))
        for pidfd in pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        for pidfd in pidfds:
            readable(pidfd, KILL_SECONDS)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


# In the children


def _hold() -> None:
    syscalls.prctl(c.PR_SET_CHILD_SUBREAPER, 1)  # whatever a hog starts stays below its holder


def _begin(fn: Callable[..., object], arguments: tuple[Any, ...], seconds: float, cpu: int | None) -> None:
    if os.fork():
        return
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM, whose default is to end the process
        pin(cpu)
        fn(*arguments)
    finally:
        os._exit(0)


def _end_all() -> None:
    """Kill every child, and every child's child, which falls to us as we are its subreaper."""
    with suppress(ChildProcessError):
        while True:
            for pid in procfs.children(os.getpid()):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(-1, 0)


def pin(cpu: int | None) -> None:
    """Have the calling process run on CPU number `cpu` alone; None, or a CPU that it may not use: as before."""
    if cpu is not None:
        with suppress(OSError):
            os.sched_setaffinity(0, {cpu})


def _count() -> None:
    number = 0
    while True:
        number += 1


def _remember(mib: int) -> None:
    block = bytes(1 << 20)
    with _pages(mib) as pages:
        while True:
            for offset in range(0, len(pages) - len(block) + 1, len(block)):
                pages[offset : offset + len(block)] = block


def write_to(mib: int) -> None:
    """Write to every page of `mib` MiB of memory, once; it is given back."""
    with _pages(mib) as pages:
        for offset in range(0, len(pages), mmap.PAGESIZE):
            pages[offset] = 1


def _pages(mib: int) -> mmap.mmap:
    return mmap.mmap(-1, min(mib << 20, free_bytes() // 4))


def free_bytes() -> int:
    """How much memory a new program can have without anything being swapped out."""
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":") for line in file)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _store(mib: int, folder: str | None) -> None:
    block = os.urandom(1 << 20)
    with tempfile.TemporaryFile(dir=folder) as file:  # it has no name, so that nothing of it can be left
        while True:
            file.seek(0)
            for _ in range(mib):
                try:
                    file.write(block)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
            file.flush()
            os.fsync(file.fileno())


def explode(processes: int) -> None:
    """Fork and fork again, but only for a token: there are `processes` of them in a pipe, and none is put back."""
    tokens, filler = os.pipe2(os.O_NONBLOCK)
    os.write(filler, bytes(processes))
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    while True:
        with suppress(OSError):  # EAGAIN: no token is left, or a limit on processes (pids.max) is reached
            if os.read(tokens, 1) and os.fork() == 0:
                signal.setitimer(signal.ITIMER_REAL, left)  # a child's own timer is not inherited
                os.setsid()  # a neighbour of its own, where the CPU is shared by sessions
        for _ in range(10_000):
            pass
