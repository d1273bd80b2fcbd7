"""A machine without /dev/kvm: a program reads the guest's instructions one by one and does what each says.

Emulators such as QEMU's TCG work like this, but for all of a processor's thousand instructions, and fast. This one
knows the few dozen that the course's guests use (`labkit.kvm.instructions`). The guest is none the wiser.
"""

import time
from collections.abc import Generator
from typing import Any, ClassVar

from labkit.kvm import api
from labkit.kvm.api import KvmIo, KvmMmio, KvmRegs, KvmRun, KvmSregs
from labkit.kvm.exits import Exit, InternalError, NeverHalted, NotImitated, place_of_answer
from labkit.kvm.instructions import Processor, Stop
from labkit.kvm.machine import PAGE_BYTES, Machine

_NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")  # in the order of their numbers in instructions
_CHECK_EVERY = 1024  # instructions, between two looks at the clock


class SoftwareMachine(Machine):
    """A machine whose guest is imitated: it stops, and is resumed, as that of a `KvmMachine`; it is slower."""

    kind: ClassVar[str] = "a program that imitates a processor"
    data_offset = 1024  #: where in the page the bytes of a port's exit lie; KVM says so anew with each, and so do we

    def _open(self, memory_bytes: int) -> None:
        self.memory = bytearray(memory_bytes)
        self.page = bytearray(PAGE_BYTES)
        self._processor = Processor(self.memory)
        self._life: Generator[Stop, bytes, None] = self._processor.life()
        self._asked = False  # it waits for an answer
        self._ends = time.monotonic() + self.seconds

    def resume(self) -> None:
        """Let the guest run on until it exits."""
        begin, length = place_of_answer(self.page)
        answer: Any = bytes(self.page[begin : begin + length]) if self._asked else None
        while True:
            if time.monotonic() > self._ends:
                raise NeverHalted(self.seconds)
            self._processor.steps_left = _CHECK_EVERY
            stop = self._life.send(answer)
            self._asked = True
            if stop.reason != api.KVM_EXIT_INTR:
                break
            answer = b""
        self._write_page(stop)

    def _exit(self) -> Exit:
        exit_ = super()._exit()
        if isinstance(exit_, InternalError):
            address = self._processor.ip
            return NotImitated(exit_.suberror, address, bytes(self.memory[address : address + 8]))
        return exit_

    def _write_page(self, stop: Stop) -> None:
        """Say on the page why the guest has stopped, as KVM does."""
        run = KvmRun(exit_reason=stop.reason)
        if stop.reason == api.KVM_EXIT_IO:
            run.io = KvmIo(stop.is_write, stop.size, stop.address, stop.count, self.data_offset)
            self.page[self.data_offset : self.data_offset + len(stop.data)] = stop.data
        elif stop.reason == api.KVM_EXIT_MMIO:
            run.mmio = KvmMmio(phys_addr=stop.address, len=stop.size, is_write=stop.is_write)
            run.mmio.data[: len(stop.data)] = list(stop.data)
        elif stop.reason == api.KVM_EXIT_INTERNAL_ERROR:
            run.internal.suberror = api.KVM_INTERNAL_ERROR_EMULATION
        written = bytes(run)
        self.page[: len(written)] = written

    def get_regs(self) -> KvmRegs:
        """The processor's registers, in KVM's order."""
        values = dict(zip(_NAMES, self._processor.registers, strict=True))
        return KvmRegs(rip=self._processor.ip, rflags=self._processor.flags, **values)

    def set_regs(self, regs: KvmRegs) -> None:
        """Replace the processor's registers."""
        self._processor.registers[:] = [getattr(regs, name) & 0xFFFFFFFF for name in _NAMES]
        self._processor.ip, self._processor.flags = regs.rip, regs.rflags

    def get_sregs(self) -> KvmSregs:
        """The processor's segments and tables."""
        return KvmSregs.from_buffer_copy(self._processor.sregs)

    def set_sregs(self, sregs: KvmSregs) -> None:
        """Replace the processor's segments and tables."""
        self._processor.sregs = KvmSregs.from_buffer_copy(sregs)

    def close(self) -> None:
        """Stop the guest for good."""
        self._life.close()
