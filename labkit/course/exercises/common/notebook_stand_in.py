"""A stand-in for the notebook: for functions that act on the lab host from outside, where nobody vouches for them.

In a notebook such a function is called in the notebook's own process. A judge may not do that. It has a process on its
lab host sit at a desk, with a lab host of its own, and the function is called there; what became of that lab host is
looked at by the judge.
"""

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from labkit import host
from labkit.process import spawn


class Desk:
    """The process, and its lab host; leaving the `with` statement ends both."""

    def __enter__(self) -> Self:
        self.child = spawn(_begin)  #: to call functions in; to it, its lab host is `labkit.host`
        self.host: int = self.child.value  #: the PID of its lab host
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()


def _begin() -> int:
    return host.pid()


class Process:
    """A process that somebody else has started, known by a pidfd: its PID may be another's once it has ended."""

    def __init__(self, pidfd: int) -> None:
        self._pidfd = pidfd

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return not select.select([self._pidfd], [], [], 0)[0]


@contextmanager
def held(pid: int) -> Iterator[Process]:
    """The process `pid`, while the `with` statement lasts."""
    pidfd = os.pidfd_open(pid)
    try:
        yield Process(pidfd)
    finally:
        os.close(pidfd)
