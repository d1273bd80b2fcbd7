"""What labs can leave behind when all of their processes are killed at once; found, and removed."""

import os
import tempfile
from contextlib import suppress

from labkit import host, procfs, temporary
from labkit.errors import LabkitError
from labkit.host import cgroup

_MEMORY = "/dev/shm"  # where the measuring keeps its files


def find() -> list[str]:
    """Temporary folders, control groups and lab hosts that nobody ends, as words."""
    groups = [f"control group {folder}" for folder in cgroup.left_over()]
    return [*temporary.abandoned(*_places()), *groups, *(f"stopped lab host {pid}" for pid in stopped_hosts())]


def remove() -> list[str]:
    """Remove temporary folders that are left over; `host.reset_all` has done the rest. Return what was removed."""
    removed = temporary.remove_abandoned(*_places())
    for folder in temporary.abandoned(*_places()):  # files of users whose ids were ours on the lab host alone
        with suppress(LabkitError, OSError):
            from labkit.process import run_in_child

            run_in_child(temporary.remove_abandoned, os.path.dirname(folder))
            removed.append(folder)
    host.reset()
    return removed


def stopped_hosts() -> list[int]:
    """The PIDs of lab hosts that somebody has stopped (SIGSTOP): they cannot see that their notebook has ended."""
    found = []
    for pid in host.running():
        with suppress(ProcessLookupError):
            if procfs.stat(pid)[2] == "T":
                found.append(pid)
    return found


def _places() -> tuple[str, ...]:
    return (tempfile.gettempdir(), *((_MEMORY,) if os.access(_MEMORY, os.W_OK | os.X_OK) else ()))
