"""The few instructions that carry out a program's system calls in a child that shares its parent's memory.

`labkit.program` says why, and `labkit.program.memory` how the calls lie in memory.
"""

import ctypes
import os
from contextlib import suppress

from labkit import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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

_loop: "Callable[[bytes, int, int], int] | None" = None
_tried = False


def machine_loop() -> "Callable[[bytes, int, int], int] | None":
    """The loop as a function, in memory that is executable and not writable; None where that cannot be had."""
    global _loop, _tried
    if not _tried:
        _tried = True
        code = _LOOP.get(os.uname().machine)
        if code and ctypes.sizeof(ctypes.c_void_p) == 8:
            with suppress(OSError):
                prototype = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p)
                _loop = prototype(syscalls.executable(code))
    return _loop
