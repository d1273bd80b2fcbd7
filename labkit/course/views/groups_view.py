"""The live view of the lab host's control groups: the tree, what each group uses, and the last minute of it."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from labkit import cgroups, host
from labkit.course.views import groups
from labkit.course.views.groups import Group
from labkit.course.views.live import LiveView

SECONDS = 60  # how long a view remembers, and shows a group that is gone
GONE_MAX = 8


@dataclass
class _Seen:
    """A group as the view remembers it: the last look, when that was, and the points of its graphs."""

    group: Group
    at: float
    gone: bool = False
    #: (when, per cent of a CPU, per cent of the periods stopped, bytes)
    points: deque[tuple[float, float, float | None, int]] = field(default_factory=lambda: deque(maxlen=2 * SECONDS))


class GroupsView(LiveView):
    """The tree of groups on the lab host. It ends with the lab host."""

    script = "groups_view.js"
    style = "chart.css"
    plain = (
        "Live view: the lab host's control groups, what they use and what their limits are. Run the cell in JupyterLab "
        "to see it."
    )

    def __init__(self, *, title: str = "") -> None:
        """Look at the lab host's groups. `Unsupported`: it has none on this machine."""
        if lack := cgroups.unsupported():
            raise lack
        current = host.current()
        self._top = current.group
        self._seen: dict[str, _Seen] = {}
        super().__init__(title or "Control groups of the lab host", current.pid)

    def look(self) -> dict[str, Any]:
        """One look at every group, with the rates since the last one. `FileNotFoundError`: the lab host is gone."""
        now, found = time.monotonic(), groups.look(self._top)
        for group in found:
            self._remember(group, now)
        here = {group.path for group in found}
        for path, seen in list(self._seen.items()):
            seen.gone = path not in here
            if seen.gone and now - seen.at > SECONDS:
                del self._seen[path]
        gone = sorted((seen.at, path) for path, seen in self._seen.items() if seen.gone)
        for _, path in gone[:-GONE_MAX]:
            del self._seen[path]
        # By the parts of the path, so that each group stands below the one it is in.
        rows = [self._seen[path] for path in sorted(self._seen, key=lambda path: path.split("/") if path else [])]
        return {"groups": [_row(seen, now) for seen in rows], "seconds": SECONDS}

    def _remember(self, group: Group, now: float) -> None:
        seen = self._seen.get(group.path)
        usage = group.stats.cpu_usage_usec or 0
        if seen is None or seen.gone or usage < (seen.group.stats.cpu_usage_usec or 0):  # another one of that name
            self._seen[group.path] = _Seen(group, now)
            return
        rates = groups.rates(seen.group.stats, group.stats, now - seen.at)
        memory = group.stats.memory_current_bytes or 0
        seen.points.append((now, rates.cpu_percent, rates.throttled_percent, memory))
        seen.group, seen.at = group, now

    def as_text(self) -> str:
        """One look as lines of text."""
        return groups.as_text(groups.look(self._top))


def _row(seen: _Seen, now: float) -> dict[str, Any]:
    group, stats = seen.group, seen.group.stats
    last = seen.points[-1] if seen.points else (now, 0.0, None, 0)
    return {
        "path": group.path,
        "gone": seen.gone,
        "frozen": group.frozen,
        "processes": 0 if seen.gone else group.processes,
        "pids_limit": group.pids_limit,
        "pids_refused": stats.pids_refused or 0,
        "cpu_percent": None if seen.gone else round(last[1], 1),
        "cpu_limit_percent": None if group.cpu_limit is None else round(group.cpu_limit * 100, 1),
        "cpu_used_msec": (stats.cpu_usage_usec or 0) // 1000,
        "throttled_percent": None if seen.gone or last[2] is None else round(last[2]),
        "throttled_periods": stats.throttled_periods or 0,
        "memory_bytes": 0 if seen.gone else stats.memory_current_bytes,
        "memory_peak_bytes": stats.memory_peak_bytes,
        "memory_limit_bytes": group.memory_limit_bytes,
        "oom_kills": stats.oom_kills or 0,
        "points": [
            [round(at - now, 1), round(cpu, 1), None if stopped is None else round(stopped), memory]
            for at, cpu, stopped, memory in seen.points
            if now - at <= SECONDS
        ],
    }
