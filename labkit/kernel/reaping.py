"""Ends of children that came before whoever waits for that child had asked.

A process waits for all of its children at once, and one of them may belong to a start that is still under way
(`labkit.launch.pending.Wait`). Its end is kept here for that start.
"""

import os

early: dict[int, tuple[int, int, int]] = {}  #: by PID: the wait status, the CPU time in µs, the peak memory in KiB


def status_of(pid: int) -> int:
    """Wait for the child `pid`, unless that has been done; return its status as wait(2) has it."""
    ended = early.pop(pid, None)
    return ended[0] if ended else os.waitpid(pid, 0)[1]
