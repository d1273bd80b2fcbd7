"""A container as its caller holds it: started, looked at, signalled, waited for, killed."""

import contextlib
import errno
import os
import signal as signals
from typing import NamedTuple, Self

from labkit import host, syscalls
from labkit.container.config import Config
from labkit.container.launch import CHANGING_DIRECTORY, EXECUTING
from labkit.errors import ChildNotStarted, CommandNotFound, CommandNotRunnable, StartError
from labkit.output import Exit, Output, readable


class Completed(NamedTuple):
    """A container that has ended. Output is empty unless it was captured."""

    exit_code: int
    stdout: str
    stderr: str


class Container:
    """A running container. As a context manager it is killed, with all its processes, on leaving."""

    def __init__(self, config: Config, *, capture: bool = False) -> None:
        """Start it. Raises a `StartError` where the command could not be executed; nothing is left then."""
        self.config = config
        self.exit: Exit | None = None
        self.output = Output(keep=capture)
        try:
            with self.output.writers() as writers:
                started = host.current().request("labkit.container.launch:start", config.message(), writers)
        except ChildNotStarted as error:
            self.output.close()
            raise _start_error(config, error) from None
        except BaseException:
            self.output.close()
            raise
        self.pid = started.pid  #: of its first process, as the caller sees it; inside, it is 1
        self.pidfd = started.pidfd
        self._reply = started.reply

    @property
    def alive(self) -> bool:
        """Whether its first process, and so the container, has not ended yet."""
        return self.exit is None and not readable(self.pidfd, 0)

    def signal(self, number: int) -> None:
        """Send its first process a signal.

        As PID 1 of its namespace that process ignores every signal it has no handler for, but SIGKILL and SIGSTOP
        from outside. pid_namespaces(7).
        """
        if self.exit is None:
            with contextlib.suppress(ProcessLookupError):
                syscalls.pidfd_send_signal(self.pidfd, number)

    def finish(self, timeout: float | None = None) -> Completed:
        """Pass its output on until it ends; `TimeoutError` after `timeout` seconds, and it is killed then."""
        if self.exit is None and not self.output.pass_on_until(self._reply, timeout=timeout):
            self.kill()
            raise TimeoutError(f"the container did not end within {timeout} s and was killed")
        code = self.wait()
        return Completed(code, self.output.kept("stdout"), self.output.kept("stderr"))

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code, or 128 + n where signal n killed it. `TimeoutError`: not yet."""
        if self.exit is None:
            if not self.output.pass_on_until(self._reply, timeout=timeout):
                raise TimeoutError(f"the container has not ended within {timeout} s")
            self.exit = Exit.receive(self._reply)
            self._reply.close()
            os.close(self.pidfd)
            self.output.close()
        return self.exit.code

    def kill(self) -> None:
        """Kill it, every process of it, and wait for its end. Twice is as good as once."""
        self.signal(signals.SIGKILL)
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def __del__(self) -> None:
        if getattr(self, "exit", self) is None and hasattr(self, "_reply"):
            with contextlib.suppress(Exception):
                self._reply.close()  # has the zygote kill it
                os.close(self.pidfd)
                self.output.close()

    def __repr__(self) -> str:
        state = "running" if self.alive else str(self.exit or "has ended")
        return f"<Container {self.pid} {' '.join(self.config.args)!r}: {state}>"


def _start_error(config: Config, failed: ChildNotStarted) -> StartError:
    step, number, text, notes = failed.step, failed.number, failed.text, list(failed.notes)
    command = config.args[0]
    kind: type[StartError] = StartError
    if step == EXECUTING:
        if number in (errno.ENOENT, errno.ENOTDIR):
            kind, text = CommandNotFound, f"{command!r} was not found in the container"
            if "/" in command:
                notes.append("The file, or the interpreter or loader that its first bytes name, is not in the root.")
        elif number in (errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.EPERM):
            kind = CommandNotRunnable
            text = f"{command!r} may not or cannot be executed in the container ({text})"
    elif step == CHANGING_DIRECTORY:
        text = f"the working directory {config.cwd} cannot be entered ({text})"
    else:
        text = f"the container could not be started: {text}" + (f", at: {step}" if step else "")
    error = kind(text)
    for note in notes:
        error.add_note(note)
    return error
