"""The state of a processor that a program imitates: registers, flags, memory, and how instructions reach them."""

from labkit.kvm.api import KvmSregs

AX, CX, DX, _BX, SP, _BP, SI, DI = range(8)  # as instructions number them
ZERO = 1 << 6  # the flag "the result was zero"
CR0_PE = 1


class State:
    """Real or 32-bit protected mode, with memory that is flat. Reading or writing behind its end is an IndexError."""

    def __init__(self, memory: bytearray) -> None:
        self.memory = memory
        self.sregs = KvmSregs()
        self.registers = [0] * 8
        self.ip, self.flags = 0, 2
        self.msrs: dict[int, int] = {}
        self.steps_left = 0  #: instructions until `life()` stops, for whoever wants to look at the clock

    @property
    def protected(self) -> bool:
        """32-bit protected mode; else real mode, 16 bits."""
        return bool(self.sregs.cr0 & CR0_PE)

    @property
    def ring(self) -> int:
        """0: the kernel's; 3: a program's. In real mode everything is ring 0."""
        return self.sregs.cs.selector & 3 if self.protected else 0

    @property
    def address_size(self) -> int:
        """How many bytes an address has in instructions, and which part of si, di, cx and sp counts."""
        return 4 if self.protected else 2

    def get(self, number: int, size: int) -> int:
        """A register. Of size 1, numbers 4 to 7 are the second bytes of the first four: ah, ch, dh, bh."""
        if size == 1 and number > 3:
            return self.registers[number - 4] >> 8 & 0xFF
        return self.registers[number] & (1 << 8 * size) - 1

    def set(self, number: int, size: int, value: int) -> None:
        """Set a register, or the part of it that `size` names."""
        shift = 8 if size == 1 and number > 3 else 0
        mask = ((1 << 8 * size) - 1) << shift
        number -= 4 if shift else 0
        self.registers[number] = self.registers[number] & ~mask | value << shift & mask

    def result(self, value: int, size: int) -> int:
        """Note in the flags whether a result is zero."""
        value &= (1 << 8 * size) - 1
        self.flags = self.flags & ~ZERO | (0 if value else ZERO)
        return value

    def read(self, address: int, size: int) -> int:
        """A number from memory."""
        if address + size > len(self.memory):
            raise IndexError(address)
        return int.from_bytes(self.memory[address : address + size], "little")

    def write(self, address: int, value: int, size: int) -> None:
        """A number to memory."""
        if address + size > len(self.memory):
            raise IndexError(address)
        self.memory[address : address + size] = value.to_bytes(size, "little")

    def fetch(self, size: int) -> int:
        """The next bytes of the instruction, as a number."""
        value = self.read(self.ip, size)
        self.ip += size
        return value

    def signed(self, size: int) -> int:
        """The next bytes of the instruction, as a number that may be negative."""
        value = self.fetch(size)
        return value - (1 << 8 * size) if value >> 8 * size - 1 else value

    def address(self) -> int:
        """The next bytes of the instruction, as an address."""
        return self.fetch(self.address_size)

    def port(self, opcode: int) -> int:
        """The port that an `in` or `out` names: in dx, or in the instruction's next byte."""
        return self.get(DX, 2) if opcode & 8 else self.fetch(1)

    def jump(self, distance: int, when: bool = True) -> None:
        """Go on `distance` bytes behind this instruction."""
        if when:
            self.ip = self.ip + distance & (0xFFFFFFFF if self.protected else 0xFFFF)

    def push(self, value: int, size: int) -> None:
        """Put a number on the stack, which grows downwards."""
        top = self.get(SP, self.address_size) - size
        self.set(SP, self.address_size, top)
        self.write(top & (0xFFFFFFFF if self.protected else 0xFFFF), value, size)

    def pop(self, size: int) -> int:
        """Take a number from the stack."""
        top = self.get(SP, self.address_size)
        self.set(SP, self.address_size, top + size)
        return self.read(top, size)
