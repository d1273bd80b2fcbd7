"""What runs in a child of the zygote that calls functions: wait for a call, make it, answer, wait for the next.

The child stays alive between calls, "parked", so that what a function did to it (its namespaces, its root, its
mounts) can be looked at from outside. Each call and each answer is one length-prefixed pickle on a socket, or the
answer is plain data (`labkit.process.plain`)::

    caller                          child
      ── (fn, args, kwargs) ──▶      fn(*args, **kwargs)
      ◀── (VALUE, value) ──          ... or (ERROR, exception, frames)
      ── end of file ──▶             exit

Imported in the zygote, so that nothing needs importing later: a child that has changed its root would import what
lies there.
"""

import gc
import os
import pickle
import signal
import socket
import struct
import sys
import traceback
from importlib.machinery import BuiltinImporter, FrozenImporter

import cloudpickle

from labkit import constants as c
from labkit import syscalls
from labkit.errors import ChildDied
from labkit.explain import cgroup
from labkit.host.zygote import plain_signals_in_child
from labkit.kernel import nofile
from labkit.kernel.record import Record
from labkit.launch.pending import Started
from labkit.process import plain
from labkit.process.plain import ERROR, VALUE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, NoReturn, TextIO

LENGTH = struct.Struct("=Q")
MESSAGE_BYTES_MAX = 1 << 30


class WorkerSpec(Record):
    """A child that calls functions. `path`, `cwd` and `environ` are the caller's: it finds what the caller would."""

    path: "list[str]"
    cwd: str
    environ: "dict[str, str]"
    dumpable: bool  #: whether other processes on the lab host may look into it
    plainly: bool  #: whether it answers by `labkit.process.plain`, and not by a pickle


def start(spec: WorkerSpec, fds: "dict[str, int]", networks: object) -> Started:
    """Fork a child that serves calls on the socket "calls" of `fds`, with "stdout" and "stderr"; return it."""
    zygote_pid = os.getpid()
    pid = os.fork()
    if pid:
        return Started(pid, os.pidfd_open(pid))
    try:
        _serve(zygote_pid, spec, fds["calls"], fds["stdout"], fds["stderr"])
    except BaseException:
        traceback.print_exc()  # no function of the caller's has run yet, so this is a fault of ours
    finally:
        _flush()
        os._exit(1)


def _serve(zygote_pid: int, spec: WorkerSpec, calls_fd: int, stdout: int, stderr: int) -> "NoReturn":
    # Should the zygote be killed, this goes too, even if it executes a program: nothing waits for the keeper to see it.
    syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != zygote_pid:
        os._exit(1)  # killed just before
    plain_signals_in_child()
    nofile.restore()
    gc.enable()
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    calls_fd = os.dup2(calls_fd, 3, inheritable=False)
    syscalls.close_range(4)
    sys.stdout, sys.stderr = _text_stream(1), _text_stream(2)
    if spec.dumpable:
        syscalls.prctl(c.PR_SET_DUMPABLE, 1)  # where the zygote is closed to its own user: see `labkit.host.enter`
    sys.path[:] = spec.path
    if spec.plainly and not spec.dumpable:
        seal_imports()
    os.chdir(spec.cwd)
    os.environ.clear()
    os.environ.update(spec.environ)
    calls = socket.socket(fileno=calls_fd)
    me = os.getpid()
    while (message := read_message(calls)) is not None:
        try:
            answer = _call(message, spec.plainly)
        except SystemExit as error:
            _flush()
            os._exit(_exit_code(error))
        finally:
            _flush()
        if os.getpid() != me:
            # The function forked, and this is the copy: only the original answers.
            os._exit(_end_of_copy(answer, spec.plainly))
        write_message(calls, answer)
    os._exit(0)


_importers: "list[Any] | None" = None


def seal_imports() -> None:
    """Have this process import nothing more from files: others, who are not trusted, may have mounted theirs there."""
    global _importers
    _importers = sys.meta_path[:]
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter]


def open_imports() -> None:
    """Undo `seal_imports`, where this process is about to run their code."""
    if _importers is not None:
        sys.meta_path[:] = _importers


def _text_stream(fd: int) -> "TextIO":
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def _call(message: bytes, plainly: bool) -> bytes:
    written = plain.dumps if plainly else _pickled
    try:
        function, args, kwargs = pickle.loads(message)
        return written(VALUE, function(*args, **kwargs))
    except SystemExit:
        raise
    except plain.NotPlain as error:
        return written(ERROR, ChildDied(f"its answer is no plain data: {error}"), [])
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]  # without this function's own
        where = [(frame.filename, frame.lineno or 0, frame.name) for frame in frames]
        if isinstance(error, OSError):
            cgroup.annotate(error)
        error.__traceback__ = error.__cause__ = error.__context__ = None
        try:
            return written(ERROR, error, where)
        except Exception:
            return written(ERROR, RuntimeError(f"{type(error).__name__}: {error}"), where)


def _end_of_copy(answer: bytes, plainly: bool) -> int:
    """The exit code of a forked copy, whose exception nobody else would ever see: it is said here."""
    kind, value, *where = plain.loads(answer) if plainly else pickle.loads(answer)
    if kind == VALUE:
        return 0
    lines = [f"In a forked child: {type(value).__name__}: {value}", *getattr(value, "__notes__", ())]
    lines += [f"  line {line} of {name}() in {os.path.basename(file)}" for file, line, name in where[0]]
    print("\n".join(lines), file=sys.stderr, flush=True)
    return 1


def _pickled(kind: str, value: object, *where: object) -> bytes:
    return bytes(cloudpickle.dumps((kind, value, *where)))


def code_of_file(filename: str, make: "Callable[..., CodeType]", arguments: "tuple[Any, ...]") -> "CodeType":
    """Code as `process` pickles it: what `make` gives, named after the file that it came from."""
    return make(*arguments).replace(co_filename=filename)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # the function closed it; its business


def _exit_code(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def write_message(sock: socket.socket, payload: bytes) -> None:
    """Send `payload` behind its length."""
    sock.sendall(LENGTH.pack(len(payload)) + payload, socket.MSG_NOSIGNAL)


def read_message(sock: socket.socket, bytes_max: int = MESSAGE_BYTES_MAX) -> bytes | None:
    """The next payload; None where the other end has closed between two of them or in the middle of one, and where it
    says that its payload is larger than `bytes_max`.
    """
    header = _read_exactly(sock, LENGTH.size)
    if header is None:
        return None
    (length,) = LENGTH.unpack(header)
    if length > bytes_max:
        return None
    return _read_exactly(sock, length)


def _read_exactly(sock: socket.socket, count: int) -> bytes | None:
    chunks = []
    while count:
        try:
            chunk = sock.recv(min(count, 1 << 20))
        except ConnectionResetError:
            return None
        if not chunk:
            return None
        chunks.append(chunk)
        count -= len(chunk)
    return b"".join(chunks)
