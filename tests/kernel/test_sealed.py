"""The zygote's program: sealed, although the kernel may be busy with its pages for a moment, and never leaked."""

import errno
import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit import host
from labkit.errors import LabkitError
from labkit.host import sealed_python
from labkit.process import run_in_child


def busy(times: int) -> Callable[[int, int, int], int]:
    """fcntl(2) on a page that is held: EBUSY so many times, then as ever."""
    real, left = fcntl.fcntl, [times]

    def pretend(fd: int, command: int, argument: int) -> int:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return real(fd, command, argument)

    return pretend


def test_it_is_the_same_program_and_cannot_be_written_to() -> None:
    fd = sealed_python.python()
    try:
        assert os.pread(fd, 1 << 26, 0) == Path(sys.executable).read_bytes()
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
    finally:
        os.close(fd)


def test_a_page_that_is_held_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "fcntl", busy(3))
    assert run_in_child(os.getpid) > 0
    host.reset()


def test_a_page_that_is_held_for_good_is_said_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "fcntl", busy(10_000))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(LabkitError, match="cannot be sealed"):
        run_in_child(os.getpid)
    assert os.listdir("/proc/self/fd") == before
