"""A whole tracer: every system call of a program and of all that it starts, as strace(1) shows them.

    with Tracer() as tracer:
        tracer.start(["/bin/cat", "/etc/hostname"])
        for call in tracer:                      # ends when nothing that is traced is left
            print(call)                          # openat(...) = 3

It belongs to the thread that made it, and while it waits, that thread can do nothing else: `process.run_in_child` gives
it a process of its own. What it has started ends with it; what it has attached to runs on.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Self

from labkit import procfs, ptrace
from labkit.ptrace import ALL_CHILDREN, EVENT_STOP, SYSCALL_STOP, TRACEEXEC, TRACESYSGOOD, WALL, Entering, Leaving

OPTIONS = TRACESYSGOOD | TRACEEXEC | ALL_CHILDREN
_STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class Call(NamedTuple):
    """A system call that has ended. `result` is below 0 for an errno; None: it never returned (exit_group)."""

    pid: int
    name: str
    arguments: tuple[int, ...]
    result: int | None

    def __str__(self) -> str:
        result = "?" if self.result is None else str(self.result)
        if self.result is not None and -4096 < self.result < 0:
            result = f"-1 ({os.strerror(-self.result)})"
        return f"{self.name}({', '.join(map(hex, self.arguments))}) = {result}"


class Tracer:
    """Traces what it has started and attached to, until nothing is left, or `stop()`."""

    def __init__(self) -> None:
        self._inside: dict[int, Entering | None] = {}  # each thread that is traced, and the call that it is in
        self._ours: list[int] = []  # processes that we have started

    def start(self, what: list[str] | Callable[[], object]) -> int:
        """Start a command, or a fork of the caller that calls a function: see `ptrace.start`. Returns its PID."""
        pid = ptrace.start(what, OPTIONS)
        self._ours.append(pid)
        self._inside[pid] = None
        ptrace.resume(pid)
        return pid

    def attach(self, pid: int) -> None:
        """Trace a process that runs already, with all its threads and all that it will start. It goes on.

        `Unsupported`: it may not be traced from here. ESRCH: there is none.
        """
        for thread in procfs.threads(pid):
            with suppress(ProcessLookupError):  # it has ended since
                ptrace.seize(thread, OPTIONS)
                self._inside[thread] = None
                ptrace.interrupt(thread)  # it stops, and is resumed call by call from then on

    def __iter__(self) -> Iterator[Call]:
        return self.calls()

    def calls(self, until: Callable[[int], bool] | None = None) -> Iterator[Call]:
        """The calls of all, each as it ends. With `until`: only up to the end of a process for which it is true.

        `until` is asked of every process that ends, also of children of ours that are not traced.
        """
        while True:
            try:
                pid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                return  # nobody is left
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                if entered := self._inside.pop(pid, None):
                    yield Call(pid, ptrace.name(entered.number), entered.arguments, None)
                if until and until(pid):
                    return
                continue
            call = self._look(pid, status)
            if call:
                yield call

    def _look(self, pid: int, status: int) -> Call | None:
        """Something has stopped: see why, and let it go on. The call that it has ended, if that is why."""
        number, event = os.WSTOPSIG(status), ptrace.event(status)
        new = pid not in self._inside  # a child of one of them, traced since its birth
        entered = self._inside.setdefault(pid, None)
        call, pass_on = None, 0
        with suppress(ProcessLookupError):  # it was killed while we looked
            if number == SYSCALL_STOP:
                info = ptrace.syscall_info(pid)
                self._inside[pid] = info if isinstance(info, Entering) else None
                if entered and isinstance(info, Leaving):
                    call = Call(pid, ptrace.name(entered.number), entered.arguments, info.result)
            elif event == EVENT_STOP and number in _STOPPING:
                ptrace.listen(pid)
                return None
            elif not event and not (new and number == signal.SIGSTOP):
                pass_on = number  # a signal that somebody has sent
            ptrace.resume(pid, pass_on)
        return call

    def stop(self) -> None:
        """Trace nobody any more: what was started is killed, what was attached to runs on."""
        for pid in self._ours:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in self._inside:
            with suppress(OSError):
                ptrace.interrupt(pid)
        while self._inside:
            try:
                pid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                break
            if os.WIFSTOPPED(status):
                plain = not ptrace.event(status) and os.WSTOPSIG(status) != SYSCALL_STOP
                with suppress(ProcessLookupError):
                    ptrace.detach(pid, os.WSTOPSIG(status) if plain else 0)
            self._inside.pop(pid, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()
