"""What every virtual machine of ours is: memory, one processor, and a page on which it says why it stopped.

Two kinds share this: `KvmMachine`, whose guest runs on the processor itself, and `SoftwareMachine`, whose guest a
Python program imitates, instruction by instruction. A guest cannot tell, except by the clock::

    with KvmMachine(guest) as machine:
        while not isinstance(stop := machine.run(), Halt):
            print(stop)
"""

from collections import Counter
from types import TracebackType
from typing import Any, ClassVar, Self

from labkit.errors import InvalidConfig
from labkit.kvm import exits, segments
from labkit.kvm.api import KvmRegs, KvmRun, KvmSregs
from labkit.kvm.listing import Guest

PAGE_BYTES = 4096
MEMORY_BYTES = 0x10000
SECONDS = 5.0
STACK = 0x8000


class Machine:
    """A machine with `guest` in its memory, ready to run. It belongs to the thread that made it, and must be closed."""

    kind: ClassVar[str]  #: what runs the guest, in words
    memory: Any  #: the guest's memory, bytes that can be read and written; address 0 is its first
    page: Any  #: the page `kvm_run`

    def __init__(self, guest: Guest, *, memory_bytes: int = MEMORY_BYTES, seconds: float = SECONDS) -> None:
        """Make the machine and load `guest`. After `seconds` in all its guest is stopped: `NeverHalted`.

        `InvalidConfig`: the memory is no whole number of pages, or too small for the guest.
        """
        if memory_bytes <= 0 or memory_bytes % PAGE_BYTES:
            raise InvalidConfig(f"memory comes in pages of {PAGE_BYTES} bytes; {memory_bytes} is not a number of pages")
        if guest.end > memory_bytes:
            raise InvalidConfig(
                f"the guest `{guest.name}` reaches to address {guest.end:#x}, and the machine has {memory_bytes:#x} "
                "bytes of memory"
            )
        self.seconds = seconds
        self.counts: Counter[str] = Counter()  #: how often the guest has stopped, by the kind of exit
        self._open(memory_bytes)
        try:
            self._load(guest)
        except BaseException:
            self.close()
            raise

    def _load(self, guest: Guest) -> None:
        for part in guest.parts:
            self.memory[part.origin : part.origin + len(part.code)] = part.code
        sregs = self.get_sregs()
        segments.prepare(guest, sregs, self.memory)
        self.set_sregs(sregs)
        always = 2  # a bit of rflags that is always set
        self.set_regs(KvmRegs(rip=guest.entry, rsp=min(STACK, len(self.memory)), rflags=always))
        self.set_registers(**guest.registers)

    def run(self) -> exits.Exit:
        """Let the guest run on, until it exits; say why it did.

        `NeverHalted`: its time is up. KeyboardInterrupt stops it, and it can be resumed.
        """
        self.resume()
        stop = self._exit()
        self.counts[type(stop).__name__] += 1
        return stop

    def answer(self, data: bytes) -> None:
        """Give the guest what it reads: it finds it when it is resumed. `InvalidConfig`: it wants more or less."""
        offset, length = exits.place_of_answer(self.page)
        if len(data) != length:
            raise InvalidConfig(f"the guest reads {length} bytes here, not {len(data)}")
        self.page[offset : offset + length] = data

    @property
    def state(self) -> KvmRun:
        """A copy of `struct kvm_run` as it is now: `exit_reason`, and `io`, `mmio`, ... that go with it."""
        return KvmRun.from_buffer_copy(self.page)

    @property
    def registers(self) -> dict[str, int]:
        """The registers a program works with, by name."""
        regs = self.get_regs()
        return {name: getattr(regs, name) for name, *_ in KvmRegs._fields_}

    def set_registers(self, **values: int) -> None:
        """Set some of the registers: `rip=0x1000, rax=2`."""
        regs = self.get_regs()
        for name, value in values.items():
            if not hasattr(regs, name):
                raise InvalidConfig(f"there is no register {name!r}: {' '.join(self.registers)}")
            setattr(regs, name, value)
        self.set_regs(regs)

    def word(self, address: int) -> int:
        """The four bytes at `address` of the guest's memory, as a number."""
        return int.from_bytes(self.memory[address : address + 4], "little")

    # What the two kinds do each in their own way.

    def _exit(self) -> exits.Exit:
        return exits.read(self.page)

    def _open(self, memory_bytes: int) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        """Let the guest run on until it exits; `page` and `state` tell why. `NeverHalted`: its time is up."""
        raise NotImplementedError

    def get_regs(self) -> KvmRegs:
        """`struct kvm_regs` as it is now."""
        raise NotImplementedError

    def set_regs(self, regs: KvmRegs) -> None:
        """Replace all of `struct kvm_regs`."""
        raise NotImplementedError

    def get_sregs(self) -> KvmSregs:
        """`struct kvm_sregs` as it is now."""
        raise NotImplementedError

    def set_sregs(self, sregs: KvmSregs) -> None:
        """Replace all of `struct kvm_sregs`."""
        raise NotImplementedError

    def close(self) -> None:
        """Switch the machine off and give everything back. Twice is as good as once."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
