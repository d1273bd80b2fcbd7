"""Beginning a process in namespaces that it has to be born in."""

import ctypes
import errno
import marshal
import mmap
import os
import select
import signal
import struct
from contextlib import suppress

from labkit import constants as c
from labkit import syscalls
from labkit.container import steps
from labkit.program import DiedBeforeExecve, Program, how_it_ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn, Protocol

    from labkit.program import Value

    class Clone(Protocol):
        """`Program.clone`, or what goes elsewhere first."""

        def __call__(
            self, flags: int, parameters: "Iterable[tuple[Value, int]]", cgroup_fd: int | None, *, asleep: bool
        ) -> tuple[int, int]: ...


START_SECONDS = 20.0  #: within which a process comes to its command. Who is in the container already may stop it


class Scout:
    """Begins a program in namespaces of others: pairs of a kind, and a descriptor.

    setns(2) moves no process into another PID namespace, but decides where its children are. And a child that is born
    in a user namespace of its own has no power over namespaces made outside, and could not join them by itself. There
    may be no way back for whoever goes there, so a copy of the zygote goes, and makes a child that is the zygote's own
    (CLONE_PARENT).
    """

    def __init__(self, program: Program, namespaces: "list[tuple[str, int]]") -> None:
        self.program, self.namespaces = program, namespaces

    def clone(
        self, flags: int, parameters: "Iterable[tuple[Value, int]]", cgroup_fd: int | None, *, asleep: bool
    ) -> tuple[int, int]:
        """As `Program.clone`. `OSError`: one of the namespaces cannot be joined."""
        self.program.lay_out()  # here, so that the zygote sees in it what becomes of the child
        tid = mmap.mmap(-1, mmap.PAGESIZE)  # the child's PID: shared, and written before the child does anything
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            scout = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        if scout == 0:
            self._go(writer, tid, flags, parameters, cgroup_fd, asleep)
        os.close(writer)
        try:
            in_time = select.select([reader], [], [], START_SECONDS)[0]
            if not in_time:
                _kill(scout, *struct.unpack_from("=i", tid))
            said = os.read(reader, 65536) if in_time else b""
        finally:
            os.close(reader)
            _, status = os.waitpid(scout, 0)
        if not in_time:
            raise OSError(errno.ETIMEDOUT, f"it was held up for {START_SECONDS:.0f} s by a process in the container")
        if not said:
            raise DiedBeforeExecve(how_it_ended(status))
        pid, number, text, notes = marshal.loads(said)
        if pid:
            return pid, syscalls.pidfd_open(pid)
        error = OSError(number, text)
        for note in notes:
            error.add_note(note)
        raise error

    def _go(
        self,
        writer: int,
        tid: mmap.mmap,
        flags: int,
        parameters: "Iterable[tuple[Value, int]]",
        cgroup_fd: int | None,
        asleep: bool,
    ) -> "NoReturn":
        try:
            # Whoever is there already may stop the newcomer, and would have its memory, which is this process's until
            # the newcomer executes its command, and what it has open. CVE-2016-9962.
            syscalls.prctl(c.PR_SET_DUMPABLE, 0)
            address = ctypes.addressof(ctypes.c_char.from_buffer(tid))
            for kind, fd in self.namespaces:
                syscalls.setns(fd, steps.FLAGS[kind])
            pid, _ = self.program.clone(
                flags | c.CLONE_PARENT, parameters, cgroup_fd, asleep=asleep, tid_address=address
            )
            os.write(writer, marshal.dumps((pid, 0, "", [])))
        except OSError as error:
            os.write(writer, marshal.dumps((0, error.errno, error.strerror, list(getattr(error, "__notes__", [])))))
        finally:
            os._exit(0)


def _kill(*pids: int) -> None:
    for pid in pids:
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
