"""Beginning a process in namespaces that it has to be born in."""

import ctypes
import errno
import mmap
import os
import signal
import socket
import struct
from contextlib import suppress

from labkit import constants as c
from labkit import syscalls
from labkit.kernel import nofile, reaping, record, scm_rights
from labkit.kernel.record import Record
from labkit.launch import steps
from labkit.launch.pending import Wait
from labkit.program import DiedBeforeExecve, Program, how_it_ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import NoReturn

    from labkit.program import Value


START_SECONDS = 20.0  #: within which a process comes to its command. Who is in the container already may stop it


class Began(Record):
    """What the copy says: the child has begun. Its pidfd comes along."""

    pid: int


class CannotJoin(Record):
    """What the copy says: there is no child, and why."""

    errno: int
    text: str
    notes: "list[str]"


class NamespaceJoiner:
    """Begins a program in namespaces of others: pairs of a kind, and a descriptor.

    setns(2) moves no process into another PID namespace, but decides where its children are. And a child that is born
    in a user namespace of its own has no power over namespaces made outside, and could not join them by itself. There
    may be no way back for whoever goes there, so a copy of the zygote goes, and makes a child that is the zygote's own
    (CLONE_PARENT).
    """

    def __init__(self, program: Program, namespaces: "list[tuple[str, int]]") -> None:
        self.program, self.namespaces = program, namespaces

    def clone(
        self, flags: int, parameters: "Sequence[tuple[Value, int]]", cgroup_fd: int | None, *, asleep: bool
    ) -> "Generator[Wait, bool, tuple[int, int]]":
        """As `Program.clone`, but nobody sleeps: what is yielded is to be waited for.

        `OSError`: one of the namespaces cannot be joined, or the child is held up.
        """
        self.program.lay_out()  # here, so that the zygote sees in it what becomes of the child
        tid = mmap.mmap(-1, mmap.PAGESIZE)  # the child's PID: shared, and written before the child does anything
        answer, its_answer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its_answer:
            try:
                copy = os.fork()
            except OSError:
                answer.close()
                raise
            if copy == 0:
                self._go(its_answer, tid, flags, parameters, cgroup_fd, asleep)

        def pids() -> tuple[int, ...]:
            return (copy, *struct.unpack_from("=i", tid))

        said = b""
        try:
            if not (yield Wait(answer.fileno(), START_SECONDS, pids)):
                raise OSError(
                    errno.ETIMEDOUT, f"it was held up for {START_SECONDS:.0f} s by a process in the container"
                )
            # With its pidfd: by its number it could not be found any more, should it have ended already.
            said, pidfd = scm_rights.receive(answer, 65536, 1)
        finally:
            if not said:
                _kill(*pids())
            answer.close()
            status = reaping.status_of(copy)
        if not said:
            raise DiedBeforeExecve(how_it_ended(status))
        told = record.loads(said)
        if isinstance(told, Began):
            return told.pid, pidfd[0]
        error = OSError(told.errno, told.text)
        for note in told.notes:
            error.add_note(note)
        raise error

    def _go(
        self,
        answer: socket.socket,
        tid: mmap.mmap,
        flags: int,
        parameters: "Sequence[tuple[Value, int]]",
        cgroup_fd: int | None,
        asleep: bool,
    ) -> "NoReturn":
        try:
            # It may be held up for long, and has copies of whatever the zygote had open.
            needed = [answer.fileno(), *(fd for _, fd in parameters), *(fd for _, fd in self.namespaces)]
            nofile.close_but([*needed, *([] if cgroup_fd is None else [cgroup_fd])])
            # Whoever is there already may stop the newcomer, and would have its memory, which is this process's until
            # the newcomer executes its command, and what it has open. CVE-2016-9962.
            syscalls.prctl(c.PR_SET_DUMPABLE, 0)
            address = ctypes.addressof(ctypes.c_char.from_buffer(tid))
            for kind, fd in self.namespaces:
                syscalls.setns(fd, steps.FLAGS[kind])
            pid, pidfd = self.program.clone(
                flags | c.CLONE_PARENT, parameters, cgroup_fd, asleep=asleep, tid_address=address
            )
            scm_rights.send(answer, record.dumps(Began(pid=pid)), [pidfd])
        except OSError as error:
            notes = list(getattr(error, "__notes__", []))
            scm_rights.send(
                answer, record.dumps(CannotJoin(errno=error.errno or 0, text=error.strerror or "", notes=notes))
            )
        finally:
            os._exit(0)


def _kill(*pids: int) -> None:
    for pid in pids:
        if pid and pid not in reaping.early:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
