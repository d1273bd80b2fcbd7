"""System calls as data: a list that can be read, and carried out in a fresh process without any Python in it.

A `Program` is a straight line of system calls. An argument is a number, a text or bytes (whose address is passed), a
list of texts (as execve(2) takes them), a `Block` (a structure), or the `Value` that an earlier call will return, such
as a descriptor. It ends with an execve. There are no branches: what has to be decided is decided while the list is
written.

Why: a child that runs Python shares the parent's memory until one of the two writes to a page, and Python writes to
every page it looks at. Forking, copying those pages and taking the copy down again costs more than all the system calls
of a container. `spawn` avoids it: the child shares the memory for good (CLONE_VM, as vfork(2) does) and runs a few
instructions that take call after call from the list (`labkit.program.trampoline`). Where there are none for the
processor, or memory may not be executed, a forked child does the same in Python: `_interpret`.

A child that has to wait for its parent in the middle cannot have the parent asleep meanwhile: `clone` makes one that
runs beside it, by the same loop.
"""

import ctypes
import mmap
import os
import struct
from contextlib import suppress

from labkit import constants as c
from labkit import syscalls
from labkit.errors import explain, os_error
from labkit.kernel import reaping
from labkit.program import memory as layout
from labkit.program import trampoline
from labkit.program.memory import Block as Block  # noqa: PLC0414  (programs are written with these)
from labkit.program.memory import Call
from labkit.program.memory import Value as Value  # noqa: PLC0414

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from labkit.program.memory import Argument


class CallFailed(OSError):
    """A call of a program failed; `call` is it, with the step it belongs to."""

    def __init__(self, number: int, call: Call) -> None:
        super().__init__(number, os.strerror(number))
        self.call = call
        if note := explain(call.name, number, call.arguments):
            self.add_note(note)


class DiedBeforeExecve(Exception):
    """The child of a program was killed before it had come to its execve; the text says how it ended."""


_NOT_MADE = -(1 << 62)  # where a call's result will be: no call returns this


class Program:
    """A list of system calls. Write it with `call`, then `spawn` it, or `perform` it in the calling process."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.folders: dict[tuple[Value, str], Value] = {}  #: opened already, by root and path: `labkit.mounts.in_root`
        self._step = ""
        self._memory: mmap.mmap | None = None
        self._base = 0  # its address

    def step(self, description: str) -> None:
        """Begin a step: what the calls from here on are for, to be named should one fail."""
        self._step = description

    def call(
        self,
        name: str,
        *arguments: "Argument",
        returns: str = "",
        may_fail: bool = False,
        result: Value | None = None,
    ) -> Value:
        """Add the system call `name`; what it will return can be an argument of later calls. `returns` names it.

        `result` is where to put it, if that has been said before (in a `Block`).
        """
        result = result or Value(returns)
        self.calls.append(Call(name, arguments, result, may_fail, self._step))
        return result

    def __str__(self) -> str:
        return "\n".join(str(call) for call in self.calls)

    # Carrying it out

    def spawn(
        self, flags: int, parameters: "Iterable[tuple[Value, int]]" = (), cgroup_fd: int | None = None
    ) -> tuple[int, int]:
        """Run it in a child made with the CLONE_* `flags`; return (pid, pidfd) once its execve has succeeded.

        The child is born in the control group whose directory is `cgroup_fd`. `CallFailed`: a call failed, or execve
        did; the child has ended and has been waited for then. Only for a process of a single thread.
        """
        pid, pidfd = self.clone(flags, parameters, cgroup_fd, asleep=True)
        self.check(pid, pidfd)
        return pid, pidfd

    def clone(
        self,
        flags: int,
        parameters: "Iterable[tuple[Value, int]]",
        cgroup_fd: int | None,
        *,
        asleep: bool,
        tid_address: int = 0,
    ) -> tuple[int, int]:
        """Begin it in a child; return (pid, pidfd). At `tid_address`, if it is given, the PID is stored at once.

        With `asleep` this process sleeps meanwhile, until execve or the child's end. Else the child runs beside it: the
        caller must find out by other means how far it has come (a pipe that execve closes, say), and until then this
        program cannot be run again. In the end, `check` or `failure`.
        """
        self.lay_out()
        memory = self._memory
        assert memory
        for value, number in parameters:
            if value.word >= 0:
                struct.pack_into("=q", memory, value.word * 8, number)
        struct.pack_into("=Q", memory, 0, 0)
        if last := self._last_before_execve():
            struct.pack_into("=q", memory, last.result.word * 8, _NOT_MADE)
        machine_loop = trampoline.machine_loop()
        flags |= c.CLONE_CLEAR_SIGHAND
        if asleep:
            # Where the loop is Python's, the child needs memory of its own.
            flags |= c.CLONE_VFORK | (c.CLONE_VM if machine_loop else 0)
        if machine_loop:
            pidfd = ctypes.c_int(-1)
            arguments = syscalls.clone_args(flags, ctypes.addressof(pidfd), cgroup_fd, tid_address)
            pid = machine_loop(arguments, len(arguments), self._base)
            if pid < 0:
                raise os_error(-pid, "clone3", flags)
            return pid, pidfd.value
        pid, fd = syscalls.clone3(flags, cgroup_fd=cgroup_fd)
        if not pid:
            self._interpret(memory)
        return pid, fd

    def lay_out(self) -> None:
        """Lay it out in memory that is shared with children to come, if that has not been done yet."""
        if self._memory is None:
            self._memory, self._base = layout.lay_out(self.calls)

    def check(self, pid: int, pidfd: int) -> None:
        """Raise `failure`, if there was one, or `DiedBeforeExecve`, once the child has been waited for."""
        failed = self.failure()
        if failed or not self.came_to_execve():
            os.close(pidfd)
            status = reaping.status_of(pid)
            raise failed or DiedBeforeExecve(how_it_ended(status))

    def came_to_execve(self) -> bool:
        """Whether the last run has made every call before its execve. An end of file alone does not tell.

        A child that is killed between those two calls counts as one that has executed its command, and was killed.
        """
        last = self._last_before_execve()
        return last is None or self._result(last) != _NOT_MADE

    def _last_before_execve(self) -> Call | None:
        first = next((at for at, call in enumerate(self.calls) if call.name == "execve"), 0)
        return self.calls[first - 1] if first else None

    def failure(self) -> CallFailed | None:
        """The call that failed in the last run, if one did."""
        assert self._memory
        (failed,) = struct.unpack_from("=Q", self._memory, 0)
        if not failed:
            return None
        call = self.calls[((failed - self._base) // 8 - layout.record(0)) // layout.WORDS_PER_CALL]
        return CallFailed(-self._result(call), call)

    def results(self) -> "list[tuple[Call, int]]":
        """The calls with what they returned in the last run: a negative number is an errno."""
        return [(call, self._result(call)) for call in self.calls]

    def perform(self) -> None:
        """Carry it out in the calling process, with an exception as `labkit.syscalls` would raise it."""
        self._memory, self._base = layout.lay_out(self.calls)
        for position, call in enumerate(self.calls):
            result = _invoke(self._memory, layout.record(position))
            if result < 0 and not call.may_fail:
                raise os_error(-result, call.name, *call.arguments)

    def _interpret(self, memory: mmap.mmap) -> None:
        """The loop in Python, for a forked child: the same memory, which is shared, and the same outcome."""
        with suppress(BaseException):
            for position, call in enumerate(self.calls):
                record = layout.record(position)
                if _invoke(memory, record) < 0 and not call.may_fail:
                    struct.pack_into("=Q", memory, 0, self._base + 8 * record)
                    break
        os._exit(127)

    def _result(self, call: Call) -> int:
        assert self._memory
        return int(struct.unpack_from("=q", self._memory, call.result.word * 8)[0])


def how_it_ended(status: int) -> str:
    """The status of wait(2) in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"it was killed by signal {-code}" if code < 0 else f"it ended with exit code {code}"


def _invoke(memory: mmap.mmap, record: int) -> int:
    """Make the call at word `record`, keep and return its result: a negative number is an errno."""
    number, *addresses = struct.unpack_from("=8Q", memory, 8 * record)
    arguments = [ctypes.c_uint64.from_address(address).value for address in addresses[:6]]
    result = syscalls.raw(number, *arguments)
    ctypes.c_int64.from_address(addresses[6]).value = result
    return result
