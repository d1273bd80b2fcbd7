"""A User Mode Linux that keeps all registers of a recent processor.

Debian's `linux.uml` (6.1 to 6.12) reserves room for the registers of AVX and no more:

- a guest thread's registers lie in 2,696 bytes, and ptrace(2) accepts no set smaller than the processor's own. With
  AMX that set has 11,008 bytes, and the kernel stops at boot: "ptrace set fp regs failed, errno = 14";
- of a signal's frame it saves 832 bytes. What lies beyond (AVX-512) is lost to the program that the signal
  interrupted, which then computes wrong results.

Both are lengths in the program's code. `corrected` changes them in a copy; the installed program stays as it is. A
guest must not use AMX itself: the tiles are not saved.

Sources: ptrace(2), PTRACE_SETREGSET; the kernel's arch/x86/um/os-Linux/registers.c and arch/x86/um/signal.c.
"""

import re
import struct
from typing import NamedTuple

#: Register sets beyond AVX, as /proc/cpuinfo names them.
BEYOND_AVX = frozenset({"avx512f", "amx_tile", "pku"})

_AVX_BYTES, _ALL_BYTES = 0x340, 0xA88  # of extended state: up to AVX; up to AVX-512 and protection keys
_FRAME_BYTES = 0x1B8  # of a signal frame, without its extended state


class _Length(NamedTuple):
    """A 32-bit number in the program's code, the instructions around it, and what it becomes."""

    before: bytes
    old: int
    after: bytes
    new: int

    def pattern(self) -> bytes:
        return b"(?s)" + self.before + b"(" + re.escape(struct.pack("<i", self.old)) + b")" + self.after


_LENGTHS = (
    # mov qword [rbp-N], LENGTH; mov edi, PTRACE_SETREGSET: the kernel shortens what is longer than its own set
    _Length(rb"\x48\xc7\x45.", _ALL_BYTES, rb"\xbf\x05\x42\x00\x00", 0x10000),
    # mov esi or edx, LENGTH; ... call: copying the extended state from the frame and to it
    _Length(rb"\xbe", _AVX_BYTES, rb"(?:\x48\x81\xc3\xd8\x00\x00\x00)?\x4c\x89\xe7\x41\xff\xd6", _ALL_BYTES),
    _Length(rb"\xba", _AVX_BYTES, rb"\x48\x89\xde\x41\xff\xd5\x48\x85\xc0", _ALL_BYTES),
    _Length(rb"\xba", _AVX_BYTES, rb"(?:\x48\x8b\x75.)?\x48\x8d\xbb\xd8\x00\x00\x00", _ALL_BYTES),
    # lea rdx, [rdi-LENGTH]: where the frame begins on the stack; mov esi, LENGTH: its size
    _Length(rb"\x48\x8d\x97", -(_FRAME_BYTES + _AVX_BYTES), rb"\x53\x48\x83\xe2\xf0", -(_FRAME_BYTES + _ALL_BYTES)),
    _Length(rb"\xbe", _FRAME_BYTES + _AVX_BYTES, rb"\x89\x45", _FRAME_BYTES + _ALL_BYTES),
)


def corrected(program: bytes) -> bytes | None:
    """The program `linux.uml` with its lengths corrected; None where one of them is not found exactly once."""
    changed = bytearray(program)
    for length in _LENGTHS:
        places = [match.start(1) for match in re.finditer(length.pattern(), program)]
        if len(places) != 1:
            return None
        changed[places[0] : places[0] + 4] = struct.pack("<i", length.new)
    return bytes(changed)


def needed(cpuinfo: str) -> bool:
    """Whether the processor that `cpuinfo` (the text of /proc/cpuinfo) describes has registers beyond AVX."""
    return any(line.startswith("flags") and BEYOND_AVX & set(line.split()) for line in cpuinfo.splitlines())
