"""System calls as data: a list that can be read, and carried out in a fresh process without any Python in it.

A `Program` is a straight line of system calls. An argument is a number, a text or bytes (whose address is passed), a
list of texts (as execve(2) takes them), or the `Value` that an earlier call will return, such as a descriptor. It ends
with an execve. There are no branches: what has to be decided is decided while the list is written.

Why: a child that runs Python shares the parent's memory until one of the two writes to a page, and Python writes to
every page it looks at. Forking, copying those pages and taking the copy down again costs more than all the system calls
of a container. `spawn` avoids it: the child shares the memory for good (CLONE_VM, as vfork(2) does) and runs `_LOOP`,
a few instructions that take call after call from the list. Where there is no such loop for the processor, or memory may
not be executed, a forked child does the same in Python: `_interpret`.

The loop's memory, all 64-bit words::

    [0]      address of the call that failed, 0 until then
    [1...]   the calls, 9 words each: number, addresses of six arguments, address for the result, may it fail
    ...      the arguments and results: constants, values, addresses of texts
    ...      the texts
"""

import ctypes
import mmap
import os
import struct
from contextlib import suppress

from labkit import constants as c
from labkit import syscalls
from labkit.errors import explain, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    Argument: TypeAlias = "int | str | bytes | Value | tuple[str, ...] | None"

_WORDS_PER_CALL = 9
_ERRNO_MAX = 4095

# long loop(struct clone_args *, size_t, uint64_t *program): clone3, and in the child the calls of `program`.
# It touches no stack, which it shares with the caller; the caller sleeps until execve or exit (CLONE_VFORK).
_LOOP = {
    "x86_64": bytes.fromhex(
        "b8b3010000"  # mov eax, 435             clone3
        "0f05"  # syscall
        "4885c0"  # test rax, rax
        "7401"  # jz child
        "c3"  # ret                              in the caller: the PID or -errno
        "4889d3"  # child: mov rbx, rdx
        "488d6a08"  # lea rbp, [rdx+8]
        "488b4500"  # next: mov rax, [rbp]       the number
        "488b7d08488b3f"  # mov rdi, [[rbp+8]]   the arguments, each behind its address
        "488b7510488b36"  # mov rsi, [[rbp+16]]
        "488b5518488b12"  # mov rdx, [[rbp+24]]
        "4c8b55204d8b12"  # mov r10, [[rbp+32]]
        "4c8b45284d8b00"  # mov r8, [[rbp+40]]
        "4c8b4d304d8b09"  # mov r9, [[rbp+48]]
        "0f05"  # syscall
        "488b4d38"  # mov rcx, [rbp+56]
        "488901"  # mov [rcx], rax               keep the result
        "483d01f0ffff"  # cmp rax, -4095
        "7216"  # jb done                        unsigned: no error
        "48837d4000"  # cmp qword [rbp+64], 0
        "750f"  # jne done                       it may fail
        "48892b"  # mov [rbx], rbp               say which failed
        "bf7f000000"  # mov edi, 127
        "b8e7000000"  # mov eax, 231             exit_group
        "0f05"  # syscall
        "4883c548"  # done: add rbp, 72
        "eba5"  # jmp next
    ),
}


class Value:
    """What a call of a program will return, or a parameter set before each run; `word` is its place in memory."""

    __slots__ = ("name", "word")

    def __init__(self, name: str) -> None:
        self.name, self.word = name, -1

    def __repr__(self) -> str:
        return self.name


class Call:
    """One system call of a program."""

    __slots__ = ("arguments", "may_fail", "name", "result", "step")

    def __init__(self, name: str, arguments: "tuple[Argument, ...]", result: Value, may_fail: bool, step: str) -> None:
        self.name, self.arguments, self.result, self.may_fail, self.step = name, arguments, result, may_fail, step

    def __str__(self) -> str:
        shown = ", ".join(_show(argument) for argument in self.arguments)
        return f"{self.name}({shown})" + (f" = {self.result}" if self.result.name else "")


class CallFailed(OSError):
    """A call of a program failed; `call` is it, with the step it belongs to."""

    def __init__(self, number: int, call: Call) -> None:
        super().__init__(number, os.strerror(number))
        self.call = call
        if note := explain(call.name, number, call.arguments):
            self.add_note(note)


class Program:
    """A list of system calls. Write it with `call`, then `spawn` it, or `perform` it in the calling process."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._step = ""
        self._memory: mmap.mmap | None = None

    def step(self, description: str) -> None:
        """Begin a step: what the calls from here on are for, to be named should one fail."""
        self._step = description

    def call(self, name: str, *arguments: "Argument", returns: str = "", may_fail: bool = False) -> Value:
        """Add the system call `name`; what it will return can be an argument of later calls. `returns` names it."""
        result = Value(returns)
        self.calls.append(Call(name, arguments, result, may_fail, self._step))
        return result

    def __str__(self) -> str:
        return "\n".join(str(call) for call in self.calls)

    # Carrying it out

    def spawn(self, flags: int, parameters: "Iterable[tuple[Value, int]]" = ()) -> tuple[int, int]:
        """Run it in a child made with the CLONE_* `flags`; return (pid, pidfd) once its execve has succeeded.

        `CallFailed`: a call failed, or execve did; the child has ended and has been waited for then. Only for a process
        of a single thread.
        """
        if self._memory is None:
            self._assemble()
        memory = self._memory
        assert memory
        for value, number in parameters:
            if value.word >= 0:
                struct.pack_into("=q", memory, value.word * 8, number)
        struct.pack_into("=Q", memory, 0, 0)
        loop = _machine_loop()
        flags |= c.CLONE_VFORK | c.CLONE_CLEAR_SIGHAND
        if loop:
            pidfd = ctypes.c_int(-1)
            arguments = syscalls.clone_args(flags | c.CLONE_VM, ctypes.addressof(pidfd))
            pid = loop(arguments, len(arguments), self._base)
            if pid < 0:
                raise os_error(-pid, "clone3", flags)
            fd = pidfd.value
        else:
            pid, fd = syscalls.clone3(flags)
            if not pid:
                self._interpret(memory)
        (failed,) = struct.unpack_from("=Q", memory, 0)
        if failed:
            os.close(fd)
            os.waitpid(pid, 0)
            call = self.calls[(failed - self._base - 8) // (8 * _WORDS_PER_CALL)]
            raise CallFailed(self._errno_of(call), call)
        return pid, fd

    def results(self) -> "list[tuple[Call, int]]":
        """The calls with what they returned in the last run: a negative number is an errno."""
        assert self._memory
        return [(call, struct.unpack_from("=q", self._memory, call.result.word * 8)[0]) for call in self.calls]

    def perform(self) -> None:
        """Carry it out in the calling process, with an exception as `labkit.syscalls` would raise it."""
        self._assemble()
        assert self._memory
        for call in self.calls:
            result = _invoke(self._memory, self._record(call))
            if result < 0 and not call.may_fail:
                raise os_error(-result, call.name, *call.arguments)

    def _interpret(self, memory: mmap.mmap) -> None:
        """The loop in Python, for a forked child: the same memory, which is shared, and the same outcome."""
        with suppress(BaseException):
            for call in self.calls:
                result = _invoke(memory, self._record(call))
                if result < 0 and not call.may_fail:
                    struct.pack_into("=Q", memory, 0, self._base + 8 * self._record(call))
                    break
        os._exit(127)

    # Laying it out in memory

    def _assemble(self) -> None:
        """Lay the program out. Its layout is described at the top."""
        words: list[int] = [0] * (1 + _WORDS_PER_CALL * len(self.calls))
        texts = bytearray()
        in_texts: list[tuple[int, int]] = []  # (word, offset): words that hold the address of a text
        places: dict[object, int] = {}  # constants that are there already

        def place(argument: "Argument") -> int:
            """The word that holds `argument`."""
            if isinstance(argument, Value):
                if argument.word < 0:
                    argument.word = len(words)
                    words.append(0)
                return argument.word
            if isinstance(argument, int) or argument is None:
                if argument not in places:
                    places[argument] = len(words)
                    words.append(argument or 0)
                return places[argument]
            key = argument if isinstance(argument, str | bytes) else ("list", *argument)
            if key not in places:
                if isinstance(argument, str | bytes):
                    offset = _add(texts, os.fsencode(argument) + b"\0")
                else:
                    offsets = [_add(texts, os.fsencode(text) + b"\0") for text in argument]
                    texts.extend(bytes(-len(texts) % 8))
                    offset = len(texts)
                    for number, to in enumerate(offsets):
                        in_texts.append((-(offset // 8 + number) - 1, to))
                    texts.extend(bytes(8 * (len(offsets) + 1)))
                places[key] = len(words)
                in_texts.append((len(words), offset))
                words.append(0)
            return places[key]

        for call in self.calls:
            for value in (call.result, *call.arguments):
                if isinstance(value, Value):
                    value.word = -1
        for number, call in enumerate(self.calls):
            record = 1 + _WORDS_PER_CALL * number
            words[record] = c.SYSCALL_NUMBERS[call.name]
            for position in range(6):
                argument = call.arguments[position] if position < len(call.arguments) else 0
                words[record + 1 + position] = place(argument)
            words[record + 7] = place(call.result)
            words[record + 8] = int(call.may_fail)
        size = 8 * len(words) + len(texts)
        memory = mmap.mmap(-1, size)
        base = self._base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for number in range(len(self.calls)):
            record = 1 + _WORDS_PER_CALL * number
            for position in range(1, 8):
                words[record + position] = base + 8 * words[record + position]
        start_of_texts = 8 * len(words)
        for word, offset in in_texts:
            address = base + start_of_texts + offset
            if word >= 0:
                words[word] = address
            else:
                struct.pack_into("=Q", texts, 8 * (-word - 1), address)
        mask = (1 << 64) - 1
        struct.pack_into(f"={len(words)}Q", memory, 0, *(word & mask for word in words))
        memory[start_of_texts:] = bytes(texts)
        self._memory = memory

    def _record(self, call: Call) -> int:
        return 1 + _WORDS_PER_CALL * self.calls.index(call)

    def _errno_of(self, call: Call) -> int:
        assert self._memory
        return -int(struct.unpack_from("=q", self._memory, call.result.word * 8)[0])


def _add(texts: bytearray, text: bytes) -> int:
    texts.extend(bytes(-len(texts) % 8))  # aligned, as structures must be
    offset = len(texts)
    texts.extend(text)
    return offset


def _invoke(memory: mmap.mmap, record: int) -> int:
    """Make the call at word `record`, keep and return its result: a negative number is an errno."""
    number, *addresses = struct.unpack_from("=8Q", memory, 8 * record)
    arguments = [ctypes.c_uint64.from_address(address).value for address in addresses[:6]]
    result = syscalls.raw(number, *arguments)
    ctypes.c_int64.from_address(addresses[6]).value = result
    return result


_loop: "Callable[[bytes, int, int], int] | None" = None
_loop_tried = False


def _machine_loop() -> "Callable[[bytes, int, int], int] | None":
    """The loop as a function, in memory that is executable and not writable; None where that cannot be had."""
    global _loop, _loop_tried
    if not _loop_tried:
        _loop_tried = True
        code = _LOOP.get(os.uname().machine)
        if code and ctypes.sizeof(ctypes.c_void_p) == 8:
            with suppress(OSError):
                prototype = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p)
                _loop = prototype(syscalls.executable(code))
    return _loop


def _show(argument: "Argument") -> str:
    if isinstance(argument, bytes):
        return f"<{len(argument)} bytes>"
    if isinstance(argument, int) and argument > 0xFFFF:
        return hex(argument)
    if argument is None:
        return "NULL"
    if isinstance(argument, int | str | Value):
        return repr(argument) if isinstance(argument, str) else str(argument)
    return "[" + ", ".join(repr(text) for text in argument) + "]"
