"""One command in a fresh virtual machine: what it is given, and what comes back."""

import codecs
import contextlib
import os
import pwd
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from labkit.errors import InvalidConfig, LabkitError, Unsupported
from labkit.files import state_folder
from labkit.vm import guest_root, qemu, streams, trial, uml
from labkit.vm.boot import Kind, Machine, TimedOut

KINDS: dict[str, Kind] = {"uml": uml, "qemu": qemu}  # the one to prefer first
SMALLEST_MIB = 128


@dataclass(frozen=True)
class Completed:
    """How the command ended. `stdout` and `stderr` are empty unless they were captured."""

    exit_code: int
    stdout: str
    stderr: str
    boot_s: float  # until the guest's first program ran
    command_s: float  # from there to the command's end


@dataclass(frozen=True)
class Account:
    """Who the command runs as in the guest."""

    uid: int
    gid: int
    groups: list[int]
    name: str
    home: str


def kinds(*, boot: bool = True) -> dict[str, Unsupported | None]:
    """Each kind of machine by name, the preferred one first: None if it can run here, else what it lacks.

    Found by booting one of each, once (`labkit.vm.trial`). Nothing is downloaded for that. Without `boot` only what an
    earlier trial has found counts.
    """
    return {name: _lack(kind, boot=boot) for name, kind in KINDS.items()}


def untried() -> list[str]:
    """The kinds whose kernel is here, and of which none has been booted yet."""
    found = []
    for name, kind in KINDS.items():
        with contextlib.suppress(Unsupported):
            kind.check()
            if kind.image() is not None and trial.known(kind) is None:
                found.append(name)
    return found


def offer(*, fetch: bool = False) -> str | None:
    """The kind of machine to offer where this kernel cannot run all labs; None if none can run."""
    return next((name for name, kind in KINDS.items() if _lack(kind, fetch=fetch) is None), None)


def _lack(kind: Kind, *, fetch: bool = False, boot: bool = True) -> Unsupported | None:
    try:
        kind.check()
        if kind.image(fetch=fetch) is None:
            return Unsupported(f"the kernel that {kind.NAME} boots is not here yet", "./lab setup fetches it")
        if not boot and trial.known(kind) is None:
            return Unsupported(f"{kind.NAME} has not been tried yet", "./lab doctor tries it")
        return trial.of(kind).lack(kind.NAME)
    except Unsupported as lack:
        return lack


def run(
    argv: Sequence[str],
    *,
    kind: str | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    memory_mib: int = 1024,
    timeout: float | None = None,
    writable: Sequence[str | os.PathLike[str]] = (),
    forward: Sequence[tuple[int, int]] = (),
    stdin: int | bytes | None = None,
    capture: bool = False,
    terminal: bool = False,
) -> Completed:
    """Boot a virtual machine with this machine's own files in it, run `argv` there, and end the machine.

    The command sees all host files that the caller may read, at their own paths, and may change them: the changes
    stay in the machine's memory and end with it, except below the existing folders `writable`. /tmp, /var/tmp and
    /run are empty, but for the Python environment, the course and `cwd` where those lie there. There is no network
    but loopback; `forward` has pairs (host port, guest port): what connects to 127.0.0.1:host port reaches the
    guest's 127.0.0.1:guest port.

    Where this user can make no namespaces, only the guest's own mounts keep root in a User Mode Linux machine from the
    caller's files, and root can mount them anew (`labkit.vm.sandbox`).

    kind:      "uml" or "qemu"; None takes the first that can run
    cwd:       the folder to run in, None for the caller's
    env:       added to a plain environment (PATH with this Python's programs first, HOME, USER, LANG, TERM)
    user:      an account of this machine; None is root, over the guest alone
    timeout:   seconds for the command, without the boot, which has its own limit
    stdin:     bytes, or a descriptor; None is empty
    capture:   keep the output instead of passing it on as it comes
    terminal:  give the command a terminal (then stdout and stderr are one)

    Raises Unsupported where no such machine can run, TimedOut, MachineDied, InvalidConfig (nothing was started).
    """
    words, folder = _checked(argv, cwd, memory_mib, timeout)
    shared = [_shared_folder(path) for path in writable]
    account = _account(user)
    driver = _kind(kind)
    out, err = bytearray(), bytearray()
    with contextlib.ExitStack() as stack:
        listeners = [(stack.enter_context(_listener(host)), to) for host, to in forward]
        machine = stack.enter_context(Machine(driver, memory_mib, shared))
        for listener, guest_port in listeners:
            machine.listen(listener, guest_port)
        order = {
            "argv": words,
            "cwd": folder,
            "env": _environment(account, env or {}),
            "keep": _kept(folder),
            "writable": [asdict(driver.share(path, number)) for number, path in enumerate(shared)],
            "modules": machine.boot.modules,
            "module_tree": machine.boot.module_tree,
            "modprobe": _modprobe(),
            "terminal": shutil.get_terminal_size()[::-1] if terminal else None,
            **asdict(account),
        }
        code, boot_s, command_s = drive(
            machine,
            order,
            stdin=stack.enter_context(_source(stdin)),
            stdout=out.extend if capture else text_sink(sys.stdout),
            stderr=err.extend if capture else text_sink(sys.stderr),
            timeout_s=timeout,
        )
    return Completed(code, out.decode(errors="replace"), err.decode(errors="replace"), boot_s, command_s)


def drive(
    machine: Machine,
    order: dict[str, Any],
    *,
    stdin: int,
    stdout: Callable[[bytes], object],
    stderr: Callable[[bytes], object],
    timeout_s: float | None,
) -> tuple[int, float, float]:
    """Wait for the machine, have it run its one command, and return exit code, boot time and command time."""
    begun = time.monotonic()
    while not machine.ready:
        machine.step(1)
        if time.monotonic() - begun > machine.kind.BOOT_TIMEOUT_S:
            raise TimedOut(
                f"the virtual machine ({machine.kind.NAME}) did not come up within "
                f"{machine.kind.BOOT_TIMEOUT_S:.0f} seconds{machine.last_words()}"
            )
    up = time.monotonic()
    line = machine.line
    line.attach(streams.STDOUT, sink=stdout)
    line.attach(streams.STDERR, sink=stderr)
    line.send({"start": order})
    stdin_attached = False
    while machine.exit_code is None:
        if machine.started and not stdin_attached:  # the guest has its end of the stream now
            line.attach(streams.STDIN, source=stdin)
            stdin_attached = True
        left = 1.0 if timeout_s is None else up + timeout_s - time.monotonic()
        if left <= 0:
            raise TimedOut(f"the command did not end within {timeout_s:g} seconds, and was ended with its machine")
        machine.step(min(left, 1.0))
    return machine.exit_code, up - begun, time.monotonic() - up


def text_sink(stream: TextIO) -> Callable[[bytes], object]:
    """A function that writes bytes to a text stream as they come: a terminal's, a pipe's, or a notebook cell's."""
    raw = getattr(stream, "buffer", None)
    if raw is not None:

        def write_bytes(data: bytes) -> None:
            stream.flush()
            raw.write(data)
            raw.flush()

        return write_bytes
    decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write_text(data: bytes) -> None:
        stream.write(decoder.decode(data))
        stream.flush()

    return write_text


# What the guest is told


def _checked(
    argv: Sequence[str], cwd: str | os.PathLike[str] | None, memory_mib: int, timeout: float | None
) -> tuple[list[str], str]:
    if isinstance(argv, str) or not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
        raise InvalidConfig("a command is a list of one or more strings, without NUL bytes")
    if memory_mib < SMALLEST_MIB:
        raise InvalidConfig(f"a virtual machine needs {SMALLEST_MIB} MiB of memory at least, not {memory_mib}")
    if timeout is not None and timeout <= 0:
        raise InvalidConfig(f"a time limit is a number of seconds above 0, not {timeout:g}")
    folder = os.path.abspath(cwd if cwd is not None else os.getcwd())
    if not os.path.isdir(folder):
        raise InvalidConfig(f"there is no folder {folder} to run the command in")
    return list(argv), folder


def _kind(name: str | None) -> Kind:
    if name is not None:
        if name not in KINDS:
            raise InvalidConfig(f"there is no kind of virtual machine called {name!r}, only {' and '.join(KINDS)}")
        if lack := _lack(KINDS[name], fetch=True):
            raise lack
        return KINDS[name]
    chosen = offer(fetch=True)
    if chosen is None:
        raise Unsupported(
            "no kind of virtual machine can run here", "; or ".join(str(lack) for lack in kinds().values())
        )
    if chosen == qemu.NAME and not qemu.accelerated():
        seconds = trial.of(qemu).seconds
        print(
            f"User Mode Linux cannot run here, so QEMU imitates a computer: it takes about {seconds:.0f} s to boot, "
            "and programs run several times slower in it.",
            file=sys.stderr,
        )
    return KINDS[chosen]


def _shared_folder(path: str | os.PathLike[str]) -> Path:
    folder = Path(path).resolve()
    if not folder.is_dir():
        raise InvalidConfig(f"only an existing folder can be shared writable, and {folder} is none")
    if folder == Path("/"):
        raise InvalidConfig("the whole file system cannot be shared writable; name the folders that are needed")
    return folder


def _account(user: str | None) -> Account:
    try:
        entry = pwd.getpwnam(user) if user is not None else pwd.getpwuid(0)
    except KeyError:
        raise InvalidConfig(f"this machine has no user {user!r}") from None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Account(entry.pw_uid, entry.pw_gid, groups, entry.pw_name, entry.pw_dir)


def _environment(account: Account, extra: Mapping[str, str]) -> dict[str, str]:
    plain = {
        "PATH": f"{os.path.join(sys.prefix, 'bin')}:{guest_root.PATH}",
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "TERM": os.environ.get("TERM", "dumb"),
        "SHELL": "/bin/sh",
    }
    return plain | dict(extra)


def _kept(cwd: str) -> list[str]:
    """Folders that must be seen in the guest even where they lie in a place that is fresh there."""
    wanted = [sys.prefix, sys.base_prefix, str(state_folder.checkout()), str(state_folder.state()), cwd]
    return [path for path in dict.fromkeys(wanted) if os.path.isdir(path) and path not in guest_root.FRESH]


def _modprobe() -> str:
    """The program that the guest's kernel shall call for a module it lacks; empty if the host has none."""
    search = f"{os.environ.get('PATH', '')}:{guest_root.PATH}"
    if program := shutil.which("modprobe", path=search):
        return program
    busybox = shutil.which("busybox", path=search)
    return f"{busybox} modprobe" if busybox else ""


@contextlib.contextmanager
def _listener(port: int) -> Iterator[socket.socket]:
    """A listening socket on the host's loopback address, and on no other."""
    if not 0 < port < 65536:
        raise InvalidConfig(f"a TCP port is a number from 1 to 65535, not {port}")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise LabkitError(f"port {port} of 127.0.0.1 cannot be forwarded: {error.strerror}") from None
        listener.listen(64)
        listener.setblocking(False)
        yield listener


@contextlib.contextmanager
def _source(stdin: int | bytes | None) -> Iterator[int]:
    if isinstance(stdin, int):
        yield stdin
        return
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        os.write(fd, stdin or b"")
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
