"""Classic BPF, the language of seccomp filters: an assembler, its inverse, and an interpreter to try filters with.

A filter is a small program that the kernel runs before each system call of the process. Its only input is this
structure (seccomp(2)), read in 32-bit words; its result says what becomes of the call::

    offset  0   nr     number of the system call
            4   arch   whose numbers those are: a process may call as a 32-bit program does, too
            8   ip     address of the instruction, low and high half
           16   arg0   first argument, low half; at 20 its high half; arg1 at 24, ... arg5 at 56

There is one register and no way back: a jump leads forward only, so every filter ends. Each instruction is 8 bytes
(struct sock_filter: code, how many instructions to skip if true, if false, and a number), written here as the kernel's
bpf_asm has it, one a line, `;` before remarks::

            ld [arch]                    ; load a word into the register
            jeq #x86_64, known, kill     ; to one label if equal, to the other if not
    known:  ld [nr]
            jge #0x40000000, kill        ; without a second label: go on if not
            jeq #mount, no               ; names stand for numbers that `assemble` is given
            ret allow
    no:     ret errno #EPERM
    kill:   ret kill_process

Sources: seccomp(2), linux/filter.h, Documentation/networking/filter.rst.
"""

import errno
import struct

from labkit.errors import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter
LENGTH_MAX = 4096  # instructions, BPF_MAXINSNS
_DATA = struct.Struct("=IIQ6Q")  # struct seccomp_data

#: linux/audit.h: what `arch` holds.
ARCHITECTURES = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7, "arm": 0x40000028}
X32_BIT = 0x40000000  # in `nr` of an x86-64 call with 32-bit pointers

#: linux/seccomp.h: what a filter may return.
ACTIONS = {
    "kill_process": 0x80000000,
    "kill_thread": 0x00000000,
    "trap": 0x00030000,
    "errno": 0x00050000,  # with the errno in the lower 16 bits
    "trace": 0x7FF00000,
    "log": 0x7FFC0000,
    "allow": 0x7FFF0000,
}
_FIELDS = {"nr": 0, "arch": 4, "ip": 8, **{f"arg{number}": 16 + 8 * number for number in range(6)}}
_LD, _AND, _RET = 0x20, 0x54, 0x06  # load a word from a place, AND with a number, return a number
_JUMPS = {"jmp": 0x05, "jeq": 0x15, "jgt": 0x25, "jge": 0x35, "jset": 0x45}


def assemble(text: str, names: "Mapping[str, int] | None" = None) -> bytes:
    """The filter that `text` says, as the kernel takes it. `InvalidConfig` names the line that makes no sense."""
    numbers = {**ARCHITECTURES, **{name: number for number, name in errno.errorcode.items()}, **(names or {})}
    labels: dict[str, int] = {}
    lines: list[list[str]] = []
    for line in text.splitlines():
        code = line.partition(";")[0]
        while ":" in code:
            label, _, code = code.partition(":")
            labels[label.strip()] = len(lines)
        if words := code.replace(",", " ").split():
            lines.append(words)
    if not 0 < len(lines) <= LENGTH_MAX:
        raise InvalidConfig(f"a filter has 1 to {LENGTH_MAX} instructions, and this one has {len(lines)}")

    assembled = [_instruction(position, words, labels, numbers) for position, words in enumerate(lines)]
    if lines[-1][0] != "ret":
        raise InvalidConfig("the last instruction of a filter must be a ret")
    return b"".join(assembled)


def _instruction(position: int, words: list[str], labels: dict[str, int], numbers: dict[str, int]) -> bytes:
    said = " ".join(words)

    def skip(label: str, most: int = 255) -> int:
        distance = labels[label] - position - 1 if label in labels else -1
        if not 0 <= distance <= most:
            why = "is too far away" if distance > most else "is behind it" if label in labels else "is nowhere"
            raise InvalidConfig(f"{said!r}: the label {label!r} {why}; a jump leads forward, past {most} at most")
        return distance

    def number(word: str) -> int:
        name = word.removeprefix("#")
        return numbers[name] if name in numbers else int(name, 0) & 0xFFFFFFFF

    try:
        match words:
            case ["ld", place]:
                field, _, beyond = place.strip("[]").partition("+")
                offset = _FIELDS[field] if field in _FIELDS else int(field)
                return INSTRUCTION.pack(_LD, 0, 0, offset + int(beyond or 0))
            case ["and", value]:
                return INSTRUCTION.pack(_AND, 0, 0, number(value))
            case ["jmp", label]:
                return INSTRUCTION.pack(_JUMPS["jmp"], 0, 0, skip(label, LENGTH_MAX))
            case ["jeq" | "jgt" | "jge" | "jset" as name, value, true]:
                return INSTRUCTION.pack(_JUMPS[name], skip(true), 0, number(value))
            case ["jeq" | "jgt" | "jge" | "jset" as name, value, true, false]:
                return INSTRUCTION.pack(_JUMPS[name], skip(true), skip(false), number(value))
            case ["ret", "errno" | "trace" as action, value]:
                return INSTRUCTION.pack(_RET, 0, 0, ACTIONS[action] | number(value) & 0xFFFF)
            case ["ret", value]:
                return INSTRUCTION.pack(_RET, 0, 0, ACTIONS[value] if value in ACTIONS else number(value))
    except ValueError as error:
        if isinstance(error, InvalidConfig):
            raise
    raise InvalidConfig(f"{said!r} is no instruction that this assembler knows, or a name in it stands for no number")


def run(code: bytes, nr: int, arch: int, arguments: "Iterable[int]" = (), ip: int = 0) -> int:
    """What the filter `code` returns for that system call: the interpreter that the kernel has, in Python."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    mask = (1 << 64) - 1
    data = _DATA.pack(nr & 0xFFFFFFFF, arch, ip, *(argument & mask for argument in padded))
    register = position = 0
    while True:
        operation, if_true, if_false, k = INSTRUCTION.unpack_from(code, position * INSTRUCTION.size)
        position += 1
        if operation == _RET:
            return int(k)
        if operation == _LD:
            if k % 4 or k > _DATA.size - 4:
                raise InvalidConfig(f"instruction {position - 1} loads from {k}, and the input has words at 0 to 60")
            (register,) = struct.unpack_from("=I", data, k)
        elif operation == _AND:
            register &= k
        elif operation == _JUMPS["jmp"]:
            position += k
        elif operation in _TESTS:
            position += if_true if _TESTS[operation](register, k) else if_false
        else:
            raise InvalidConfig(f"instruction {position - 1} has the operation {operation:#x}, which is not known here")


_TESTS: "dict[int, Callable[[int, int], bool]]" = {
    _JUMPS["jeq"]: lambda register, k: register == k,
    _JUMPS["jgt"]: lambda register, k: register > k,
    _JUMPS["jge"]: lambda register, k: register >= k,
    _JUMPS["jset"]: lambda register, k: bool(register & k),
}


def decision(value: int) -> str:
    """What a filter's result means: `allow`, `errno EPERM`, `kill_process`, ..."""
    action = next((name for name, number in ACTIONS.items() if number == value & 0xFFFF0000), None)
    if action is None:
        return f"{value:#x}, which the kernel takes for kill_process"
    data = value & 0xFFFF
    if action == "errno":
        return f"errno {errno.errorcode.get(data, data)}"
    return f"{action} {data}" if action == "trace" else action


def disassemble(code: bytes, names: "Mapping[str, int] | None" = None) -> str:
    """The filter as lines that can be read; a jump says the number of the line that it leads to."""
    fields = {offset: name for name, offset in _FIELDS.items()}
    fields |= {offset + 4: f"{name}+4" for offset, name in fields.items() if offset >= 8}
    jumps = {number: name for name, number in _JUMPS.items()}
    known = {
        "arch": {number: name for name, number in ARCHITECTURES.items()},
        "nr": {number: name for name, number in (names or {}).items()},
    }
    loaded = ""  # by the last line that loads: what the numbers after it are about
    lines = []
    for position, (operation, if_true, if_false, k) in enumerate(INSTRUCTION.iter_unpack(code), start=1):
        if operation == _LD:
            loaded = str(fields.get(k, k))
            said = f"ld [{loaded}]"
        elif operation == _AND:
            said = f"and #{k:#x}"
        elif operation == _RET:
            said = f"ret {decision(k)}"
        elif operation == _JUMPS["jmp"]:
            said = f"jmp {position + k + 1}"
        else:
            value = known.get(loaded, {}).get(k, f"{k:#x}")
            said = (
                f"{jumps.get(operation, hex(operation))} #{value}, {position + if_true + 1}, {position + if_false + 1}"
            )
        lines.append(f"{position:4}: {said}")
    return "\n".join(lines)
