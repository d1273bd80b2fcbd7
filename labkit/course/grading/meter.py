"""What a room uses of processors and memory: counted, and bounded, by whatever this machine has for that.

    control groups, version 2    `container` has put the room in one: its own figures, and its limits
    control groups, version 1    groups of our own in the hierarchies memory, cpuacct and pids, below where we are; only
                                 root can make them
    neither                      /proc, ten times a second: processes that are there at that moment, and children that
                                 somebody has waited for. A room that shows neither is bounded by its wall time, and by
                                 the machine's memory: the room ends where that runs short

Source: cgroups(7); the kernel's Documentation/admin-guide/cgroup-v1/memory.rst, cpuacct.rst, pids.rst.
"""

import errno
import os
import time
from contextlib import suppress

from labkit import procfs
from labkit.container.container import Container

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MACHINES_RESERVE = 256 << 20  # bytes of the machine's memory that no room may take


class Meter:
    """Counts what `room` uses; `close` when it has ended. The room must not have been started yet."""

    def __init__(self, room: Container, memory_bytes: int, pids: int) -> None:
        self._room, self._memory_bytes = room, memory_bytes
        self._groups = {} if room.group else _v1_groups(room.pid, memory_bytes, pids)
        self._of_ended = 0.0
        self._last: dict[int, float] = {}
        self._resident = 0

    def cpu_seconds(self) -> float:
        """Of all its processes so far, also of those that have ended."""
        if self._room.group:
            return (self._room.group.stats().cpu_usage_usec or 0) / 1e6
        if self._groups:
            return int(_read(f"{self._groups['cpuacct']}/cpuacct.usage") or 0) / 1e9
        now, of_waited_for, self._resident = _use(self._room.pid)
        # Of what has ended we know what it had at the last look, or, if somebody has waited for it, all it had.
        self._of_ended += sum(seconds for pid, seconds in self._last.items() if pid not in now)
        self._last = now
        return sum(now.values()) + max(self._of_ended, of_waited_for)

    def too_much_memory(self) -> bool:
        """Whether it has used more than it may, at any time so far where that is counted, else now."""
        if self._room.group:
            return _limit_was_hit(self._room.group.path)  # and not that of lab hosts, which the judge survives
        if self._groups:
            return "oom_kill 0" not in _read(f"{self._groups['memory']}/memory.oom_control")
        pids = list(self._last)
        if self._resident > self._memory_bytes and _shared_out(pids) > self._memory_bytes:
            return True
        # In files without a name, in file systems in memory, in pipes: nobody's, and the machine's all the same.
        return _available_bytes() < _MACHINES_RESERVE

    def close(self) -> None:
        """Remove the groups."""
        for folder in self._groups.values():
            for _ in range(100):
                try:
                    os.rmdir(folder)
                except OSError as error:
                    if error.errno != errno.EBUSY:  # its last process is a zombie still
                        break
                    time.sleep(0.02)
                else:
                    break


def _limit_was_hit(folder: str) -> bool:
    """Whether this very group's limit could not be kept. Labs set limits of their own further down, and hit those."""
    events = dict(line.split() for line in _read(f"{folder}/memory.events.local").splitlines())
    return events.get("oom", "0") != "0"


def _v1_groups(pid: int, memory_bytes: int, pids: int) -> dict[str, str]:
    """Groups with these limits and the process in them, by hierarchy; none where this machine has not all of them."""
    made: dict[str, str] = {}
    try:
        for name, limits in (
            ("memory", {"memory.limit_in_bytes": memory_bytes, "memory.memsw.limit_in_bytes": memory_bytes}),
            ("cpuacct", {}),
            ("pids", {"pids.max": pids}),
        ):
            folder = f"{_v1_folder(name)}/labkit-room-{pid}"
            os.mkdir(folder)
            made[name] = folder
            for file, limit in limits.items():
                if "memsw" not in file or os.path.exists(f"{folder}/{file}"):
                    _write(f"{folder}/{file}", limit)
            _write(f"{folder}/cgroup.procs", pid)
    except OSError:
        for folder in made.values():
            with suppress(OSError):
                os.rmdir(folder)
        return {}
    return made


def _v1_folder(controller: str) -> str:
    """This process's own group in the hierarchy of version 1 that has the controller; FileNotFoundError: none has."""
    mounts = {mount.mount_point: mount for mount in procfs.mountinfo(os.getpid()) if mount.filesystem == "cgroup"}
    for line in _read("/proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if controller not in names.split(","):
            continue
        for point, mount in mounts.items():
            if set(names.split(",")) <= set(mount.super_options):
                below = os.path.relpath(path, mount.root) if path.startswith(mount.root) else "."
                return os.path.normpath(f"{point}/{below}")
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), controller)


def _write(path: str, number: int) -> None:
    with open(path, "w") as file:
        file.write(str(number))


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _use(pid: int) -> tuple[dict[int, float], float, int]:
    """(own processor time by PID, that of children waited for, both in seconds; resident memory in bytes, shared pages
    counted each time)."""
    cpu: dict[int, float] = {}
    waited, memory = 0.0, 0
    for one in (pid, *_descendants(pid)):
        try:
            fields = procfs.stat(one)
        except (OSError, ProcessLookupError, ValueError):
            continue
        cpu[one] = (int(fields[13]) + int(fields[14])) / _TICKS
        waited += (int(fields[15]) + int(fields[16])) / _TICKS
        memory += int(fields[23]) * _PAGE
    return cpu, waited, memory


def _descendants(pid: int) -> list[int]:
    try:
        return procfs.descendants(pid)
    except (OSError, ProcessLookupError):
        return []


def _shared_out(pids: list[int]) -> int:
    """The memory of processes in bytes, a page that n share counted as 1/n for each. proc_pid_smaps(5): Pss."""
    total = 0
    for pid in pids:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def _available_bytes() -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 1 << 60
