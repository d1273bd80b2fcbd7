"""A machine at a distance: for a learner's loop that nobody vouches for, and that keeps no account of itself.

The machine, its guest and the clock are in a process of the check's own. In the learner's process there is something
that looks like a machine, and asks the other one for all of it::

    learner's process                              the check's
    FarMachine ── "resume", the page ──▶ a machine that keeps what happens to it
               ◀── the page, the memory ──
               ── "time" ──▶ a clock that keeps what it has said
"""

import ctypes
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from labkit.course.exercises.lab04.guests import SECONDS, Drive, kind_of, loop_is_wrong
from labkit.course.framework import pace
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet
from labkit.errors import ChildDied
from labkit.kvm import Guest, Machine, NeverHalted, api
from labkit.kvm.api import KvmRegs, KvmRun, KvmSregs
from labkit.process import spawn, spawn_closed
from labkit.process.worker import read_message, write_message

_TICKS = 8  # bytes of a time


@dataclass(frozen=True)
class Clock:
    """What the clock says, and where in the guest's memory the check looks for it afterwards."""

    port: int
    times: tuple[int, ...]
    begin: int
    end: int


def drive_far(
    exercise: Exercise, guest: Guest, function: Callable[..., object], clock: Clock | None = None
) -> list[Drive] | NotYet:
    """As `drive_both`. With a clock, `value` is what the guest found in its memory, and what the clock has said."""
    drives = []
    for data_offset in (0, exercise.draw_number(600, 3000)):
        name = f"labkit-{exercise.draw_name()}-{exercise.random.randbytes(6).hex()}"
        with spawn_closed(_listen, name) as theirs, spawn(int) as ours:
            theirs.send(_serve, data_offset, guest, clock)
            value, trouble = _pair(ours.call(_drive, name, function, clock.port if clock else None))
            if not theirs.answered(pace.scaled(SECONDS)):
                raise ChildDied("the machine was not let go")
            kept: Drive = theirs.value
        drive = replace(kept, value=kept.value if clock else value, trouble=trouble)
        if (wrong := loop_is_wrong(drive, function.__name__)) is not None:
            return wrong
        drives.append(drive)
    return drives


def _pair(told: object) -> tuple[Any, str]:
    match told:
        case (value, str() as trouble):
            return value, trouble
    return None, ""


# The check's process

_server: socket.socket


def _listen(name: str) -> None:
    global _server
    _server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    _server.bind(f"\0{name}")
    _server.listen(1)


def _serve(data_offset: int, guest: Guest, clock: Clock | None) -> Drive:
    said: list[int] = []
    connection, _ = _server.accept()
    with connection, kind_of(data_offset)(guest, seconds=SECONDS) as machine:
        with suppress(OSError):
            write_message(connection, bytes(machine.page))
            while message := read_message(connection):
                _answer(connection, machine, clock, said, message)
        found = (bytes(machine.memory[clock.begin : clock.end]), said) if clock else None
        return Drive(found, tuple(machine.told))


def _answer(connection: socket.socket, machine: Any, clock: Clock | None, said: list[int], message: bytes) -> None:
    what, data = message[:1], message[1:]
    if what == b"r" and len(data) == len(machine.page):
        machine.page[:] = data
        try:
            machine.resume()
        except NeverHalted:
            write_message(connection, b"never")
            return
        write_message(connection, bytes(machine.page) + bytes(machine.memory))
    elif what == b"t" and clock:
        said.append(clock.times[len(said) % len(clock.times)])
        write_message(connection, said[-1].to_bytes(_TICKS, "little"))
    elif what == b"g":
        write_message(connection, bytes(machine.get_regs()))
    elif what == b"s" and len(data) == ctypes.sizeof(KvmRegs):
        machine.set_regs(KvmRegs.from_buffer_copy(data))
        write_message(connection, b"set")
    else:
        raise OSError("nothing that a machine is asked")


# The learner's process


class FarMachine(Machine):
    """A machine to look at and to resume; what is done to its memory stays here."""

    kind: ClassVar[str] = "a machine in another process"

    def __init__(self, name: str) -> None:
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.connect(f"\0{name}")
        self.seconds, self.halted = SECONDS, False
        self.page, self.memory = bytearray(read_message(self._connection) or b""), bytearray()

    def _ask(self, message: bytes) -> bytes:
        write_message(self._connection, message)
        answer = read_message(self._connection)
        if answer is None:
            raise ConnectionResetError("the machine is gone")
        return answer

    def resume(self) -> None:
        """Let the guest run on until it exits."""
        answer = self._ask(b"r" + bytes(self.page))
        if answer == b"never":
            raise NeverHalted(self.seconds)
        self.page[:], self.memory[:] = answer[: len(self.page)], answer[len(self.page) :]
        self.halted = self.halted or KvmRun.from_buffer_copy(self.page).exit_reason == api.KVM_EXIT_HLT

    def now(self) -> int:
        """What the clock says."""
        return int.from_bytes(self._ask(b"t"), "little")

    def get_regs(self) -> KvmRegs:
        """`struct kvm_regs` as it is now."""
        return KvmRegs.from_buffer_copy(self._ask(b"g"))

    def set_regs(self, regs: KvmRegs) -> None:
        """Replace all of `struct kvm_regs`."""
        self._ask(b"s" + bytes(regs))

    def get_sregs(self) -> KvmSregs:
        """Not to be had from here."""
        raise NotImplementedError("the special registers of this machine are not shown")

    def close(self) -> None:
        """Let it go."""
        self._connection.close()


def _drive(name: str, function: Callable[..., object], port: int | None) -> tuple[object, str]:
    with FarMachine(name) as machine:
        try:
            return function(machine, *(() if port is None else (port, machine.now))), ""
        except NeverHalted:
            return None, "endless"
        except Exception as error:
            if not machine.halted:
                raise
            return None, f"{type(error).__name__}: {error}"
