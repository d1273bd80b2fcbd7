"""What is isolated: one look at a process and at the lab host, as plain data.

`look(pid, host_pid)` reads /proc from outside and changes nothing. A process may vanish at any moment: what could not
be read any more is left out, and `ProcessLookupError` is raised only where the process itself is gone.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from labkit import procfs
from labkit.course.views import mounttree
from labkit.host import zygote

KINDS = ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time")
T = TypeVar("T")
_COMMAND_LENGTH = 80
_PROCESSES_SHOWN = 50


@dataclass(frozen=True)
class Namespace:
    """One kind of namespace: the inode on the host, and that of the process. None: it could not be read."""

    kind: str
    host: int | None
    inside: int | None

    @property
    def same(self) -> bool | None:
        """Whether both are in the very same one; None where one could not be read."""
        return None if self.host is None or self.inside is None else self.host == self.inside


@dataclass(frozen=True)
class Process:
    """One process: its PID as the host sees it, and in its own PID namespace."""

    outside: int
    inside: int
    command: str
    depth: int  #: 0 for the process looked at, 1 for its children, ...


@dataclass(frozen=True)
class Isolation:
    """All that one look has found."""

    pid: int
    namespaces: tuple[Namespace, ...]
    processes: tuple[Process, ...]
    processes_left_out: int
    mounts: tuple[mounttree.Mount, ...]  #: as a tree, each before those that stand on it
    mounts_of_host_gone: int  #: how many of the host's mounts the process does not see


def look(pid: int, host_pid: int) -> Isolation:
    """Look at process `pid` and, to compare, at `host_pid`. `ProcessLookupError`: `pid` is gone."""
    kinds = [kind for kind in KINDS if _inode(host_pid, kind) or _inode(pid, kind)]
    namespaces = [Namespace(kind, _inode(host_pid, kind), _inode(pid, kind)) for kind in kinds]
    for_children = Namespace("pid_for_children", _inode(host_pid, "pid"), _inode(pid, "pid_for_children"))
    own = _inode(pid, "pid")
    if for_children.inside not in (None, own):
        # unshare(CLONE_NEWPID) moves the children only: the process itself stays where it was.
        namespaces.insert(kinds.index("pid") + 1, for_children)
    processes = _processes(pid, own if own != _inode(host_pid, "pid") else None)
    on_host = _or_none(lambda: procfs.mountinfo(host_pid)) or []
    mounts, gone = mounttree.tree(_or_none(lambda: procfs.mountinfo(pid)) or [], on_host)
    procfs.stat(pid)  # raises where it ended meanwhile, so that half a picture is never shown as a whole one
    return Isolation(
        pid,
        tuple(namespaces),
        tuple(processes[:_PROCESSES_SHOWN]),
        max(0, len(processes) - _PROCESSES_SHOWN),
        mounts,
        gone,
    )


def _inode(pid: int, kind: str) -> int | None:
    return _or_none(lambda: procfs.namespace_inode(pid, kind))


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except OSError:  # gone, or not ours to look at
        return None


def _processes(pid: int, pid_namespace: int | None) -> list[Process]:
    """The process, its descendants, and who else is in its PID namespace, if that is one of its own."""
    found: list[Process] = []
    seen: set[int] = set()

    def add(one: int, depth: int) -> None:
        if one in seen:
            return
        seen.add(one)
        with suppress(OSError):
            found.append(Process(one, procfs.nspid(one)[-1], command_of(one), depth))
            for child in sorted(procfs.children(one)):
                add(child, depth + 1)

    add(pid, 0)
    if pid_namespace is not None:
        for other in _all_pids():
            if other not in seen and _inode(other, "pid") == pid_namespace:
                add(other, 0)
    return found


def _all_pids() -> list[int]:
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def command_of(pid: int) -> str:
    """What a process is, in a few words. `ProcessLookupError`: it is gone."""
    name = procfs.stat(pid)[1]
    if name == zygote.PROCESS_NAME:
        return "python (your function)"  # a fork of the zygote: its arguments would be the zygote's
    words = " ".join(word for word in procfs.cmdline(pid) if word).replace("\n", " ")
    if not words:
        return f"[{name}]"
    return words if len(words) <= _COMMAND_LENGTH else words[: _COMMAND_LENGTH - 1] + "…"


def as_text(found: Isolation) -> str:
    """One look as lines of text, for where there is no notebook."""
    words = {True: "same", False: "DIFFERENT", None: "unknown"}
    lines = [f"What is isolated: process {found.pid} beside the lab host"]
    lines += [
        f"  {one.kind:<17}{one.host or '?':>12}{one.inside or '?':>12}  {words[one.same]}" for one in found.namespaces
    ]
    lines += [f"  {'  ' * one.depth}{one.outside} (inside: {one.inside}) {one.command}" for one in found.processes]
    lines += mounttree.as_text(found.mounts)
    return "\n".join(lines)
