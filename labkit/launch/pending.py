"""What a start of a child is to the zygote: a child that has been forked, or something to wait for until there is one.

A start that has to wait for its child is a generator. It yields a `Wait`, is sent whether what it waits for came in
time, and returns the child; so the zygote serves others meanwhile.
"""

import os
import time

from labkit.kernel import reaping

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Generator
    from typing import Protocol

    Starting = Generator["Wait", bool, "Started"]

    class Networks(Protocol):
        """Where a start may take a network namespace that has been made ahead of time."""

        def take(self) -> int | None: ...


class Started:
    """A child just forked, whether it can leave processes behind in its session, and descriptors for the caller."""

    __slots__ = ("descriptors", "leaves_orphans", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int, leaves_orphans: bool = True, descriptors: "tuple[int, ...]" = ()) -> None:
        self.pid, self.pidfd, self.leaves_orphans, self.descriptors = pid, pidfd, leaves_orphans, descriptors


class Wait:
    """What a start waits for: that `fd` can be read, for `seconds` at most. `pids` are its children meanwhile."""

    __slots__ = ("fd", "pids", "seconds")

    def __init__(self, fd: int, seconds: float, pids: "Callable[[], tuple[int, ...]]") -> None:
        self.fd, self.seconds, self.pids = fd, seconds, pids


class Pending:
    """A start under way that waits, where to say how it went, and the request's descriptors."""

    __slots__ = ("deadline", "fds", "reply", "starting", "wait")

    def __init__(self, starting: "Starting", reply: "socket.socket", fds: list[int]) -> None:
        self.starting, self.reply, self.fds = starting, reply, fds
        self.wait: Wait | None = None
        self.deadline = 0.0

    def go_on(self, in_time: bool) -> "Started | None":
        """Let it go on; the child, if there is one now. Raises what the start does."""
        try:
            # None: a generator that has just been made takes nothing else.
            self.wait = self.starting.send(in_time if self.wait else None)  # type: ignore[arg-type]
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        self.deadline = time.monotonic() + self.wait.seconds
        return None

    def forget(self) -> None:
        """Let go of what it was asked for with, and of the ends of its children."""
        for fd in self.fds:
            os.close(fd)
        for pid in self.wait.pids() if self.wait else ():
            reaping.early.pop(pid, None)
