"""The lab host's tree of control groups: one look as plain data, and what two looks say about the time between them."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from labkit.cgroups import stats as cgroup_stats
from labkit.cgroups.stats import Stats

GROUPS_MAX = 40  # more than that nobody can watch


@dataclass(frozen=True)
class Group:
    """One group: its path below the lab host's ("" for that itself), its limits, and its figures so far.

    Limits: None where there is none, or where the group has no such controller. `cpu_limit` is in CPUs.
    """

    path: str
    processes: int  #: in it and in all groups below; where the kernel does not count them, in it alone
    frozen: bool
    cpu_limit: float | None
    memory_limit_bytes: int | None
    pids_limit: int | None
    stats: Stats


@dataclass(frozen=True)
class Rates:
    """What a group did between two looks, in per cent: of one CPU, and of its periods those in which it was stopped."""

    cpu_percent: float
    throttled_percent: float | None


def look(top: str) -> tuple[Group, ...]:
    """All groups below the folder `top` and that itself, each after the one it is in. FileNotFoundError: it is gone."""
    found = [_group(top, "")]
    for path in _below(top):
        with suppress(OSError):  # removed meanwhile
            found.append(_group(top, path))
    return tuple(found)


def _below(top: str) -> Iterator[str]:
    count = 1
    for folder, names, _ in os.walk(top):
        names.sort()
        if folder != top:
            yield os.path.relpath(folder, top)
            count += 1
            if count >= GROUPS_MAX:
                return


def _group(top: str, path: str) -> Group:
    folder = Path(top, path)
    stats = cgroup_stats.read(str(folder))
    quota, period = ([*_words(folder / "cpu.max"), "max", "100000"])[:2]
    return Group(
        path,
        len(_words(folder / "cgroup.procs")) if stats.pids_current is None else stats.pids_current,
        "frozen 1" in _text(folder / "cgroup.events"),
        None if quota == "max" else int(quota) / int(period),
        _limit(folder / "memory.max"),
        _limit(folder / "pids.max"),
        stats,
    )


def _text(path: Path) -> str:
    with suppress(OSError):  # not every group has every file
        return path.read_text()
    return ""


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _limit(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def rates(before: Stats, now: Stats, seconds: float) -> Rates:
    """What happened between two looks at one group, `seconds` apart."""
    used = (now.cpu_usage_usec or 0) - (before.cpu_usage_usec or 0)
    periods = (now.periods or 0) - (before.periods or 0)
    stopped = (now.throttled_periods or 0) - (before.throttled_periods or 0)
    return Rates(
        max(0.0, used / seconds / 1e4) if seconds > 0 else 0.0,
        max(0.0, min(100.0, 100 * stopped / periods)) if periods > 0 else None,
    )


def as_text(found: tuple[Group, ...]) -> str:
    """One look as lines of text, for where there is no notebook."""
    lines = [f"{'group':<32}{'CPU used':>12}{'memory':>12}{'of':>12}{'processes':>11}{'of':>6}{'OOM kills':>11}"]
    for group in found:
        depth = group.path.count("/") + 1 if group.path else 0
        name = "  " * depth + (os.path.basename(group.path) or "lab host") + (" (frozen)" if group.frozen else "")
        stats = group.stats
        lines.append(
            f"{name:<32}{(stats.cpu_usage_usec or 0) / 1e6:>10.1f} s{_size(stats.memory_current_bytes):>12}"
            f"{_size(group.memory_limit_bytes):>12}{group.processes:>11}{group.pids_limit or '-':>6}"
            f"{stats.oom_kills or 0:>11}"
        )
    return "\n".join(lines)


def _size(count: int | None) -> str:
    return "-" if count is None else f"{count / (1 << 20):.1f} MiB"
