"""Machines on /dev/kvm: what their guests do, how each can end, and that a program imitates them truly."""

import os
import random
import select
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from labkit import kvm
from labkit.constants import CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_REC
from labkit.errors import Unsupported
from labkit.kvm import api, guests
from labkit.kvm.exits import Exit, InternalError, MmioRead, MmioWrite
from labkit.kvm.limit import KICK
from labkit.process import run_in_child, spawn
from labkit.syscalls import mount, unshare
from tests.requirements import need, need_root

SHORT = 0.2  # seconds that a guest without an end is given


@pytest.fixture
def on_kvm() -> None:
    need("kvm")


native = pytest.mark.usefixtures("on_kvm")


def quiet() -> kvm.DebugPort:
    return kvm.DebugPort(pass_on=lambda text: None)


def output_of(kind: type[kvm.Machine], guest: kvm.Guest) -> tuple[bytes, dict[str, int], int, int]:
    """What a guest has sent, how often it has exited by kind, and its kernel's own two figures."""
    debug, serial = quiet(), kvm.Serial(pass_on=lambda text: None)
    with kind(guest) as machine:
        kvm.serve(machine, debug, serial)
        figures = machine.word(guests.SYSTEM_CALLS), machine.word(guests.FAULTS)
        return debug.output + serial.output, dict(machine.counts), *figures


@pytest.fixture(params=[kvm.KvmMachine, kvm.SoftwareMachine], ids=["kvm", "software"])
def kind(request: pytest.FixtureRequest) -> type[kvm.Machine]:
    if request.param is kvm.KvmMachine:
        need("kvm")
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("guest", "output", "outs", "ins", "calls", "faults"),
    [
        (guests.ADD, b"5\n", 2, 0, 0, 0),
        (guests.HELLO, b"hello\n", 6, 6, 0, 0),
        (guests.real_kernel(1000), b"Hi", 2, 0, 1003, 0),
        (guests.kernel(1000), b"Hi", 2, 0, 1003, 0),
        (guests.REAL_TRESPASS, b"H", 1, 0, 0, 0),
        (guests.WALLED_TRESPASS, b"!", 1, 0, 0, 1),
    ],
    ids=lambda value: value.name if isinstance(value, kvm.Guest) else "",
)
def test_a_guest_of_the_course(
    kind: type[kvm.Machine], guest: kvm.Guest, output: bytes, outs: int, ins: int, calls: int, faults: int
) -> None:
    counts = {"PortOut": outs, "Halt": 1} | ({"PortIn": ins} if ins else {})
    assert output_of(kind, guest) == (output, counts, calls, faults)


ALL_INSTRUCTIONS = {
    "real": """
1000  00 d8           add    al,bl
1002  01 d1           add    cx,dx
1004  04 7f           add    al,0x7f
1006  88 c4           mov    ah,al
1008  88 e7           mov    bh,ah
100a  89 de           mov    si,bx
100c  e7 10           out    0x10,ax
100e  66 e7 11        out    0x11,eax
1011  66 89 c5        mov    ebp,eax
1014  50              push   ax
1015  51              push   cx
1016  5f              pop    di
1017  5a              pop    dx
1018  66 50           push   eax
101a  66 5b           pop    ebx
101c  40              inc    ax
101d  49              dec    cx
101e  31 c1           xor    cx,ax
1020  a3 00 30        mov    ds:0x3000,ax
1023  a2 02 30        mov    ds:0x3002,al
1026  ff 06 00 30     inc    WORD PTR ds:0x3000
102a  c7 06 04 30 34 12    mov    WORD PTR ds:0x3004,0x1234
1030  a1 00 30        mov    ax,ds:0x3000
1033  a0 04 30        mov    al,ds:0x3004
1036  e4 12           in     al,0x12
1038  66 e5 13        in     eax,0x13
103b  ba 34 02        mov    dx,0x234
103e  ec              in     al,dx
103f  ed              in     ax,dx
1040  ee              out    dx,al
1041  ef              out    dx,ax
1042  bf 00 31        mov    di,0x3100
1045  b9 05 00        mov    cx,0x5
1048  f3 6d           rep insw
104a  b9 03 00        mov    cx,0x3
104d  f3 6c           rep insb
104f  84 c0           test   al,al
1051  74 01           je     end
1053  40              inc    ax
end:
1054  b0 05           mov    al,0x5
1056  f4              hlt
""",
    "protected": """
1000  00 d8           add    al,bl
1002  01 d1           add    ecx,edx
1004  88 c4           mov    ah,al
1006  89 de           mov    esi,ebx
1008  e7 10           out    0x10,eax
100a  66 e7 11        out    0x11,ax
100d  50              push   eax
100e  51              push   ecx
100f  5f              pop    edi
1010  5a              pop    edx
1011  40              inc    eax
1012  49              dec    ecx
1013  31 c1           xor    ecx,eax
1015  a3 00 30 00 00  mov    ds:0x3000,eax
101a  ff 05 00 30 00 00    inc    DWORD PTR ds:0x3000
1020  c7 05 04 30 00 00 78 56 34 12    mov    DWORD PTR ds:0x3004,0x12345678
102a  a1 00 30 00 00  mov    eax,ds:0x3000
102f  83 f8 ff        cmp    eax,0xffffffff
1032  e8 02 00 00 00  call   sub
1037  eb 02           jmp    on
sub:
1039  40              inc    eax
103a  c3              ret
on:
103b  bf 00 31 00 00  mov    edi,0x3100
1040  b9 05 00 00 00  mov    ecx,0x5
1045  66 ba 34 02     mov    dx,0x234
1049  f3 6d           rep ins DWORD PTR es:[edi],dx
104b  b8 01 00 00 00  mov    eax,0x1
1050  f4              hlt
""",
}
GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp")


def life(kind: type[kvm.Machine], guest: kvm.Guest, answers: random.Random) -> tuple[list[Exit], dict[str, int], bytes]:
    """All that can be seen of a guest: its exits, its registers and its memory in the end."""
    stops: list[Exit] = []
    with kind(guest) as machine:
        while not stops or not isinstance(stops[-1], kvm.Halt):
            stops.append(machine.run())
            assert not isinstance(stops[-1], InternalError | kvm.Shutdown), stops
            if isinstance(stops[-1], kvm.PortIn):
                machine.answer(answers.randbytes(stops[-1].size * stops[-1].count))
        registers = {name: machine.registers[name] for name in (*GENERAL, "rsp", "rip")}
        return stops, registers, bytes(machine.memory)


@native
@pytest.mark.parametrize("mode", ALL_INSTRUCTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_a_program_imitates_the_processor(mode: Any, seed: int) -> None:
    drawn = random.Random(seed)
    registers = {name: drawn.getrandbits(32) for name in GENERAL}
    guest = kvm.Guest("all instructions", (kvm.code(ALL_INSTRUCTIONS[mode]),), mode, registers)
    assert life(kvm.SoftwareMachine, guest, random.Random(seed)) == life(kvm.KvmMachine, guest, random.Random(seed))


@native
@pytest.mark.parametrize("guest", [guests.ADD, guests.HELLO, guests.real_kernel(20), guests.kernel(20)])
def test_the_course_s_guests_live_the_same_in_software(guest: kvm.Guest) -> None:
    assert life(kvm.SoftwareMachine, guest, LSR) == life(kvm.KvmMachine, guest, LSR)


class _AlwaysReady(random.Random):
    """Every answer is "ready": to a guest that waits until a port can take another byte."""

    def randbytes(self, n: int) -> bytes:
        return b"\x60" * n


LSR = _AlwaysReady()


@native
def test_memory_that_is_none_is_a_device() -> None:
    listing = "1000  a1 00 f0  mov ax,ds:0xf000\n1003  a3 02 f0  mov ds:0xf002,ax\n1006  f4  hlt"
    with kvm.KvmMachine(kvm.Guest("mmio", (kvm.code(listing),)), memory_bytes=0x8000) as machine:
        assert machine.run() == MmioRead(0xF000, 2)
        machine.answer(b"\x34\x12")
        assert machine.run() == MmioWrite(0xF002, b"\x34\x12")
        assert machine.run() == kvm.Halt()


@native
def test_every_mode_that_the_labs_use_runs() -> None:
    assert {mode: kvm.modes()[mode] for mode in ("real", "protected")} == {"real": None, "protected": None}
    with kvm.machine_for(guests.ADD) as machine:
        assert isinstance(machine, kvm.KvmMachine)


# The ends that are none


@native
def test_a_guest_that_never_halts_is_stopped() -> None:
    with kvm.KvmMachine(guests.FOREVER, seconds=SHORT) as machine:
        for _ in range(2):
            with pytest.raises(kvm.NeverHalted, match=r"had not halted after 0\.2 seconds"):
                machine.run()


@native
def test_time_is_counted_over_all_exits() -> None:
    with kvm.KvmMachine(guests.CHATTER, seconds=SHORT) as machine, pytest.raises(kvm.NeverHalted):
        kvm.serve(machine, quiet())


@native
def test_a_guest_is_stopped_in_another_thread_too() -> None:
    caught: list[Exception] = []

    def run_it() -> None:
        try:
            with kvm.KvmMachine(guests.FOREVER, seconds=SHORT) as machine:
                machine.run()
        except kvm.NeverHalted as error:
            caught.append(error)

    thread = threading.Thread(target=run_it)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert len(caught) == 1


@native
def test_a_triple_fault_is_a_shutdown() -> None:
    with (
        kvm.KvmMachine(guests.TRIPLE_FAULT) as machine,
        pytest.raises(kvm.GuestFailed, match=r"did not end by halting: shutdown \(triple fault\)") as caught,
    ):
        kvm.serve(machine)
    assert caught.value.stop == kvm.Shutdown()


@native
def test_two_machines_at_once_do_not_meet() -> None:
    with kvm.KvmMachine(guests.CHATTER, seconds=600) as one, kvm.KvmMachine(guests.FOREVER, seconds=SHORT) as other:
        one.set_registers(rax=0x41)
        assert one.run() == kvm.PortOut(0xE9, 1, 1, b"A")
        with pytest.raises(kvm.NeverHalted):
            other.run()
        assert one.run() == kvm.PortOut(0xE9, 1, 1, b"A"), "the other's end is not its end"
        with pytest.raises(kvm.NeverHalted):
            other.run()  # nor does it live again, now that its signal is spent
    assert KICK not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert KICK not in signal.sigpending()


@native
def test_the_first_machine_s_end_leaves_the_second_its_time_limit() -> None:
    first = kvm.KvmMachine(guests.HALT)
    with kvm.KvmMachine(guests.FOREVER, seconds=SHORT) as second:
        first.close()
        with pytest.raises(kvm.NeverHalted):
            second.run()


@native
def test_an_alarm_s_exception_comes_through() -> None:
    class Rang(BaseException):
        pass

    def ring(number: int, frame: object) -> None:
        raise Rang

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with kvm.KvmMachine(guests.FOREVER, seconds=30) as machine, pytest.raises(Rang):
            signal.setitimer(signal.ITIMER_REAL, SHORT)
            machine.run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupted() -> str:
    """What became of a guest without an end: only the first signal counts, whatever it strikes."""

    def once(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGINT, once)
        with kvm.KvmMachine(guests.FOREVER, seconds=60) as machine:
            machine.run()
    except KeyboardInterrupt:
        return "interrupted"
    return "ended"


@native
def test_ctrl_c_ends_the_wait_for_a_guest() -> None:
    with spawn(interrupted, wait=False) as child:
        for _ in range(200):  # the first may come before the guest has begun
            if "kvm-vcpu" in " ".join(links(child.pid)):
                os.kill(child.pid, signal.SIGINT)
            if child.answered(timeout=0.05):
                break
        assert child.value == "interrupted"


def links(pid: int) -> list[str]:
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            continue
    return found


@native
def test_a_child_that_is_killed_takes_its_machine_along() -> None:
    def forever() -> None:
        kvm.KvmMachine(guests.FOREVER, seconds=600).run()

    with spawn(forever, wait=False) as child:
        poll = select.poll()
        poll.register(child.pidfd, select.POLLIN)
        child.kill()
        assert not child.alive


# Where it cannot be used


def why_not() -> str:
    try:
        kvm.KvmMachine(guests.ADD).close()
    except Unsupported as lack:
        return str(lack)
    return ""


def with_device(mode: int | None) -> str:
    """`why_not` as user 65534, where /dev/kvm has these permissions; None: where there is no /dev/kvm."""
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    if mode is None:
        mount("tmpfs", "/dev", "tmpfs")
    else:
        mount("tmpfs", "/mnt", "tmpfs")
        os.mknod("/mnt/kvm", 0o020600, os.makedev(10, 232))
        os.chmod("/mnt/kvm", mode)
        mount("/mnt/kvm", "/dev/kvm", None, MS_BIND)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    return why_not()


@native
@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (0o600, "/dev/kvm is not yours to open: sudo usermod -aG kvm $USER, then log in again"),
        (None, "there is no /dev/kvm here: switch virtualisation on in the firmware"),
        (0o666, ""),
    ],
)
def test_an_ordinary_user_and_the_device(mode: int | None, words: str) -> None:
    need_root()
    said = run_in_child(with_device, mode)
    assert said.startswith(words)
    assert bool(said) == bool(words)


def test_a_device_that_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "DEVICE", "/dev/null")
    assert "says `Inappropriate ioctl for device` when asked for its version" in why_not()


def test_another_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert "written for x86-64, and this processor is aarch64" in why_not()


def test_without_it_guests_run_in_software(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "DEVICE", "/nowhere/kvm")
    fresh: Callable[[], None] = kvm.modes.cache_clear
    fresh()
    try:
        assert all(isinstance(lack, Unsupported) for lack in kvm.modes().values())
        with kvm.machine_for(guests.ADD) as machine:
            assert isinstance(machine, kvm.SoftwareMachine)
    finally:
        fresh()


@native
def test_a_machine_gives_everything_back() -> None:
    def held() -> int:
        return len(os.listdir("/proc/self/fd")) + len(open("/proc/self/maps").readlines())

    run_in_child(why_not)  # what is imported and cached once
    assert why_not() == ""
    before = held(), threading.active_count()
    for _ in range(20):
        with kvm.KvmMachine(guests.ADD) as machine:
            machine.run()
        machine.close()
    fds, threads = held(), threading.active_count()
    assert threads == before[1]
    assert fds <= before[0] + 5  # Python's own arenas come and go
