"""Why a guest stopped: an exit as data.

A guest runs on the processor itself until it does something that only its surroundings can do for it: talk to a device,
wait, crash. The processor then *exits* to the hypervisor with a reason, and goes on when it is resumed. api.rst, 5.
"""

from dataclasses import dataclass

from labkit.errors import LabkitError
from labkit.kvm import api
from labkit.kvm.api import KvmRun

MMIO_DATA_OFFSET = KvmRun.why.offset + api.KvmMmio.data.offset


@dataclass(frozen=True)
class PortOut:
    """The guest wrote `data` to a port: `count` items of `size` bytes each."""

    port: int
    size: int
    count: int
    data: bytes

    def __str__(self) -> str:
        return f"port {self.port:#x} out: {self.data!r}"


@dataclass(frozen=True)
class PortIn:
    """The guest reads `count` items of `size` bytes from a port; `Machine.answer` before it is resumed."""

    port: int
    size: int
    count: int

    def __str__(self) -> str:
        return f"port {self.port:#x} in: {self.size * self.count} bytes wanted"


@dataclass(frozen=True)
class MmioWrite:
    """The guest wrote `data` to an address where it has no memory: to a device, if there is one."""

    address: int
    data: bytes

    def __str__(self) -> str:
        return f"address {self.address:#x} written: {self.data!r}"


@dataclass(frozen=True)
class MmioRead:
    """The guest reads `size` bytes from an address where it has no memory; `Machine.answer` before it is resumed."""

    address: int
    size: int

    def __str__(self) -> str:
        return f"address {self.address:#x} read: {self.size} bytes wanted"


@dataclass(frozen=True)
class Halt:
    """The guest has nothing to do until an interrupt comes (`hlt`). That is no error: most guests end like this."""

    def __str__(self) -> str:
        return "halt"


@dataclass(frozen=True)
class Shutdown:
    """The guest crashed beyond help, by a *triple fault*: a real computer starts anew here."""

    def __str__(self) -> str:
        return "shutdown (triple fault)"


@dataclass(frozen=True)
class FailEntry:
    """The processor would not enter the guest: its registers contradict each other. `reason` is the maker's number."""

    reason: int

    def __str__(self) -> str:
        return f"the processor refused to enter the guest ({self.reason:#x})"


@dataclass(frozen=True)
class InternalError:
    """KVM gave up; `suberror` 1: it met an instruction that it cannot imitate."""

    suberror: int

    def __str__(self) -> str:
        more = ", an instruction that cannot be imitated" if self.suberror == api.KVM_INTERNAL_ERROR_EMULATION else ""
        return f"internal error {self.suberror}{more}"


@dataclass(frozen=True)
class NotImitated(InternalError):
    """The program that imitates a processor met an instruction that it lacks; a real processor may well know it."""

    address: int
    instruction: bytes  #: what stands at `address`, at most 8 bytes of it

    def __str__(self) -> str:
        return (
            f"at address {self.address:#x} the imitated processor met {self.instruction.hex(' ')}. The imitation "
            "(labkit.kvm.instructions) lacks this instruction, or the memory that it reaches for; that says nothing "
            "against the guest, and on a machine with /dev/kvm a real processor carries it out"
        )


@dataclass(frozen=True)
class Other:
    """One of the some thirty further reasons, which our guests do not give."""

    reason: int

    def __str__(self) -> str:
        return f"exit reason {self.reason}"


Exit = PortOut | PortIn | MmioWrite | MmioRead | Halt | Shutdown | FailEntry | InternalError | Other


class NeverHalted(LabkitError):
    """A guest's time was up before it had halted. Nobody can know whether it ever would have."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds

    def __str__(self) -> str:
        return (
            f"the guest had not halted after {self.seconds:g} seconds, so it was stopped. Is there a loop without an "
            "end in it, or a wait for a device that never answers?"
        )


def read(page: bytes | bytearray | memoryview) -> Exit:
    """The exit that a processor's page tells of."""
    run = KvmRun.from_buffer_copy(page)
    match run.exit_reason:
        case api.KVM_EXIT_IO:
            io = run.io
            if io.direction == api.KVM_EXIT_IO_IN:
                return PortIn(io.port, io.size, io.count)
            end = io.data_offset + io.size * io.count
            return PortOut(io.port, io.size, io.count, bytes(page[io.data_offset : end]))
        case api.KVM_EXIT_MMIO:
            mmio = run.mmio
            if mmio.is_write:
                return MmioWrite(mmio.phys_addr, bytes(mmio.data[: mmio.len]))
            return MmioRead(mmio.phys_addr, mmio.len)
        case api.KVM_EXIT_HLT:
            return Halt()
        case api.KVM_EXIT_SHUTDOWN:
            return Shutdown()
        case api.KVM_EXIT_FAIL_ENTRY:
            return FailEntry(run.fail_entry.hardware_entry_failure_reason)
        case api.KVM_EXIT_INTERNAL_ERROR:
            return InternalError(run.internal.suberror)
        case reason:
            return Other(reason)


def place_of_answer(page: bytes | bytearray | memoryview) -> tuple[int, int]:
    """Where in the page the answer to a read belongs, and how many bytes it has; (0, 0): nothing was asked."""
    run = KvmRun.from_buffer_copy(page)
    if run.exit_reason == api.KVM_EXIT_IO and run.io.direction == api.KVM_EXIT_IO_IN:
        return run.io.data_offset, run.io.size * run.io.count
    if run.exit_reason == api.KVM_EXIT_MMIO and not run.mmio.is_write:
        return MMIO_DATA_OFFSET, run.mmio.len
    return 0, 0
