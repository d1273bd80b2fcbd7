"""Lab 04: each likely mistake gets its own message, and other right ways than the course's pass."""

import re

import pytest

from labkit import kvm
from labkit.course.authoring import execute, release
from labkit.course.authoring.trial import attempt
from labkit.course.exercises.lab04.guests import assemble, read_port, write_port
from labkit.course.framework.outcomes import NotYet, Passed
from labkit.course.source import lab_source

MISTAKES = {
    "one byte of each item": (
        "serve",
        """
def serve(machine):
    written = b""
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return written
        io = machine.state.io
        if io.direction == api.KVM_EXIT_IO_OUT and io.port == 0xE9:
            written += machine.page[io.data_offset : io.data_offset + 1]
""",
        "says `io.size`",
    ),
    "any port": (
        "serve",
        """
def serve(machine):
    written = b""
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return written
        io = machine.state.io
        if io.direction == api.KVM_EXIT_IO_OUT:
            written += machine.page[io.data_offset : io.data_offset + io.size * io.count]
""",
        "port 0x80, where another device is",
    ),
    "reads as well": (
        "serve",
        """
def serve(machine):
    written = b""
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return written
        io = machine.state.io
        if io.port == 0xE9:
            written += machine.page[io.data_offset : io.data_offset + io.size * io.count]
""",
        "says `io.direction`",
    ),
    "offset from the structure": (
        "serve",
        """
def serve(machine):
    written = b""
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return written
        io = machine.state.io
        if io.direction == api.KVM_EXIT_IO_OUT and io.port == 0xE9:
            begin = 32 + io.data_offset
            written += machine.page[begin : begin + io.size * io.count]
""",
        "counted from the beginning of the page",
    ),
    "an offset by heart": (
        "serve",
        """
def serve(machine):
    written = b""
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return written
        io = machine.state.io
        if io.direction == api.KVM_EXIT_IO_OUT and io.port == 0xE9:
            begin = 4096 if len(machine.page) > 4096 else 1024
            written += machine.page[begin : begin + io.size * io.count]
""",
        "`io.data_offset` says it with each exit",
    ),
    "a halt is an error": (
        "serve",
        """
def serve(machine):
    written = b""
    while True:
        machine.resume()
        if machine.state.exit_reason != api.KVM_EXIT_IO:
            raise RuntimeError("unexpected exit")
        io = machine.state.io
        if io.direction == api.KVM_EXIT_IO_OUT and io.port == 0xE9:
            written += machine.page[io.data_offset : io.data_offset + io.size * io.count]
""",
        "A halt is no error",
    ),
    "a halt is nothing": (
        "serve",
        """
def serve(machine):
    while True:
        machine.resume()
""",
        "that is where your loop ends",
    ),
    "no loop": (
        "serve",
        """
def serve(machine):
    machine.resume()
    io = machine.state.io
    return machine.page[io.data_offset : io.data_offset + io.size * io.count]
""",
        "An exit is a pause",
    ),
    "never resumed": (
        "serve",
        """
def serve(machine):
    return bytes(machine.page[:4])
""",
        "has not run at all",
    ),
    "text": (
        "serve",
        """
def serve(machine):
    written = ""
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return written
        written += "x"
""",
        "as `bytes`",
    ),
    "an error of its own": (
        "serve",
        """
def serve(machine):
    machine.resume()
    return machine.io
""",
        "has no attribute 'io'",
    ),
    "no answer": (
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
        if machine.state.io.port == port:
            now()
""",
        "as KVM had left it",
    ),
    "the clock is never asked": (
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
""",
        "`now()` was never called",
    ),
    "into a register": (
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
        if machine.state.io.port == port:
            machine.set_registers(rax=now())
""",
        "what you do to registers or memory does not count",
    ),
    "into the copy": (
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
        io = machine.state.io
        if io.port == port:
            data = bytearray(machine.page[:])
            data[io.data_offset : io.data_offset + io.size] = now().to_bytes(io.size, "little")
""",
        "as KVM had left it",
    ),
    "at the beginning of the page": (
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
        io = machine.state.io
        if io.port == port:
            answer = now().to_bytes(io.size, "little") * io.count
            machine.page[: len(answer)] = answer
""",
        "The page was written to, and not at",
    ),
    "from the structure on": (
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
        io = machine.state.io
        if io.port == port:
            answer = now().to_bytes(io.size, "little") * io.count
            machine.page[32 + io.data_offset : 32 + io.data_offset + len(answer)] = answer
""",
        "The page was written to, and not at",
    ),
    "the high byte first": (
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
        io = machine.state.io
        if io.port == port:
            answer = now().to_bytes(io.size, "big") * io.count
            machine.page[io.data_offset : io.data_offset + len(answer)] = answer
""",
        "in the wrong order",
    ),
    "the first of several": (
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
        io = machine.state.io
        if io.port == port:
            answer = now().to_bytes(io.size, "little")
            machine.page[io.data_offset : io.data_offset + len(answer)] = answer
""",
        "each of them wants its bytes",
    ),
    "one byte": (
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
        io = machine.state.io
        if io.port == port:
            answer = bytes([now() % 256]) * io.count
            machine.page[io.data_offset : io.data_offset + len(answer)] = answer
""",
        "has just so many bytes",
    ),
    "everybody gets the time": (
        "uptime",
        """
def uptime(machine, port, now):
    while True:
        machine.resume()
        if machine.state.exit_reason == api.KVM_EXIT_HLT:
            return
        io = machine.state.io
        answer = now().to_bytes(io.size, "little") * io.count
        machine.page[io.data_offset : io.data_offset + len(answer)] = answer
""",
        "is the clock",
    ),
    "one answer only": (
        "uptime",
        """
def uptime(machine, port, now):
    machine.resume()
    io = machine.state.io
    answer = now().to_bytes(io.size, "little") * io.count
    machine.page[io.data_offset : io.data_offset + len(answer)] = answer
    machine.resume()
""",
        "has not halted yet",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_gets_its_own_message(mistake: str) -> None:
    exercise, code, words = MISTAKES[mistake]
    outcome = attempt("04", exercise, code)
    assert isinstance(outcome, NotYet), outcome
    assert words in outcome.seen + outcome.why, outcome


RIGHT = {
    "exits as data": (
        "serve",
        """
def serve(machine):
    written = b""
    while not isinstance(stop := machine.run(), kvm.Halt):
        if isinstance(stop, kvm.PortOut) and stop.port == 0xE9:
            written += stop.data
    return written
""",
    ),
    "a device of one's own": (
        "serve",
        """
def serve(machine):
    printer = kvm.DebugPort(pass_on=lambda text: None)
    kvm.serve(machine, printer)
    return printer.output
""",
    ),
    "byte by byte": (
        "serve",
        """
def serve(machine):
    written = bytearray()
    machine.resume()
    while machine.state.exit_reason != api.KVM_EXIT_HLT:
        io = machine.state.io
        if (io.direction, io.port) == (1, 233):
            for item in range(io.count):
                for byte in range(io.size):
                    written.append(machine.page[io.data_offset + item * io.size + byte])
        machine.resume()
    return written
""",
    ),
    "answer": (
        "uptime",
        """
def uptime(machine, port, now):
    while not isinstance(stop := machine.run(), kvm.Halt):
        if stop.port == port:
            machine.answer(b"".join(now().to_bytes(stop.size, "little") for _ in range(stop.count)))
        else:
            machine.answer(b"\\xff" * stop.size)
""",
    ),
}


@pytest.mark.parametrize("way", RIGHT)
def test_another_right_way_passes(way: str) -> None:
    exercise, code = RIGHT[way]
    outcome = attempt("04", exercise, code)
    assert isinstance(outcome, Passed), outcome


def test_a_loop_that_never_resumes_ends_at_its_time_limit() -> None:
    code = "def serve(machine):\n    machine.resume()\n    while True:\n        machine.state\n"
    outcome = attempt("04", "serve", code)
    assert isinstance(outcome, NotYet)
    assert "had not returned after" in outcome.seen


def test_the_guests_of_the_checks_do_what_they_are_for() -> None:
    code = write_port(0xE9, b"ab") + read_port(0x20, 4, to=0x3000) + read_port(0x21, 2, 3, to=0x3004)
    with kvm.SoftwareMachine(assemble("drawn", code)) as machine:
        assert machine.run() == kvm.PortOut(0xE9, 2, 1, b"ab")
        assert machine.run() == kvm.PortIn(0x20, 4, 1)
        machine.answer(b"1234")
        assert machine.run() == kvm.PortIn(0x21, 2, 3)
        machine.answer(b"567890")
        assert machine.run() == kvm.Halt()
        assert machine.memory[0x3000:0x300A] == b"1234567890"


def test_without_the_device_the_lab_goes_on_in_software_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole solved lab where neither /dev/kvm nor QEMU can be found: its cells say so, and it goes on."""
    monkeypatch.setenv("LABKIT_KVM", "/none")
    monkeypatch.setenv("LABKIT_QEMU", "/none")
    md = lab_source.path_of("04")
    notebook = execute.execute(release.build(md, solved=True), release.learner_path(md).parent)
    shown = "\n".join(
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
    assert "a program in its place (there is no /none here: switch virtualisation on" in shown
    assert "Exits of a guest that adds: 3" in shown
    assert "guest program  -> guest kernel: 1003 system calls" in shown
    assert "serve: passed" in shown and "uptime: passed" in shown
    asking = [cell for cell in notebook.cells if re.match(r"%%(needs|observe \w+ needs) guest", cell.source)]
    assert len(asking) == shown.count("This machine cannot run this cell: QEMU is not installed.") >= 8
    assert "2 of 3 exercises passed" in shown
