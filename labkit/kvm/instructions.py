"""What a processor does, in a program: fetch an instruction, decode it, carry it out, go on behind it.

The few dozen instructions of the course's guests, in real and in 32-bit protected mode, with memory that is flat. A
test runs the same guests on KVM and compares. Source: Intel SDM volume 2 (what each instruction does) and volume 3,
chapter 6 (interrupts and faults).
"""

from collections.abc import Generator
from dataclasses import dataclass

from labkit.kvm import api
from labkit.kvm.processor import AX, CX, DI, DX, SI, SP, ZERO, State

GENERAL_PROTECTION, INVALID_OPCODE = 13, 6
SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x174, 0x175, 0x176  # what wrmsr can set here
_PAGE, _BATCH = 4096, 1024  # a port is read in one go only within a page, and so many bytes


@dataclass(frozen=True)
class Stop:
    """The guest stops here; for a read, `life()` is sent the bytes."""

    reason: int
    address: int = 0  # or port
    size: int = 0
    count: int = 1
    data: bytes = b""
    is_write: bool = False


Steps = Generator[Stop, bytes, None]


class Fault(Exception):
    """The instruction may not be carried out: exception `vector` of the processor."""

    def __init__(self, vector: int, error: int | None = None) -> None:
        super().__init__(vector)
        self.vector, self.error = vector, error


class Unknown(Exception):
    """No instruction that is known here."""


class Processor(State):
    """A processor that lives."""

    def life(self) -> Steps:
        """One instruction after the other. `yield` is an exit; what comes back is the answer to a read."""
        while True:
            begin = self.ip
            try:
                yield from self._instruction()
            except Fault as fault:
                self.ip = begin
                if not self._interrupt(fault.vector, fault.error):
                    yield Stop(api.KVM_EXIT_SHUTDOWN)
            except (Unknown, IndexError):
                self.ip = begin
                yield Stop(api.KVM_EXIT_INTERNAL_ERROR)
            self.steps_left -= 1
            if self.steps_left <= 0:
                yield Stop(api.KVM_EXIT_INTR)  # no exit of the guest's: the machine wants to look at the clock

    def _instruction(self) -> Steps:
        """Fetch, decode, carry out."""
        wide, repeat = self.protected, False
        while (opcode := self.fetch(1)) in (0x66, 0xF3):  # prefixes
            wide, repeat = wide ^ (opcode == 0x66), repeat | (opcode == 0xF3)
        size = 4 if wide else 2
        match opcode:
            case 0x00 | 0x01 | 0x31 | 0x84 | 0x88 | 0x89:
                self._between_registers(opcode, 1 if opcode in (0x00, 0x84, 0x88) else size)
            case 0x04:  # add al, number
                self.set(AX, 1, self.result(self.get(AX, 1) + self.fetch(1), 1))
            case _ if 0x40 <= opcode <= 0x4F:  # inc, dec
                value = self.get(opcode & 7, size) + (1 if opcode < 0x48 else -1)
                self.set(opcode & 7, size, self.result(value, size))
            case _ if 0x50 <= opcode <= 0x57:  # push
                self.push(self.get(opcode & 7, size), size)
            case _ if 0x58 <= opcode <= 0x5F:  # pop
                self.set(opcode & 7, size, self.pop(size))
            case 0x6C | 0x6D if repeat:  # rep ins: the only one that asks for more than one item at a time
                yield from self._read_many(1 if opcode == 0x6C else size)
            case 0x74 | 0x75:  # jz, jnz
                self.jump(self.signed(1), when=bool(self.flags & ZERO) == (opcode == 0x74))
            case 0x83:  # cmp register, number
                if (modrm := self.fetch(1)) & 0xF8 != 0xF8:
                    raise Unknown
                self.result(self.get(modrm & 7, size) - self.signed(1), size)
            case 0xA0 | 0xA1:  # mov from memory
                yield from self._load(self.address(), 1 if opcode == 0xA0 else size)
            case 0xA2 | 0xA3:  # mov to memory
                yield from self._store(self.address(), 1 if opcode == 0xA2 else size)
            case 0xA8:  # test al, number
                self.result(self.get(AX, 1) & self.fetch(1), 1)
            case 0xAC:  # lodsb
                self.set(AX, 1, self.memory[self.get(SI, self.address_size)])
                self.set(SI, self.address_size, self.get(SI, self.address_size) + 1)
            case _ if 0xB0 <= opcode <= 0xB7:
                self.set(opcode & 7, 1, self.fetch(1))
            case _ if 0xB8 <= opcode <= 0xBF:
                self.set(opcode & 7, size, self.fetch(size))
            case 0xC3:  # ret
                self.ip = self.pop(size)
            case 0xC7 | 0xFF:  # mov [address], number; inc [address]
                if self.fetch(1) != (5 if self.protected else 6):
                    raise Unknown
                address = self.address()
                value = self.fetch(size) if opcode == 0xC7 else self.result(self.read(address, size) + 1, size)
                self.write(address, value, size)
            case 0xE2:  # loop
                self.set(CX, self.address_size, self.get(CX, self.address_size) - 1)
                self.jump(self.signed(1), when=self.get(CX, self.address_size) != 0)
            case 0xE8:  # call
                distance = self.signed(size)
                self.push(self.ip, size)
                self.jump(distance)
            case 0xE4 | 0xE5 | 0xEC | 0xED:  # in
                yield from self._in(self.port(opcode), size if opcode & 1 else 1)
            case 0xE6 | 0xE7 | 0xEE | 0xEF:  # out
                yield from self._out(self.port(opcode), size if opcode & 1 else 1)
            case 0xE9 | 0xEB:  # jmp
                self.jump(self.signed(1 if opcode == 0xEB else size))
            case 0xF4:  # hlt
                self._only_ring_0()
                yield Stop(api.KVM_EXIT_HLT)
            case 0x0F:
                self._two_byte_instruction(self.fetch(1))
            case _:
                raise Unknown

    def _two_byte_instruction(self, opcode: int) -> None:
        match opcode:
            case 0x0B:  # ud2, which is undefined by definition
                raise Fault(INVALID_OPCODE)
            case 0x30:  # wrmsr
                self._only_ring_0()
                self.msrs[self.get(CX, 4)] = self.get(AX, 4)
            case 0x34 if self.protected:  # sysenter: into the kernel, at the one address that it has named
                self.sregs.cs.selector = self.msrs.get(SYSENTER_CS, 0) & ~3
                self.ip, self.registers[SP] = self.msrs.get(SYSENTER_EIP, 0), self.msrs.get(SYSENTER_ESP, 0)
            case 0x35 if self.protected:  # sysexit: back into the program
                self._only_ring_0()
                self.sregs.cs.selector = (self.msrs.get(SYSENTER_CS, 0) + 16) | 3
                self.ip, self.registers[SP] = self.registers[DX], self.registers[CX]
            case _:
                raise Unknown

    def _between_registers(self, opcode: int, size: int) -> None:
        modrm = self.fetch(1)
        if modrm < 0xC0:  # not a register but memory
            raise Unknown
        source, target = self.get(modrm >> 3 & 7, size), modrm & 7
        value = self.get(target, size)
        match opcode:
            case 0x00 | 0x01:
                self.set(target, size, self.result(value + source, size))
            case 0x31:
                self.set(target, size, self.result(value ^ source, size))
            case 0x84:
                self.result(value & source, size)
            case _:
                self.set(target, size, source)

    def _interrupt(self, vector: int, error: int | None) -> bool:
        """Go on in the kernel's code for exception `vector`; False: there is none, which makes it a triple fault."""
        if not self.protected:
            raise Unknown
        table = self.sregs.idt
        if vector * 8 + 7 > table.limit:
            return False
        gate = table.base + vector * 8
        frame = [self.flags, self.sregs.cs.selector, self.ip]
        if self.ring == 3:  # the kernel has a stack of its own: the task state segment says where
            frame = [self.sregs.ss.selector, self.registers[SP], *frame]
            self.registers[SP] = self.read(self.sregs.tr.base + 4, 4)
        for value in [*frame, *([] if error is None else [error])]:
            self.push(value, 4)
        self.sregs.cs.selector = self.read(gate + 2, 2)
        self.ip = self.read(gate, 2) | self.read(gate + 6, 2) << 16
        return True

    # Ports, and memory that may be none

    def _in(self, port: int, size: int) -> Steps:
        self._only_ring_0()
        data = yield Stop(api.KVM_EXIT_IO, port, size)
        self.set(AX, size, int.from_bytes(data, "little"))

    def _out(self, port: int, size: int) -> Steps:
        self._only_ring_0()
        yield Stop(api.KVM_EXIT_IO, port, size, data=self.get(AX, size).to_bytes(size, "little"), is_write=True)

    def _read_many(self, size: int) -> Steps:
        self._only_ring_0()
        width = self.address_size
        while left := self.get(CX, width):
            target = self.get(DI, width)
            count = max(1, min(left * size, _PAGE - target % _PAGE, _BATCH) // size)
            data = yield Stop(api.KVM_EXIT_IO, self.get(DX, 2), size, count)
            self.memory[target : target + len(data)] = data
            self.set(DI, width, target + len(data))
            self.set(CX, width, left - count)

    def _load(self, address: int, size: int) -> Steps:
        if address + size <= len(self.memory):
            self.set(AX, size, self.read(address, size))
        else:
            self.set(AX, size, int.from_bytes((yield Stop(api.KVM_EXIT_MMIO, address, size)), "little"))

    def _store(self, address: int, size: int) -> Steps:
        value = self.get(AX, size)
        if address + size <= len(self.memory):
            self.write(address, value, size)
        else:
            yield Stop(api.KVM_EXIT_MMIO, address, size, data=value.to_bytes(size, "little"), is_write=True)

    def _only_ring_0(self) -> None:
        if self.ring:
            raise Fault(GENERAL_PROTECTION, 0)
