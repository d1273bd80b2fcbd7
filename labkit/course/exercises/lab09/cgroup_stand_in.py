"""A quarter of the lab host's tree of control groups, for one check: what goes wrong in it hurts nobody else.

It is a group with every controller the lab host has, of which none is handed on yet. The learner's function finds it
below /sys/fs/cgroup; the check looks at the same group from outside the lab host. Leaving the `with` statement kills
what is in it and removes it.
"""

import select
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from labkit import cgroups, procfs
from labkit.course.experiments import stressors
from labkit.course.framework import pace
from labkit.process import Child

MOUNT = "/sys/fs/cgroup"
_LOOK_SECONDS = 0.02


class Quarter:
    """The group `name`, made at the top of the lab host's tree. `Unsupported`: this machine has no such tree."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"{MOUNT}/{name}"  #: as a function on the lab host finds it

    def __enter__(self) -> Self:
        if lack := cgroups.unsupported():
            raise lack
        self._group = cgroups.create(self.name)
        self.outside = Path(self._group.path)
        return self

    def __exit__(self, *_: object) -> None:
        self._group.kill()
        self._group.remove()

    def make(self, name: str, controllers: tuple[str, ...], **limits: object) -> str:
        """Make a group in it, hand `controllers` on to it, write `limits` (`pids_max=...`); return its path."""
        for controller in controllers:
            cgroups.write(f"{self.outside}/cgroup.subtree_control", f"+{controller}")
        (self.outside / name).mkdir()
        for file, value in limits.items():
            cgroups.write(f"{self.outside}/{name}/{file.replace('_', '.')}", f"{value}")
        return f"{self.path}/{name}"

    def below(self) -> list[str]:
        """The names of the groups right below it."""
        return [group.name.rpartition("/")[2] for group in self._group.children()]

    def joined(self, name: str) -> cgroups.Cgroup:
        """The group `name` in it."""
        return cgroups.find(f"{self.name}/{name}")


def read(folder: Path, file: str) -> str:
    """What a file of a group says; empty where there is no such file."""
    try:
        return Path(folder, file).read_text().strip()
    except (FileNotFoundError, PermissionError):
        return ""


def count(folder: Path, file: str, key: str) -> int:
    """One number of a file of lines `key number`; 0 where there is none."""
    for line in read(folder, file).splitlines():
        if line.split()[0] == key:
            return int(line.split()[1])
    return 0


def processes(folder: Path) -> list[int]:
    """The PIDs of the processes in a group."""
    return [int(word) for word in read(folder, "cgroup.procs").split()]


def group_of(pid: int) -> str:
    """The v2 group of a process, as this process names it; empty where the process is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            if line.startswith("0::"):
                return line[3:]
    return ""


def until(condition: Callable[[], Any], seconds: float, fd: int | None = None) -> bool:
    """Whether `condition` comes true within `seconds`; a descriptor that wakes us up earlier may be given."""
    deadline = time.monotonic() + pace.scaled(seconds)
    poll = select.poll()
    if fd is not None:
        poll.register(fd, select.POLLIN)
    while not condition():
        if time.monotonic() > deadline:
            return False
        poll.poll(_LOOK_SECONDS * 1000)
    return True


def switches(pid: int) -> int:
    """How often a process has been given the CPU after it had waited for something, or had been made to wait."""
    status = procfs.status(str(pid))
    return int(status["voluntary_ctxt_switches"]) + int(status["nonvoluntary_ctxt_switches"])


def use_memory(child: Child, mib: int) -> int:
    """Have a child write to `mib` MiB; return the exit code with which that ended it (137: killed), or 0."""
    with suppress(Exception):
        child.call(stressors.write_to, mib)
        return 0
    return child.wait(pace.scaled(10))
