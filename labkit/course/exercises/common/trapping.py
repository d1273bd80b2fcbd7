"""A command whose exit code nothing says but its end: it depends on a signal that is drawn while it runs.

So whoever knows the code has waited for it: the command line, a file and a guess do not tell it. It counts only where
the command is itself: a program of the answer's with the same command line could tell which signal has come.
"""

import os
import shutil
from contextlib import suppress

from labkit import procfs
from labkit.course.exercises.common.left_behind import loads_more

TRAPPED = (1, 2, 3, 10, 12, 15)  # signals that a shell can wait for


def script(base: int) -> str:
    """For a shell: end with `base` and the number of the signal that comes, one of `TRAPPED`."""
    traps = "; ".join(f"trap 'exit {base + one}' {one}" for one in TRAPPED)
    return f"{traps}; while :; do sleep 0.1; done"


def traps_all(pid: int) -> bool:
    """Whether a process has a handler for each of `TRAPPED`. proc_pid_status(5)"""
    caught = int(procfs.status(pid)["SigCgt"], 16)
    return all(caught & 1 << number - 1 for number in TRAPPED)


def executes(pid: int, command: list[str]) -> bool:
    """Whether `pid` is `command` itself: by its program's file, which no process can rewrite, and with nobody in it."""
    program = shutil.which(command[0])
    with suppress(OSError):  # it has ended
        return (
            procfs.cmdline(pid) == command
            and program is not None
            and os.path.samefile(f"/proc/{pid}/exe", program)
            and procfs.status(pid)["TracerPid"] == "0"
            and not loads_more(pid)
        )
    return False
