"""A stand-in for the lab host, for checks of code that mounts: what goes wrong there hurts nobody.

Its mounts are a copy of the lab host's, shared among themselves as those are, and slaves of them: a mount that leaks
out of the learner's mount namespace arrives in the copy, is seen there, and ends with the check. Processes of the
stand-in are on the lab host in every other respect.
"""

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Self

import cloudpickle

from labkit import namespaces, procfs
from labkit.constants import CLONE_NEWNS, CLONE_NEWPID, MS_PRIVATE, MS_REC, MS_SHARED, MS_SLAVE
from labkit.course.framework import pace
from labkit.errors import Unsupported
from labkit.process import Child, run_in_child, spawn, spawn_closed
from labkit.process.worker import read_message, write_message
from labkit.procfs import Mount
from labkit.syscalls import mount, unshare

_LOOK_SECONDS = 0.01


class StandIn:
    """The copy, held by a process of its own; leaving the `with` statement ends it and all that was mounted in it."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self.host = self._stack.enter_context(spawn(_copy_mounts))
        self._before = procfs.mountinfo(self.host.pid)
        #: what a check does in it, it does here: others may look into the first process, and join it
        self.hand = self._stack.enter_context(self.spawn_closed(os.getpid))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def pid(self) -> int:
        """The process to look at for "the host"."""
        return self.host.pid

    def spawn(self, fn: Callable[..., Any], *args: Any, wait: bool = True) -> Child:
        """As `process.spawn`, in the stand-in."""
        return spawn(_enter_and_call, self.pid, fn, args, wait=wait)

    def spawn_closed(self, fn: Callable[..., Any], *args: Any) -> Child:
        """As `process.spawn_closed`, in the stand-in."""
        return spawn_closed(_enter_and_call, self.pid, fn, args)

    def witness(self, pid: int) -> Child:
        """A parked child in the mount namespace of process `pid`: it sees all of it, whatever root `pid` has."""
        return spawn_closed(namespaces.enter, pid, ("mnt",))

    def leaked(self) -> list[Mount]:
        """The mounts that the stand-in has now, and did not have at the beginning."""
        before = {one.mount_id for one in self._before}
        return [one for one in procfs.mountinfo(self.pid) if one.mount_id not in before]

    def lost(self) -> list[Mount]:
        """The mounts that the stand-in had at the beginning, and has no more."""
        now = {one.mount_id for one in procfs.mountinfo(self.pid)}
        return [one for one in self._before if one.mount_id not in now]

    def no_longer_shared(self) -> bool:
        """Whether the stand-in's own root has been made private, or a slave."""
        now = {one.mount_id: one for one in procfs.mountinfo(self.pid)}
        return any(one.is_shared and not now[one.mount_id].is_shared for one in self._before if one.mount_id in now)

    def places(self) -> set[tuple[str, str]]:
        """What the stand-in had mounted at the beginning, as (device, folder of it)."""
        return {(one.device, one.root) for one in self._before}


def _copy_mounts() -> None:
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_SLAVE)
    mount(None, "/", None, MS_REC | MS_SHARED)


def _enter_and_call(host_pid: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    here = os.getcwd()
    namespaces.enter(host_pid, ("mnt",))
    os.chdir(here)  # setns(2) into a mount namespace moves the working directory to its root
    return fn(*args)


def private_mounts() -> None:
    """Move the calling process into a mount namespace of its own, from which nothing leaks."""
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)


# A function that never returns, and processes that a function has started


def find_command(child: Child, command: list[str], seconds: float) -> int | None:
    """The PID of the process among `child` and its descendants that executes exactly `command`, once there is one.

    None: there is none after `seconds`, or the function given to `spawn` has returned and there is none. Raises what
    that function raised.
    """
    deadline = time.monotonic() + pace.scaled(seconds)
    done, grace = False, pace.scaled(0.3)
    while time.monotonic() < deadline:
        for pid in (child.pid, *_descendants(child.pid)):
            with suppress(ProcessLookupError):
                if procfs.cmdline(pid) == command:
                    return pid
        if not done and child.answered(_LOOK_SECONDS):
            # It has returned; a process that it started may need a moment to get to its execve.
            done, deadline = True, min(deadline, time.monotonic() + grace)
        time.sleep(_LOOK_SECONDS)
    return None


def _descendants(pid: int) -> list[int]:
    try:
        return procfs.descendants(pid)
    except ProcessLookupError:
        return []


# Process number 1


@dataclass
class InFork:
    """What a forked process has reported: its PID as its parent knows it, what it returned, what it raised, where."""

    pid: int
    value: Any
    error: Exception | None
    where: list[tuple[str, int, str]]

    def value_or_raise(self) -> Any:
        """The value; raises the error as `process` does, with `child_frames` to find the learner's line."""
        if self.error is None:
            return self.value
        self.error.child_frames = self.where  # type: ignore[attr-defined]
        raise self.error


def as_pid_1(fn: Callable[..., Any], *args: Any, stay: bool) -> InFork:
    """In a child: call `fn(*args)` as PID 1 of a new PID namespace; return what it did.

    With `stay` PID 1 remains there afterwards, asleep, to be looked at; else it ends with the call.
    """
    unshare(CLONE_NEWPID)
    return in_fork(fn, *args, stay=stay)


def in_fork(fn: Callable[..., Any], *args: Any, stay: bool) -> InFork:
    """In a child: call `fn(*args)` in a fork of it."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _report(theirs, fn, args)
        while stay:
            signal.pause()
        os._exit(0)
    theirs.close()
    with ours:
        payload = read_message(ours)
    if not stay or not payload:
        os.waitpid(pid, 0)
    value, error, where = cloudpickle.loads(payload) if payload else (None, None, [])
    return InFork(pid, value, error, where)


def _report(to: socket.socket, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
    answer: tuple[Any, ...]
    try:
        answer = (fn(*args), None, [])
    except BaseException as error:
        where = [(frame.filename, frame.lineno or 0, frame.name) for frame in traceback.extract_tb(error.__traceback__)]
        error.__traceback__ = error.__cause__ = error.__context__ = None
        answer = (None, error, where)
    with suppress(OSError), to:
        write_message(to, cloudpickle.dumps(answer))


def require_procfs() -> None:
    """Raise `Unsupported` where this machine does not let the lab host mount a procfs."""
    try:
        run_in_child(as_pid_1, _mount_proc, stay=False).value_or_raise()
    except PermissionError as error:
        raise Unsupported(
            "the lab host may not mount a /proc here",
            "parts of this machine's own /proc are covered, as in a container; run the labs in the VM: ./lab vm",
        ) from error


def _mount_proc() -> None:
    private_mounts()
    mount("proc", "/proc", "proc")
