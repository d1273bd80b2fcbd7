"""The virtual machine monitor without /dev/kvm: its structures, its guests' listings, and the machine in software."""

import ctypes
import re
import subprocess
import time
from pathlib import Path

import pytest

from labkit import kvm
from labkit.errors import InvalidConfig
from labkit.kvm import api, exits, guests
from labkit.kvm.exits import MmioRead, MmioWrite
from tests.requirements import need_command

GUESTS = [
    guests.ADD,
    guests.HELLO,
    guests.real_kernel(5),
    guests.kernel(5),
    guests.REAL_TRESPASS,
    guests.WALLED_TRESPASS,
    guests.FOREVER,
    guests.TRIPLE_FAULT,
    guests.CHATTER,
    guests.HALT,
    *guests.TRIALS.values(),
]
CODES = {(part.origin, part.code): (part, guest) for guest in GUESTS for part in guest.parts}
ARCHITECTURE = {"real": "i8086", "protected": "i386", "long": "i386:x86-64"}


@pytest.mark.parametrize(
    ("request_number", "structure"),
    [
        (api.KVM_SET_USER_MEMORY_REGION, api.KvmUserspaceMemoryRegion),
        (api.KVM_GET_REGS, api.KvmRegs),
        (api.KVM_SET_REGS, api.KvmRegs),
        (api.KVM_GET_SREGS, api.KvmSregs),
        (api.KVM_SET_SREGS, api.KvmSregs),
    ],
)
def test_a_structure_has_the_size_that_its_request_names(
    request_number: int, structure: type[ctypes.Structure]
) -> None:
    assert request_number >> 16 & 0x3FFF == ctypes.sizeof(structure)  # ioctl(2): _IOC_SIZE


def test_the_page_is_laid_out_as_the_kernel_does() -> None:
    assert (api.KvmRun.immediate_exit.offset, api.KvmRun.exit_reason.offset, api.KvmRun.why.offset) == (1, 8, 32)
    assert (api.KvmIo.port.offset, api.KvmIo.count.offset, api.KvmIo.data_offset.offset) == (2, 4, 8)
    assert (api.KvmMmio.data.offset, api.KvmMmio.len.offset, api.KvmMmio.is_write.offset) == (8, 16, 20)


@pytest.mark.parametrize("place", CODES, ids=[f"{guest.name}-{at:x}" for (at, _), (_, guest) in CODES.items()])
def test_a_listing_says_what_its_bytes_do(place: tuple[int, bytes], tmp_path: Path) -> None:
    objdump = need_command("objdump")
    part, guest = CODES[place]
    (tmp_path / "code").write_bytes(part.code)
    command = [objdump, "-D", "-b", "binary", "-m", ARCHITECTURE[guest.mode], "-M", "intel", "--insn-width=16"]
    done = subprocess.run(
        [*command, f"--adjust-vma={part.origin:#x}", str(tmp_path / "code")], capture_output=True, text=True, check=True
    )
    found = re.findall(r"^ *([0-9a-f]+):\t([0-9a-f ]+?) *\t(.+?) *$", done.stdout, re.MULTILINE)
    says = {int(address, 16): (bytes.fromhex(code), plain(text, {})) for address, code, text in found}
    labels = {label: address for part in guest.parts for label, address in part.labels.items()}
    for one in part.instructions:
        if one.text.startswith(".ascii"):
            assert one.code == eval("b" + one.text.split(maxsplit=1)[1].replace('", 0', '\\0"'))
        else:
            assert says[one.address] == (one.code, plain(one.text, labels)), one


def plain(text: str, labels: dict[str, int]) -> str:
    """An instruction with single spaces, and with addresses in place of their names."""
    text = re.sub(r"\s+", " ", text)
    return re.sub(r"[a-z_]+$", lambda word: hex(labels[word[0]]) if word[0] in labels else word[0], text)


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        ("1000  f4  hlt\n1002  f4  hlt", "1001 comes next"),
        ("1000  f4  hlt\nand then wait", "no line of a listing"),
        ("again:", "at least one"),
    ],
)
def test_a_listing_with_a_slip_is_refused(listing: str, words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        kvm.code(listing)


@pytest.mark.parametrize(
    ("run", "stop", "words"),
    [
        (
            api.KvmRun(exit_reason=api.KVM_EXIT_FAIL_ENTRY, fail_entry=api.KvmFailEntry(0x80000021)),
            kvm.FailEntry(0x80000021),
            "the processor refused to enter the guest (0x80000021)",
        ),
        (
            api.KvmRun(exit_reason=api.KVM_EXIT_INTERNAL_ERROR, internal=api.KvmInternalError(3)),
            kvm.InternalError(3),
            "internal error 3",
        ),
        (api.KvmRun(exit_reason=24), kvm.Other(24), "exit reason 24"),
    ],
)
def test_an_exit_that_is_an_end(run: api.KvmRun, stop: kvm.Exit, words: str) -> None:
    assert exits.read(bytes(run)) == stop
    assert str(stop) == words


def silent() -> tuple[kvm.DebugPort, kvm.Serial]:
    return kvm.DebugPort(pass_on=lambda text: None), kvm.Serial(pass_on=lambda text: None)


def test_two_and_three_is_five() -> None:
    debug, serial = silent()
    with kvm.SoftwareMachine(guests.ADD) as machine:
        kvm.serve(machine, debug, serial)
        assert (debug.output, serial.output) == (b"5\n", b"")
        assert machine.counts == {"PortOut": 2, "Halt": 1}


def test_what_is_sent_is_passed_on_at_once() -> None:
    passed: list[str] = []
    with kvm.SoftwareMachine(guests.HELLO) as machine:
        kvm.serve(machine, kvm.Serial(pass_on=passed.append))
    assert passed == list("hello\n")


def test_a_port_where_nobody_is_reads_as_ones() -> None:
    with kvm.SoftwareMachine(kvm.Guest("empty", (kvm.code("1000  e5 70  in ax,0x70\n1002  f4  hlt"),))) as machine:
        kvm.serve(machine)
        assert machine.registers["rax"] == 0xFFFF


def test_a_guest_that_never_halts_is_stopped() -> None:
    with kvm.SoftwareMachine(guests.FOREVER, seconds=0.1) as machine:
        for _ in range(2):
            with pytest.raises(kvm.NeverHalted, match=r"had not halted after 0\.1 seconds"):
                machine.run()


def test_time_is_counted_over_all_exits() -> None:
    began = time.monotonic()
    with kvm.SoftwareMachine(guests.CHATTER, seconds=0.1) as machine, pytest.raises(kvm.NeverHalted):
        kvm.serve(machine)
    assert time.monotonic() - began >= 0.1


def test_an_instruction_that_is_unknown_is_said() -> None:
    with (
        kvm.SoftwareMachine(kvm.Guest("cpuid", (kvm.code("1000  0f a2  cpuid"),))) as machine,
        pytest.raises(
            kvm.GuestFailed, match=r"at address 0x1000 the imitated processor met 0f a2 00 .*The imitation .* lacks"
        ),
    ):
        kvm.serve(machine)


def test_memory_that_is_none_is_a_device() -> None:
    listing = "1000  a1 00 f0  mov ax,ds:0xf000\n1003  a3 02 f0  mov ds:0xf002,ax\n1006  f4  hlt"
    with kvm.SoftwareMachine(kvm.Guest("mmio", (kvm.code(listing),)), memory_bytes=0x8000) as machine:
        assert machine.run() == MmioRead(0xF000, 2)
        machine.answer(b"\x34\x12")
        assert machine.run() == MmioWrite(0xF002, b"\x34\x12")
        assert machine.run() == kvm.Halt()


@pytest.mark.parametrize(
    ("memory_bytes", "words"), [(0, "pages"), (5000, "pages"), (4096, "reaches to address 0x100b")]
)
def test_memory_of_a_wrong_size_is_refused(memory_bytes: int, words: str) -> None:
    for kind in (kvm.SoftwareMachine, kvm.KvmMachine):
        with pytest.raises(InvalidConfig, match=words):
            kind(guests.ADD, memory_bytes=memory_bytes)


def test_an_answer_has_the_length_that_was_asked_for() -> None:
    with kvm.SoftwareMachine(guests.HELLO) as machine:
        assert machine.run() == kvm.PortIn(0x3FD, 1, 1)
        for wrong in (b"", b"12"):
            with pytest.raises(InvalidConfig, match="reads 1 bytes here"):
                machine.answer(wrong)


def test_a_register_that_there_is_not() -> None:
    with kvm.SoftwareMachine(guests.ADD) as machine, pytest.raises(InvalidConfig, match="no register 'eax'"):
        machine.set_registers(eax=1)
