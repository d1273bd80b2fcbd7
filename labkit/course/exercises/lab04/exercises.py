"""The exercises of lab 04, A computer inside a process: be the hypervisor of a guest drawn at random.

The learner's function drives a machine in a child process. The machine keeps what happened to it, so that a check can
say which of a port's numbers was overlooked. Every check runs two machines: this computer's own kind, and one in
software whose page is laid out differently.
"""

from collections.abc import Callable

from labkit.course.exercises.lab04.guests import Drive, Told, assemble, drive_both, read_port, write_port
from labkit.course.exercises.lab04.isolation_table import Shares
from labkit.course.exercises.lab04.remote_machine import Clock, drive_far
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.kvm import Machine

DEBUG_PORT = 0xE9
RESULTS = 0x3000  # where the guests of `uptime` keep what they were told


class Serve(Exercise):
    """Handle the exits of a guest that writes to a port."""

    name = "serve"
    title = "Handle the port exit"
    points = 2
    start = (
        "Begin with the loop: let the guest run on with `machine.resume()`, then look at `machine.state.exit_reason`."
    )
    hints = (
        (
            "A hypervisor is a loop: let the guest run, ask why it has stopped, do what it needs, and again. Which of "
            "the exits is the guest's own end?"
        ),
        (
            "With `KVM_EXIT_IO`, four numbers of `machine.state.io` matter besides the port: `direction`, `size`, "
            "`count` and `data_offset`. The bytes themselves lie in `machine.page`."
        ),
        (
            "`io = machine.state.io`, and then the bytes are "
            "`machine.page[io.data_offset : io.data_offset + io.size * io.count]`. Return at `KVM_EXIT_HLT`."
        ),
    )
    because = (
        "`size * count` bytes, wherever `data_offset` says: nothing in it is guessed, so it serves any guest. The "
        "halt is the guest's way to say that it is done."
    )

    def check(self, serve: Callable[[Machine], bytes]) -> Verdict:
        """Have it serve a guest that writes items of 1, 2 and 4 bytes, to this port and to another, and reads once."""
        sizes = [1, 2, 4, *(self.random.choice((1, 2, 4)) for _ in range(self.draw_number(2, 6)))]
        self.random.shuffle(sizes)
        items = [self.random.randbytes(size) for size in sizes]
        elsewhere = self.random.randbytes(1)
        code = b"".join(write_port(DEBUG_PORT, item) for item in items)
        code += write_port(0x80, elsewhere) + read_port(DEBUG_PORT, 1)
        guest = assemble("writes to ports", code)
        drives = drive_far(self, guest, serve) if self.in_room else drive_both(self, _serve, guest, serve, ())
        if isinstance(drives, NotYet):
            return drives
        for drive in drives:
            if (verdict := _served(drive, items, elsewhere)) is not None:
                return verdict
        return Passed(
            f"The guest wrote {len(items)} times to port {DEBUG_PORT:#x}, {sum(sizes)} bytes in items of different "
            f"sizes; `serve()` returned just these, and the guest was resumed {len(drives[0].told)} times until it "
            "halted.",
            "This loop is the heart of every virtual machine monitor; QEMU's is called `kvm_cpu_exec`.",
        )


def _serve(machine: Machine, serve: Callable[[Machine], object]) -> object:
    return serve(machine)


def _served(drive: Drive, items: list[bytes], elsewhere: bytes) -> Verdict | None:
    wanted = b"".join(items)
    if not isinstance(drive.value, bytes | bytearray):
        return NotYet(
            f"The guest has halted, and `serve()` returned {drive.value!r}.",
            "What is asked for are the bytes themselves, as `bytes`: `machine.page[begin:end]` gives such.",
        )
    got = bytes(drive.value)
    if got == wanted:
        return None
    writes = [one for one in drive.told if one.is_write and one.port == DEBUG_PORT]
    seen = f"The guest sent {wanted.hex(' ')}, and `serve()` returned {got.hex(' ') or 'nothing'}."
    if got == b"".join(item[:1] for item in items):
        return NotYet(
            seen,
            "Only the first byte of each item is there. With one `out` a guest can write 1, 2 or 4 bytes: how many, "
            "says `io.size`.",
        )
    if got in (wanted + elsewhere, elsewhere + wanted) or sorted(got) == sorted(wanted + elsewhere):
        return NotYet(
            seen,
            f"{elsewhere.hex()} was written to port 0x80, where another device is. Whom a write is for, says "
            "`io.port`.",
        )
    if got.startswith(wanted) or len(got) == len(wanted) + 1:
        return NotYet(
            seen,
            f"One byte too many: the guest also *reads* port {DEBUG_PORT:#x} once. Whether it writes or reads, says "
            "`io.direction`.",
        )
    if got in [
        b"".join(one.at[place][: length(one)] for one in writes)
        for place in ("start", "union", "struct")
        for length in (lambda one: one.size * one.count, lambda one: 1)
    ] or len(got) == len(wanted):
        return NotYet(
            seen,
            f"As many bytes, but others: they were read from another place. This time they lay at "
            f"{writes[0].data_offset} in `machine.page`; that is counted from the beginning of the page, and "
            "`io.data_offset` says it with each exit.",
        )
    return NotYet(seen, "Look at each exit as it comes: port, direction, size, count, and where the bytes lie.")


class Uptime(Exercise):
    """Answer a guest that asks for the time."""

    name = "uptime"
    title = "Tell a guest the time"
    points = 3
    start = "Begin with the loop of the exercise before. What is new: a read (`KVM_EXIT_IO_IN`) wants an answer."
    hints = (
        (
            "The guest stands in the middle of an instruction, `in`. When it is resumed, KVM completes that with "
            "bytes that it takes from somewhere. Where did the bytes of an `out` lie?"
        ),
        (
            "Before you resume the guest, put the answer into `machine.page`, at `io.data_offset`: `io.count` numbers "
            "of `io.size` bytes each, the low byte first."
        ),
        (
            '`answer = now().to_bytes(io.size, "little") * io.count`, and then '
            "`machine.page[io.data_offset : io.data_offset + len(answer)] = answer`."
        ),
    )
    because = (
        "A device that is read is a place in the page that is written. A guest that asks its hypervisor for something "
        "on purpose, as here, makes a *hypercall*; clocks are what real guests ask for most."
    )

    def check(self, uptime: Callable[[Machine, int, Callable[[], int]], object]) -> Verdict:
        """Have it answer a guest that reads the port once in 2 bytes, once in 4, several at once, and another port."""
        port = self.draw_number(0x20, 0x7F)
        other = port ^ 0x80
        several = self.draw_number(3, 6)
        asks = [(2, 1), (4, 1), (2, several)]
        self.random.shuffle(asks)
        code, place, places = b"", RESULTS, []
        for size, count in asks:
            code += read_port(port, size, count, to=place)
            places.append((place, size, count))
            place += size * count
        code += read_port(other, 2, 1, to=place)
        guest = assemble("asks for the time", code)
        times = sorted(self.random.sample(range(0x0102, 0xFFF0), 64))
        if self.in_room:
            drives = drive_far(self, guest, uptime, Clock(port, tuple(times), RESULTS, place + 2))
        else:
            drives = drive_both(self, _tell, guest, uptime, (port, times, place + 2))
        if isinstance(drives, NotYet):
            return drives
        for drive in drives:
            if (verdict := _told_the_time(drive, port, other, places, place)) is not None:
                return verdict
        return Passed(
            f"The guest read port {port:#x} three times, {2 + several} numbers in all, and each one that it found is a "
            "time that the clock said in that moment.",
            "It has no clock, and knows the time all the same: a hypercall. KVM's own guests do so with `kvmclock`.",
        )


def _tell(
    machine: Machine, uptime: Callable[[Machine, int, Callable[[], int]], object], port: int, times: list[int], end: int
) -> tuple[bytes, list[int]]:
    said: list[int] = []

    def now() -> int:
        said.append(times[len(said) % len(times)])
        return said[-1]

    uptime(machine, port, now)
    return bytes(machine.memory[RESULTS:end]), said


def _told_the_time(
    drive: Drive, port: int, other: int, places: list[tuple[int, int, int]], other_place: int
) -> Verdict | None:
    memory, said = drive.value
    reads = [one for one in drive.told if one.is_read and one.port == port]
    for (place, size, count), told in zip(places, reads, strict=True):
        found = memory[place - RESULTS : place - RESULTS + size * count]
        numbers = [int.from_bytes(found[at : at + size], "little") for at in range(0, len(found), size)]
        if all(number in said for number in numbers):
            continue
        return _wrong_time(told, found, size, count, numbers, said)
    # A read that nobody answers finds what the last answer has left on the page, so it is the page that counts.
    answered = any(one.is_read and one.port == other and one.changed_in_place for one in drive.told)
    if answered and int.from_bytes(memory[other_place - RESULTS :], "little") in said:
        return NotYet(
            f"The guest also read port {other:#x}, and got the time there, too.",
            f"Only port {port:#x} is the clock. Whom a read is for, says `io.port`.",
        )
    return None


def _wrong_time(told: Told, found: bytes, size: int, count: int, numbers: list[int], said: list[int]) -> Verdict:
    asked = f"The guest read {count} number(s) of {size} bytes, and found {', '.join(map(str, numbers))}."
    if not said:
        return NotYet(f"{asked} `now()` was never called.", "The time is what `now()` says.")
    clock = f"{asked} The clock had said {', '.join(map(str, said[:4]))}{', ...' if len(said) > 4 else ''}."
    if not told.changed:
        return NotYet(
            f"{clock} When the guest was resumed, the page was as KVM had left it.",
            "The answer did not get there. An `in` completes when the guest is resumed, with the bytes that lie in "
            "`machine.page` at `io.data_offset` then; what you do to registers or memory does not count.",
        )
    if not told.changed_in_place:
        return NotYet(
            f"{clock} The page was written to, and not at {told.data_offset}.",
            "KVM looks for the answer at `io.data_offset`, counted from the beginning of the page.",
        )
    if any(int.from_bytes(found[at : at + size], "big") in said for at in range(0, len(found), size)):
        return NotYet(
            clock,
            'The bytes are in the wrong order: this processor keeps the low byte first, which Python calls `"little"`.',
        )
    if numbers[0] in said and count > 1:
        return NotYet(
            clock,
            f"The first is right. With `rep ins` a guest reads several in one go: `io.count` was {count} this time, "
            "and each of them wants its bytes.",
        )
    return NotYet(clock, f"`io.size` was {size}: each number of the answer has just so many bytes.")


class TenFacts(Shares):
    """Ten facts about a process, a container and a guest."""

    name = "shares"
