"""ptrace(2): stop another process whenever it makes a system call, look at it, and let it go on.

A tracer is one *thread*; every request below must come from it. What it traces (a thread too) is its child for as long:
`os.waitpid(-1, WALL)` says when one has stopped, and why::

    stop = os.waitpid(-1, WALL)       a signal | 0x80   it enters or leaves a system call: `syscall_info`
                                      an event          it has forked, begun a thread, executed a program
                                      a signal          somebody has sent it one: pass it on with `resume`
    resume(pid)                       until the next of these

`labkit.tracer` is a whole tracer made of it. Nothing here depends on the processor: which registers hold the number
and the arguments, PTRACE_GET_SYSCALL_INFO (Linux 5.3) knows. Sources: ptrace(2), strace(1).
"""

import ctypes
import errno
import functools
import os
import signal
import struct
from collections.abc import Callable
from typing import NamedTuple

from labkit import libseccomp
from labkit.errors import Unsupported, os_error

# Requests.
PTRACE_TRACEME = 0
PTRACE_CONT = 7
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_SETOPTIONS = 0x4200
PTRACE_GETEVENTMSG = 0x4201
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_GET_SYSCALL_INFO = 0x420E
# Options, as a sum.
TRACESYSGOOD = 0x01  # a stop at a system call is told by SIGTRAP | 0x80, so that no real SIGTRAP is taken for one
TRACEFORK, TRACEVFORK, TRACECLONE = 0x02, 0x04, 0x08  # children and threads are traced too, from their first step
TRACEEXEC = 0x10
EXITKILL = 0x100000  # whatever is traced is killed when the tracer ends
ALL_CHILDREN = TRACEFORK | TRACEVFORK | TRACECLONE
# Events, in the third byte of a stop's status.
EVENT_EXEC = 4  # it has executed a program, of which no instruction has run yet
EVENT_STOP = 128

SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000  # waitpid(2): threads and children alike
_INFO = struct.Struct("=BxxxIQQ")  # op, architecture, instruction pointer, stack pointer
_ENTRY = struct.Struct("=Q6Q")  # number, arguments
_EXIT = struct.Struct("=q?")  # result, whether it is an error
_INFO_BYTES = 88
_OP_ENTRY, _OP_EXIT = 1, 2

_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_ptrace.restype = ctypes.c_long


class Entering(NamedTuple):
    """A process is about to make system call `number` with these six `arguments` (that it need not use all)."""

    number: int
    arguments: tuple[int, ...]


class Leaving(NamedTuple):
    """Its system call has returned `result`; below 0 that is an errno."""

    result: int


def ptrace(request: int, pid: int, addr: object = None, data: object = None) -> int:
    """The call itself: `request` about process or thread `pid`. ESRCH: it is not stopped, or not traced by us."""
    result: int = _ptrace(request, pid, addr, data)
    if result == -1:
        raise os_error(ctypes.get_errno(), "ptrace", request, pid)
    return result


def trace_me() -> None:
    """Have the parent trace the caller, its child: from now on every signal, and each execve, stops it."""
    ptrace(PTRACE_TRACEME, 0)


def seize(pid: int, options: int = 0) -> None:
    """Trace thread `pid`, which runs on. `Unsupported`: this machine does not let us."""
    try:
        ptrace(PTRACE_SEIZE, pid, None, options)
    except PermissionError:
        raise Unsupported(
            f"process {pid} may not be traced from here: it is traced already, or not ours, or the machine forbids it",
            "see /proc/sys/kernel/yama/ptrace_scope (3: nobody may); a container needs the capability SYS_PTRACE",
        ) from None


def set_options(pid: int, options: int) -> None:
    """Which events stop `pid`, which is stopped, and the children it will have."""
    ptrace(PTRACE_SETOPTIONS, pid, None, options)


def resume(pid: int, pass_on: int = 0) -> None:
    """Let `pid` go on until it enters or leaves a system call; it gets the signal `pass_on`, if that is not 0."""
    ptrace(PTRACE_SYSCALL, pid, None, pass_on)


def interrupt(pid: int) -> None:
    """Stop a seized thread, as EVENT_STOP, without its noticing."""
    ptrace(PTRACE_INTERRUPT, pid)


def listen(pid: int) -> None:
    """Leave a seized thread, which has stopped with its whole process as by Ctrl-Z, as it is until a SIGCONT comes."""
    ptrace(PTRACE_LISTEN, pid)


def detach(pid: int, pass_on: int = 0) -> None:
    """Trace `pid`, which is stopped, no longer; it runs on."""
    ptrace(PTRACE_DETACH, pid, None, pass_on)


def syscall_info(pid: int) -> Entering | Leaving:
    """What `pid`, which is stopped at a system call, is about to do or has just done."""
    buffer = ctypes.create_string_buffer(_INFO_BYTES)
    try:
        ptrace(PTRACE_GET_SYSCALL_INFO, pid, _INFO_BYTES, ctypes.addressof(buffer))
    except OSError as error:
        if error.errno == errno.EIO:  # a request that the kernel does not know
            raise Unsupported("this kernel cannot say which system call it is", "use Linux 5.3 or newer") from None
        raise
    op, *_ = _INFO.unpack_from(buffer)
    if op == _OP_ENTRY:
        number, *arguments = _ENTRY.unpack_from(buffer, _INFO.size)
        return Entering(number, tuple(arguments))
    if op != _OP_EXIT:
        raise ValueError(f"process {pid} is not stopped at a system call")
    return Leaving(_EXIT.unpack_from(buffer, _INFO.size)[0])


def event(status: int) -> int:
    """The event that a stop tells of (EVENT_STOP, ...), from what waitpid(2) has said; 0 for none."""
    return status >> 16


@functools.cache
def names() -> dict[int, str]:
    """The names of this machine's system calls, by number. `Unsupported`: libseccomp, which knows them, is missing."""
    return libseccomp.known(libseccomp.native())


def name(number: int) -> str:
    """The name of system call `number`: "openat"; of one that nobody here knows, "syscall_999"."""
    return names().get(number, f"syscall_{number}")


def start(what: "list[str] | Callable[[], object]", options: int = TRACESYSGOOD) -> int:
    """Fork a child that is traced by the caller and stopped just before it begins; its PID. `resume` lets it begin.

    `what` is a command, whose first system call is the execve of its program, or a function, after which the child
    ends. For a process of a single thread.
    """
    pid = os.fork()
    if pid == 0:
        status = 127
        try:
            trace_me()
            os.kill(os.getpid(), signal.SIGSTOP)  # wait here until the tracer is ready
            if callable(what):
                what()
                status = 0
            else:
                os.execvp(what[0], what)
        finally:
            os._exit(status)
    os.waitpid(pid, 0)
    # Without TRACEEXEC an execve would be told by a SIGTRAP that looks like somebody's signal.
    set_options(pid, options | TRACEEXEC | EXITKILL)
    return pid
