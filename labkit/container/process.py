"""A process of a container as its caller holds it: looked at, signalled, waited for, killed."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from labkit import host
from labkit.container import checks
from labkit.container.config import Process
from labkit.container.start_errors import start_error
from labkit.errors import ChildNotStarted, LabkitError
from labkit.kernel import interrupts, scm_rights
from labkit.kernel.nofile import plainly
from labkit.kernel.record import Record
from labkit.launch import terminal
from labkit.process.handle import Held
from labkit.process.stdio import Output

S = TypeVar("S", bound=Record)


class Completed(NamedTuple):
    """A process that has ended. Output is empty unless it was captured."""

    exit_code: int
    stdout: str
    stderr: str
    oom_killed: bool = False  #: whether the kernel killed something in its container for want of memory


class Running(Held):
    """A process that has been started. As a context manager it is killed on leaving.

    The first process of a container, as PID 1 of its namespace, ignores every signal it has no handler for, but SIGKILL
    and SIGSTOP from outside. pid_namespaces(7).

    With `capture` its output is kept, else it appears where the caller prints. `stdin` is a descriptor, or bytes; it is
    empty otherwise. With a terminal all three are one, `terminal` is the descriptor of its other end, and what the
    process prints is passed on while something waits for it.
    """

    def __init__(
        self,
        process: Process,
        handler: host.Handler[S],
        spec: S,
        descriptors: dict[str, int],
        *,
        capture: bool | int,
        stdin: int | bytes | None,
    ) -> None:
        self.process = process
        self.output = Output(keep=capture)
        self.terminal: int | None = None
        with interrupts.Deferred():
            self._begin(handler, spec, descriptors, stdin)

    def _begin(self, handler: host.Handler[S], spec: S, descriptors: dict[str, int], stdin: int | bytes | None) -> None:
        started: host.Started | None = None
        try:
            with contextlib.ExitStack() as stack:
                given = descriptors | stack.enter_context(self._ends(stdin))
                started = host.current().request(handler, spec, given)
        except ChildNotStarted as error:
            self._give_back()
            raise start_error(self.process, error) from None
        except BaseException:
            if started:
                started.close()
            self._give_back()
            raise
        Held.__init__(self, started)
        self._descriptors = started.descriptors

    @contextlib.contextmanager
    def _ends(self, stdin: int | bytes | None) -> Iterator[dict[str, int]]:
        """The process's ends of what it reads and writes; closed here on leaving."""
        with contextlib.ExitStack() as stack:
            given: dict[str, int] = {}
            if isinstance(stdin, bytes):
                fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
                stack.callback(os.close, fd)
                os.write(fd, stdin)
                os.lseek(fd, 0, os.SEEK_SET)
                given["stdin"] = fd
            elif stdin is not None:
                given["stdin"] = stdin
            if not self.process.terminal:
                given["stdout"], given["stderr"] = stack.enter_context(self.output.writers())
                yield given
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            with ours, theirs:
                given["console"] = theirs.fileno()
                yield given
                try:
                    _, fds = scm_rights.receive(ours, 1, 1, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    raise LabkitError("the process ended before it had opened its terminal") from None
                self.terminal = fds[0]
                self.output.follow_terminal(os.dup(self.terminal))

    def finish(self, timeout: float | None = None) -> Completed:
        """Pass its output on until it ends; `TimeoutError` after `timeout` seconds, and it is killed then."""
        with self._waiting, plainly(f"waiting for the {self.what}"):
            if self.exit is None and not self._ends_within(timeout):
                self.kill()
                raise TimeoutError(f"the {self.what} did not end within {timeout} s and was killed")
            code = self.wait()
        return Completed(code, self.output.kept("stdout"), self.output.kept("stderr"), self.oom_killed)

    def _ends_within(self, timeout: float | None) -> bool:
        return self.output.pass_on_until(self._reply, timeout=timeout)

    def resize(self, columns: int, lines: int) -> None:
        """Give its terminal another size; its foreground processes get SIGWINCH. `LabkitError`: it has no terminal."""
        checks.terminal_size((columns, lines), self.process.terminal)
        if self.terminal is None:
            raise LabkitError(f"the {self.what} has ended, and its terminal with it")
        fcntl.ioctl(self.terminal, terminal.TIOCSWINSZ, terminal.winsize((columns, lines)))

    @property
    def oom_killed(self) -> bool:
        """Whether the kernel killed something in its container for want of memory."""
        return False

    def _let_go(self) -> None:
        super()._let_go()
        self._give_back()

    def _give_back(self) -> None:
        """Close what was opened for it, once it has ended or could not be started."""
        self.output.close()
        given = (*getattr(self, "_descriptors", ()), self.terminal)
        self._descriptors, self.terminal = [], None  # first forgotten, so that nobody closes them twice
        for fd in given:
            if fd is not None:
                os.close(fd)

    def __repr__(self) -> str:
        state = "running" if self.alive else str(self.exit or "has ended")
        return f"<{type(self).__name__} {self.pid} {' '.join(self.process.args)!r}: {state}>"
