"""What a control group has used and met: the figures of its files, with their units. cgroup-v2.rst."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Stats:
    """Figures of a group with all groups below it. None: this kernel or group does not have the figure.

    Events are counted since the group was made. `io_*` are sums over all disks. `*_pressure_usec` is for how long some
    process waited for it (PSI, Documentation/accounting/psi.rst).
    """

    cpu_usage_usec: int | None = None
    cpu_user_usec: int | None = None
    cpu_system_usec: int | None = None
    periods: int | None = None  #: of `cpu.max`, in which it ran
    throttled_periods: int | None = None  #: those of them in which it was stopped
    throttled_usec: int | None = None  #: for how long, summed over processors
    memory_current_bytes: int | None = None
    memory_peak_bytes: int | None = None
    memory_swap_current_bytes: int | None = None
    memory_high_events: int | None = None  #: how often it was slowed down at `memory.high`
    memory_max_events: int | None = None  #: how often it was about to exceed `memory.max`
    oom_events: int | None = None  #: how often `memory.max` could not be kept by reclaiming
    oom_kills: int | None = None  #: processes killed for it
    pids_current: int | None = None
    pids_peak: int | None = None
    pids_refused: int | None = None  #: forks that `pids.max` refused
    io_read_bytes: int | None = None
    io_written_bytes: int | None = None
    io_reads: int | None = None
    io_writes: int | None = None
    cpu_pressure_usec: int | None = None
    memory_pressure_usec: int | None = None
    io_pressure_usec: int | None = None


# Field by field: the file, and the key of the line in it; "" where the file is one number.
_SOURCES = {
    "cpu_usage_usec": ("cpu.stat", "usage_usec"),
    "cpu_user_usec": ("cpu.stat", "user_usec"),
    "cpu_system_usec": ("cpu.stat", "system_usec"),
    "periods": ("cpu.stat", "nr_periods"),
    "throttled_periods": ("cpu.stat", "nr_throttled"),
    "throttled_usec": ("cpu.stat", "throttled_usec"),
    "memory_current_bytes": ("memory.current", ""),
    "memory_peak_bytes": ("memory.peak", ""),
    "memory_swap_current_bytes": ("memory.swap.current", ""),
    "memory_high_events": ("memory.events", "high"),
    "memory_max_events": ("memory.events", "max"),
    "oom_events": ("memory.events", "oom"),
    "oom_kills": ("memory.events", "oom_kill"),
    "pids_current": ("pids.current", ""),
    "pids_peak": ("pids.peak", ""),
    "pids_refused": ("pids.events", "max"),
    "io_read_bytes": ("io.stat", "rbytes"),
    "io_written_bytes": ("io.stat", "wbytes"),
    "io_reads": ("io.stat", "rios"),
    "io_writes": ("io.stat", "wios"),
    "cpu_pressure_usec": ("cpu.pressure", "total"),
    "memory_pressure_usec": ("memory.pressure", "total"),
    "io_pressure_usec": ("io.pressure", "total"),
}


def read(folder: str) -> Stats:
    """The figures of the group `folder`. `FileNotFoundError`: there is no such group."""
    files = {name: _read(f"{folder}/{name}") for name in {file for file, _ in _SOURCES.values()}}
    if files["cpu.stat"] is None and not os.path.isdir(folder):
        raise FileNotFoundError(2, "there is no such control group", folder)
    return Stats(**{field: _figure(files[file], file, key) for field, (file, key) in _SOURCES.items()})


def _figure(text: str | None, file: str, key: str) -> int | None:
    if text is None:
        return None
    if not key:
        return int(text)
    if file == "io.stat" or file.endswith(".pressure"):
        # "8:0 rbytes=1 wbytes=2 ..." for each disk; "some avg10=0.00 ... total=3", and "full ..." which is part of it.
        words = [word for line in text.splitlines() if not line.startswith("full") for word in line.split()]
        return sum(int(word.partition("=")[2]) for word in words if word.startswith(f"{key}="))
    lines = dict(line.split() for line in text.splitlines())
    return int(lines[key]) if key in lines else None


def _read(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read()
    except OSError:  # no such file in this group or kernel; EOPNOTSUPP: PSI is switched off
        return None
