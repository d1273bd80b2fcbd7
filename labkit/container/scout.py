"""Beginning a process in namespaces that it has to be born in."""

import marshal
import os

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
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            scout = os.fork()
        except OSError:
            os.close(reader)
            os.close(writer)
            raise
        if scout == 0:
            self._go(writer, flags, parameters, cgroup_fd, asleep)
        os.close(writer)
        try:
            said = os.read(reader, 65536)
        finally:
            os.close(reader)
            _, status = os.waitpid(scout, 0)
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
        self, writer: int, flags: int, parameters: "Iterable[tuple[Value, int]]", cgroup_fd: int | None, asleep: bool
    ) -> "NoReturn":
        try:
            for kind, fd in self.namespaces:
                syscalls.setns(fd, steps.FLAGS[kind])
            pid, _ = self.program.clone(flags | c.CLONE_PARENT, parameters, cgroup_fd, asleep=asleep)
            os.write(writer, marshal.dumps((pid, 0, "", [])))
        except OSError as error:
            os.write(writer, marshal.dumps((0, error.errno, error.strerror, list(getattr(error, "__notes__", [])))))
        finally:
            os._exit(0)
