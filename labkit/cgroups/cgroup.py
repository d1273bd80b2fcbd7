"""Control groups, version 2: trees of processes that are counted, limited, frozen and killed together.

::

    with cgroups.create("small", Limits(memory_max_bytes=64 << 20, pids_max=20)) as group:
        group.add(child.pid)
        group.stats().memory_current_bytes

Here a group is a folder, wherever it lies; `below_host` has those of the lab host. Sources: cgroups(7),
Documentation/admin-guide/cgroup-v2.rst.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from typing import Self

from labkit.cgroups.events import Pressure, Watch
from labkit.cgroups.limits import Limits
from labkit.cgroups.stats import Stats
from labkit.cgroups.stats import read as read_stats
from labkit.errors import InvalidConfig, Unsupported
from labkit.explain import cgroup as cgroup_errors
from labkit.kernel import cgroupfs

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_FILES = ("cgroup", "cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma", "misc", "irq", "debug", "perf_event")
_TIMEOUT_S = 10.0


class Cgroup:
    """A control group. As a context manager it is removed, with all its processes and groups below, on leaving."""

    def __init__(self, top: str, name: str) -> None:
        """`top` is the folder of a group as the caller sees it, `name` the path below; `make` makes one."""
        self.name = name
        self._top = top
        self.path = f"{top}/{name}"  #: its folder, as the calling process sees it

    @classmethod
    def make(cls, top: str, name: str, limits: Limits | None = None) -> Self:
        """Make the group `name` below `top`, with `limits`, or leave nothing. `InvalidConfig`: there is one already."""
        group = cls(top, name)
        try:
            os.mkdir(group.path)
        except FileExistsError:
            raise InvalidConfig(f"there is a control group {group.name!r} already; cgroups.find() has it") from None
        except OSError as error:
            raise cgroup_errors.explained(error, group.path) from None
        if limits:
            try:
                group.set(limits)
            except BaseException:
                os.rmdir(group.path)
                raise
        return group

    def child(self, name: str, limits: Limits | None = None) -> Self:
        """Make the group `name` below this one, and hand on to it every controller that this one has.

        EBUSY, with a note: this group holds processes, and only a group without may hand controllers on.
        """
        enabled = cgroupfs.words(f"{self.path}/cgroup.subtree_control")
        missing = [f"+{name}" for name in cgroupfs.words(f"{self.path}/cgroup.controllers") if name not in enabled]
        if missing and self.processes():
            # The kernel lets "+cpu" alone pass and makes it a tree of threads, in which memory cannot be limited.
            raise cgroup_errors.explained(OSError(errno.EBUSY, ""), f"{self.path}/cgroup.subtree_control")
        if missing:
            write(f"{self.path}/cgroup.subtree_control", " ".join(missing))
        return self.make(self._top, f"{self.name}/{check_name(name)}", limits)

    def set(self, limits: Limits) -> None:
        """Change its limits; what `limits` leaves as None stays. Takes effect at once, for what runs in it too."""
        for file, text in limits.files().items():
            for line in text.split("\n"):
                self._set(file, line)

    def _set(self, file: str, text: str) -> None:
        try:
            write(f"{self.path}/{file}", text)
        except OSError as error:
            why = " ".join(getattr(error, "__notes__", [])) or error.strerror or ""
            if error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EOPNOTSUPP):
                raise Unsupported(f"{file} cannot be set in the group {self.name}", why) from None
            raise InvalidConfig(f"{file} cannot be {text!r} in the group {self.name}: {why}") from None

    def open(self) -> int:
        """A descriptor of its folder, which the caller closes: for CLONE_INTO_CGROUP, clone3(2)."""
        return os.open(self.path, cgroupfs.DIRECTORY)

    def add(self, pid: int) -> None:
        """Move process `pid`, with all its threads, into this group. What it has used so far stays where it was."""
        write(f"{self.path}/cgroup.procs", str(pid))

    def processes(self) -> list[int]:
        """The PIDs of the processes in this group itself, without those in groups below; ascending."""
        with open(f"{self.path}/cgroup.procs") as file:
            return sorted({int(line) for line in file})

    def children(self) -> list["Cgroup"]:
        """The groups right below it, by name."""
        with os.scandir(self.path) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        return [Cgroup(self._top, f"{self.name}/{name}") for name in names]

    def stats(self) -> Stats:
        """What it and all groups below have used and met so far."""
        return read_stats(self.path)

    def watch(self, *pressure: Pressure) -> Watch:
        """Wait for what happens to it without asking again and again: see `Watch`, which is to be closed."""
        return Watch(self.path, pressure)

    @property
    def frozen(self) -> bool:
        """Whether every process in it and below is stopped by `freeze`, here or in a group above."""
        return "frozen 1" in self._lines("cgroup.events")

    @property
    def populated(self) -> bool:
        """Whether a process lives in it or below."""
        return "populated 1" in self._lines("cgroup.events")

    def freeze(self) -> None:
        """Stop every process in it and below; return when all have stopped. They cannot notice, but by the clock."""
        write(f"{self.path}/cgroup.freeze", "1")
        self._wait_for("frozen 1")

    def thaw(self) -> None:
        """Let them go on; return when they do."""
        write(f"{self.path}/cgroup.freeze", "0")
        self._wait_for("frozen 0")

    def kill(self) -> None:
        """Kill every process in it and below, even one that forks faster than it could be found; wait for the end."""
        try:
            write(f"{self.path}/cgroup.kill", "1")
        except FileNotFoundError:  # before Linux 5.14
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)
            with _directory(self.path) as fd:
                cgroupfs.kill(fd)
        self._wait_for("populated 0")

    def remove(self) -> None:
        """Remove it and all groups below. EBUSY, with a note: processes are in them; `kill` first."""
        with contextlib.suppress(FileNotFoundError), _directory(os.path.dirname(self.path)) as parent:
            try:
                cgroupfs.remove(parent, os.path.basename(self.path))
            except OSError as error:
                raise cgroup_errors.explained(error, self.path) from None

    def delegate(self, uid: int, gid: int) -> None:
        """Give it to an ordinary user, who may then make groups below, and not change its own limits.

        cgroup-v2.rst, "Model of Delegation": the user owns the folder and the files that move processes and hand on
        controllers. EPERM: only root may give files away.
        """
        for name in ("", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"):
            os.chown(self.path + name, uid, gid)

    def _lines(self, file: str) -> list[str]:
        with open(f"{self.path}/{file}") as opened:
            return opened.read().splitlines()

    def _wait_for(self, line: str) -> None:
        with _directory(self.path) as fd:
            if not cgroupfs.wait_for_event(fd, line, _TIMEOUT_S):
                raise TimeoutError(f"the group {self.name} did not come to {line!r} within {_TIMEOUT_S:.0f} s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.kill()
            self.remove()

    def __repr__(self) -> str:
        return f"<Cgroup {self.name}>"


def write(path: str, text: str) -> None:
    """Write `text` to a file of a group. An `OSError` has a note with its likely cause, as the group stands."""
    try:
        cgroupfs.write(path, text)
    except OSError as error:
        raise cgroup_errors.explained(error, path, text) from None


def check_name(name: str) -> str:
    """`name`, which may be a group's. `InvalidConfig` else."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidConfig(
            f"{name[:80] if isinstance(name, str) else name!r} is no name for a control group: "
            "1 to 128 letters, digits, dots, hyphens and underscores, the first no dot or hyphen"
        )
    if "." in name and name.partition(".")[0] in _FILES:
        raise InvalidConfig(f"{name!r} is no name for a control group: the kernel's own files begin so")
    return name


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = os.open(path, cgroupfs.DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
