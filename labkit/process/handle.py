"""A child as its caller holds it, by its pidfd: looked at, signalled, waited for, killed. From any thread.

Two threads may want the same child's end at once, one that waits for it and one that kills it. One of them collects it
and closes the descriptors, whose numbers may be another child's a moment later: so nobody uses them but under a lock.
"""

import contextlib
import os
import signal as signals
import socket
import threading
from typing import Self

from labkit import syscalls
from labkit.errors import ChildDied
from labkit.host import Started
from labkit.kernel import interrupts
from labkit.kernel.nofile import plainly
from labkit.process.stdio import Exit, readable


class Held:
    """A child that has been started. As a context manager it is killed on leaving."""

    what = "process"

    def __init__(self, started: Started) -> None:
        self.pid = started.pid  #: as the calling process sees it
        self.pidfd = started.pidfd
        self.exit: Exit | None = None
        self.lost = False  #: whether the lab host ended first
        self._reply: socket.socket = started.reply
        self._using = threading.Lock()  # held while the descriptors are used for a moment, or closed
        self._waiting = threading.RLock()  # held by whoever waits for its end

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        with self._using:
            return self.exit is None and not readable(self.pidfd, 0)

    def signal(self, number: int) -> None:
        """Send it a signal; none is sent to a process that has ended."""
        with self._using:
            if self.exit is None:
                with contextlib.suppress(ProcessLookupError):
                    syscalls.pidfd_send_signal(self.pidfd, number)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code, or 128 + n where signal n killed it. `TimeoutError`: not yet.

        `ChildDied`: the lab host has ended, and it with that; how it would have ended nobody knows.
        """
        self._collect(timeout)
        assert self.exit
        if self.lost:
            raise ChildDied(f"the lab host has ended, and the {self.what} {self.pid} with it")
        return self.exit.code

    def _collect(self, timeout: float | None) -> None:
        if not self._waiting.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError(self._not_yet(timeout))
        try:
            with plainly(f"waiting for the {self.what} {self.pid}"):
                if self.exit is None:
                    if not self._ends_within(timeout):
                        raise TimeoutError(self._not_yet(timeout))
                    with interrupts.Deferred(), self._using:
                        end = Exit.receive(self._reply)
                        self.lost = end is None
                        self.exit = end or Exit(signals.SIGKILL)
                        self._let_go()
        finally:
            self._waiting.release()

    def kill(self) -> None:
        """Kill it, with all that ends with it, and wait for its end. Twice is as good as once."""
        self.signal(signals.SIGKILL)
        self._collect(None)

    def _ends_within(self, timeout: float | None) -> bool:
        return readable(self._reply.fileno(), timeout)

    def _not_yet(self, timeout: float | None) -> str:
        return f"the {self.what} {self.pid} has not ended within {timeout} s"

    def _let_go(self) -> None:
        """Give back what is held for it, once it has ended."""
        self._reply.close()  # has the zygote kill it, if it has not ended
        os.close(self.pidfd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def __del__(self) -> None:
        if getattr(self, "exit", self) is None:
            with contextlib.suppress(Exception), interrupts.Deferred():
                self._let_go()
