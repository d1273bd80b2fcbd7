"""What the exercises of lab 04 share: guests made of a few instructions, and machines that keep what happened to them.

A learner's loop is driven in a child, once on this computer's kind of machine and once on one in software whose page is
laid out at random; what went wrong in the loop itself, before any answer, is said here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet
from labkit.kvm import Code, Guest, KvmMachine, Machine, NeverHalted, SoftwareMachine, api, unsupported
from labkit.kvm.exits import place_of_answer
from labkit.process import run_in_child

ORIGIN = 0x1000
SECONDS = 3.0  # for a guest of some dozen instructions
_UNION = 32  # where in kvm_run the part begins that an exit's reason decides on
_HALT_FOR_EVER = bytes.fromhex("f4 eb fd")  # hlt; jmp back to it


def write_port(port: int, data: bytes) -> bytes:
    """The code of a guest in real mode that writes 1, 2 or 4 bytes to a port below 0x100."""
    load = b"\x66\xb8" + data.ljust(4, b"\0")  # mov eax, ...
    return load + {1: b"\xe6", 2: b"\xe7", 4: b"\x66\xe7"}[len(data)] + bytes([port])  # out port, al / ax / eax


def read_port(port: int, size: int, count: int = 1, to: int = 0x3F00) -> bytes:
    """The code of a guest that reads `count` items of `size` bytes into its memory at `to`: with `in`, or `rep ins`."""
    wide = b"\x66" if size == 4 else b""
    where = to.to_bytes(2, "little")
    if count == 1:
        clear = b"\x66\xb8" + bytes(4)
        if size == 1:
            return clear + b"\xe4" + bytes([port]) + b"\xa2" + where  # in al, port; mov [to], al
        return clear + wide + b"\xe5" + bytes([port]) + wide + b"\xa3" + where
    load = b"\xba" + port.to_bytes(2, "little") + b"\xbf" + where + b"\xb9" + count.to_bytes(2, "little")
    return load + wide + b"\xf3\x6d"  # mov dx, port; mov di, to; mov cx, count; rep ins


def assemble(name: str, code: bytes) -> Guest:
    """A guest in real mode that does this and halts."""
    return Guest(name, (Code(ORIGIN, code + _HALT_FOR_EVER, "", (), {}),))


@dataclass
class Told:
    """One exit of a guest, and what had become of the page when it was resumed."""

    reason: int
    direction: int
    port: int
    size: int
    count: int
    data_offset: int
    at: dict[str, bytes] = field(default_factory=dict)  #: what lies at the places that are mistaken for the right one
    changed: bool = False
    changed_in_place: bool = False

    @property
    def is_write(self) -> bool:
        """The guest has written to a port."""
        return self.reason == api.KVM_EXIT_IO and self.direction == api.KVM_EXIT_IO_OUT

    @property
    def is_read(self) -> bool:
        """The guest reads a port."""
        return self.reason == api.KVM_EXIT_IO and self.direction == api.KVM_EXIT_IO_IN


@dataclass(frozen=True)
class Drive:
    """What the learner's function returned, and the exits that it met."""

    value: Any
    told: tuple[Told, ...]
    trouble: str = ""  #: what it raised when the guest had halted; "endless" where it was stopped


class _Keeping(Machine):
    """A machine that keeps its exits."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.told: list[Told] = []
        self._page_before = b""
        super().__init__(*arguments, **named)

    def resume(self) -> None:
        """As ever, with a look at the page before and after."""
        if self.told:
            before, now = self._page_before, bytes(self.page[:])
            begin, length = place_of_answer(before)
            answer = now[begin : begin + length]
            self.told[-1].changed = now != before
            self.told[-1].changed_in_place = answer != before[begin : begin + length]
            # What was written to a wrong place must not be taken for a request, such as immediate_exit.
            self.page[:] = before
            self.page[begin : begin + length] = answer
        super().resume()
        self._page_before = bytes(self.page[:])
        run, io = self.state, self.state.io
        places = {"start": 0, "union": _UNION, "struct": _UNION + io.data_offset}
        length = min(io.size * io.count, 64)
        at = {name: self._page_before[begin : begin + length] for name, begin in places.items()}
        self.told.append(Told(run.exit_reason, io.direction, io.port, io.size, io.count, io.data_offset, at))


class _KeepingKvm(_Keeping, KvmMachine):
    pass


class _KeepingSoftware(_Keeping, SoftwareMachine):
    pass


def drive_both(
    exercise: Exercise,
    how: Callable[..., object],
    guest: Guest,
    function: Callable[..., object],
    more: Sequence[object],
) -> list[Drive] | NotYet:
    """Drive `guest` by the learner's `function` on both kinds of machine; or what is wrong with its loop."""
    drives = []
    for data_offset in (0, exercise.draw_number(600, 3000)):
        drive = run_in_child(_drive, data_offset, how, guest, function, more)
        if (wrong := loop_is_wrong(drive, function.__name__)) is not None:
            return wrong
        drives.append(drive)
    return drives


def kind_of(data_offset: int) -> "type[_Keeping]":
    """In a child: its kind of machine. `data_offset` 0: this computer's own kind, with the page that it has."""
    if data_offset:
        _KeepingSoftware.data_offset = data_offset  # this child is there for this machine alone
    return _KeepingSoftware if data_offset or unsupported() else _KeepingKvm


def _drive(
    data_offset: int, how: Callable[..., object], guest: Guest, function: Callable[..., object], more: Sequence[object]
) -> Drive:
    """In the child."""
    with kind_of(data_offset)(guest, seconds=SECONDS) as machine:
        try:
            return Drive(how(machine, function, *more), tuple(machine.told))
        except NeverHalted:
            return Drive(None, tuple(machine.told), "endless")
        except Exception as error:
            if not _halts(machine.told):
                raise
            return Drive(None, tuple(machine.told), f"{type(error).__name__}: {error}")


def _halts(told: Sequence[Told]) -> int:
    return sum(one.reason == api.KVM_EXIT_HLT for one in told)


def loop_is_wrong(drive: Drive, name: str) -> NotYet | None:
    """What is wrong with the loop itself, whatever it answers; None: nothing."""
    exits, halts = len(drive.told), _halts(drive.told)
    if halts > 1:
        return NotYet(
            f"The guest halted, and `{name}()` resumed it {exits} times and never returned."
            if drive.trouble == "endless"
            else f"The guest halted, and `{name}()` resumed it again.",
            "With `KVM_EXIT_HLT` the guest has said all that it had to say: that is where your loop ends.",
        )
    if halts and drive.trouble:
        return NotYet(
            f"The guest halted, and `{name}()` raised {drive.trouble}.",
            "A halt is no error. The guest has nothing more to do, and this is how it says so: return.",
        )
    if not exits:
        return NotYet(
            f"`{name}()` returned, and the guest has not run at all.",
            "It runs while you are in `machine.resume()`, and nowhere else.",
        )
    if not halts:
        return NotYet(
            f"`{name}()` returned after {exits} exit(s), and the guest has not halted yet.",
            "An exit is a pause: the guest waits for you, and goes on with the next `machine.resume()`. Go on until "
            "it halts.",
        )
    return None
