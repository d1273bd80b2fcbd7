"""The lab host: a sandbox of namespaces in which everything the labs do takes place, and its end.

On first use a zygote (`labkit.host.zygote`) is started in fresh mount, network, IPC, UTS and cgroup namespaces, and in
a user namespace as root where the caller is not root, with the subordinate ids that the machine has set apart for the
caller (`labkit.idmap`). The learner may mount, bridge and filter there; the machine's own mounts and interfaces are out
of reach. It has no PID namespace: PIDs seen there are the machine's. All of it exists only as long as the zygote does,
so ending that is a complete clean-up."""

import atexit
import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from labkit import idmap, procfs, syscalls
from labkit.errors import ChildNotStarted, LabkitError, Unsupported
from labkit.host import cgroup, sealed_python, zygote
from labkit.host.messages import (
    REPLY_BYTES,
    REPLY_DESCRIPTORS,
    REQUEST_BYTES,
    Began,
    Hello,
    MapIds,
    NoLabHost,
    Ready,
    Refused,
    Request,
)
from labkit.kernel import interrupts, record, scm_rights
from labkit.kernel import nofile as descriptors

ANSWER_SECONDS = 120.0  #: within which the zygote answers a request, however busy the machine is
END_SECONDS = 10.0  #: within which each of the lab host's processes ends
_LOOK_SECONDS = 1.0
_PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from labkit.host.zygote import main; main(int(sys.argv[2]))"


if TYPE_CHECKING:
    from labkit.host.netns_pool import NetnsPool
    from labkit.launch import pending as launched

S_contra = TypeVar("S_contra", bound=record.Record, contravariant=True)
S = TypeVar("S", bound=record.Record)


class Handler(Protocol[S_contra]):
    """A function of a module that starts a child in the zygote, by a record and named descriptors."""

    __module__: str
    __qualname__: str

    def __call__(
        self, spec: S_contra, fds: dict[str, int], networks: "NetnsPool", /
    ) -> "launched.Started | launched.Starting": ...


class LabHost:
    """A running lab host, seen from the process that started it."""

    def __init__(self) -> None:
        """Start one. `Unsupported`: this machine does not let this user make the namespaces."""
        self.owner = os.getpid()
        self._sending = threading.Lock()
        with descriptors.plainly("starting the lab host"):
            self._begin()
            try:
                self._agree()
            except BaseException:
                self._control.close()
                self._process.kill()  # nothing happens where it has been waited for
                self._process.communicate()
                raise

    def _begin(self) -> None:
        """Begin its first process, and send that what it needs."""
        with contextlib.ExitStack() as undo:
            python_fd = sealed_python.python()
            undo.callback(os.close, python_fd)
            self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(theirs.close)
            broken = undo.enter_context(contextlib.ExitStack())
            broken.callback(self._control.close)
            # -I -S -E: nothing of the environment decides what this process imports; paths follow in a message.
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-E", "-c", _PROGRAM, _import_root(), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                cwd="/",
                executable=f"/proc/{self.owner}/fd/{python_fd}",
            )
            broken.pop_all()
        with suppress(BrokenPipeError):
            self._control.send(record.dumps(Hello(path=absolute_import_path(), nofile=descriptors.limit())))

    def _agree(self) -> None:
        """Hear whether it could make its namespaces, and who it is."""
        said = self._hear()
        if isinstance(said, MapIds):
            self._map_ids()
            said = self._hear()
        if said is None:
            _, stderr = self._process.communicate()
            last = stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise LabkitError(f"the lab host could not be started: {last[0]}")
        if not isinstance(said, Ready):
            assert isinstance(said, NoLabHost)
            why = " ".join(said.notes) or _DOCTOR
            raise Unsupported(f"this machine does not let you make a lab host ({said.text})", why)
        assert self._process.stderr
        self._process.stderr.close()
        self.pid: int = said.pid
        self._zygote_pid = self.pid
        try:
            self._zygote = syscalls.pidfd_open(self.pid)
        except ProcessLookupError:
            raise LabkitError("the lab host was killed while it started; run the cell again") from None
        self.keeper_pid: int = said.keeper_pid
        self.guard_pid = self._process.pid
        self.group: str = said.group  #: the folder of its control group as we see it; empty where it has none
        self.without_group: tuple[str, str] = said.lack  #: why it has none, and what to do, as `Unsupported` has them

    def _hear(self) -> MapIds | NoLabHost | Ready | None:
        """What it says while it starts; None where it has ended."""
        try:
            with interrupts.allowed():
                said = self._control.recv(REQUEST_BYTES)
        except ConnectionResetError:
            said = b""
        return record.loads(said) if said else None

    def _map_ids(self) -> None:
        try:
            if _maps:
                idmap.write(self._process.pid, *_maps)
            else:
                idmap.write_for_user(self._process.pid)
        except OSError as error:
            notes = getattr(error, "__notes__", [])
            raise Unsupported(f"your ids cannot be mapped ({error.strerror})", " ".join(notes) or _DOCTOR) from None
        self._control.send(b"mapped")

    @property
    def alive(self) -> bool:
        """Whether it still runs. Without its zygote it does not: what is left is being cleared away."""
        with self._sending:
            return self._zygote >= 0 and not _ended(self._zygote, 0) and self._process.poll() is None

    def request(self, handler: Handler[S], spec: S, fds: Mapping[str, int]) -> "Started":
        """Have the zygote call `handler`, a function of a module, with `spec` and copies of the descriptors `fds`.

        The handler starts a child, see `labkit.host.zygote`. Raises `ChildNotStarted` where it raised. Several threads
        may do so at once: each has a reply socket of its own, and a request is one message. The caller keeps what is
        returned, within an `interrupts.Deferred` if it is to survive one.
        """
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                descriptors.make_room(theirs.fileno())
                name = f"{handler.__module__}:{handler.__qualname__}"
                message = record.dumps(Request(handler=name, spec=spec, names=tuple(fds)))
                if len(message) > REQUEST_BYTES:
                    raise LabkitError(f"a request of {len(message)} bytes is too large (at most {REQUEST_BYTES})")
                try:
                    # Under a lock with `end`: once that has closed the socket, its number may be another file's.
                    with self._sending:
                        scm_rights.send(self._control, message, [theirs.fileno(), *fds.values()])
                except (BrokenPipeError, ConnectionResetError):
                    raise LabkitError(_ENDED) from None
                except OSError as error:
                    if error.errno == errno.EBADF and self._control.fileno() < 0:
                        raise LabkitError(_ENDED) from None
                    raise
            with interrupts.allowed():
                self._wait_for(reply)
            data, received = scm_rights.receive(reply, REPLY_BYTES, REPLY_DESCRIPTORS)
            said = record.loads(data) if data else None
            if isinstance(said, Began):
                return Started(said.pid, received[0], reply, received[1:])
            if isinstance(said, Refused):
                raise ChildNotStarted(said.step, said.errno, said.text, said.notes)
            raise LabkitError(_ENDED if self._is_ending() else _NOT_TAKEN)
        except BaseException:
            reply.close()  # should a child have been started meanwhile, this ends it
            raise

    def _is_ending(self) -> bool:
        """Whether the zygote, which has closed a socket, is about to end."""
        with self._sending:
            return self._zygote < 0 or _ended(self._zygote, 1.0)

    def _wait_for(self, reply: socket.socket) -> None:
        """Wait until the zygote answers. `LabkitError`: it is stopped, or takes longer than any start does."""
        poll = select.poll()
        poll.register(reply.fileno(), select.POLLIN)
        deadline = time.monotonic() + ANSWER_SECONDS
        while not poll.poll(_LOOK_SECONDS * 1000):
            if _state(self._zygote_pid) == "T":
                pid = self._zygote_pid
                raise LabkitError(f"the lab host is stopped: kill -CONT {pid} lets it go on, ./lab reset ends it")
            if time.monotonic() > deadline:
                raise LabkitError(f"the lab host has not answered for {ANSWER_SECONDS:.0f} s; ./lab reset ends it")

    def end(self) -> None:
        """End it and all that runs, is mounted or linked in it; returns when nothing is left.

        `LabkitError`: something of it could not be ended.
        """
        with self._sending:
            self._control.close()  # which tells the zygote to end
            zygote_fd, self._zygote = self._zygote, -1
        if zygote_fd < 0:
            return
        try:
            deadline = time.monotonic() + END_SECONDS
            while not _ended(zygote_fd, 0.05):
                # Stopped, it hears nothing. Killed, it leaves the rest to its keeper.
                if _state(self._zygote_pid) == "T" or time.monotonic() > deadline:
                    with suppress(ProcessLookupError, PermissionError):
                        syscalls.pidfd_send_signal(zygote_fd, signal.SIGKILL)
                    break
            self._wait_for_keeper(time.monotonic() + END_SECONDS)
        finally:
            os.close(zygote_fd)

    def _wait_for_keeper(self, deadline: float) -> None:
        while True:
            for guard in (self.keeper_pid, self.guard_pid):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(guard, signal.SIGCONT)  # it may have been stopped
            try:
                self._process.wait(timeout=0.5)
                return
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    look = f"look at it with: ps -p {self.keeper_pid} -o stat,wchan"
                    raise LabkitError(f"the lab host did not end within {END_SECONDS:.0f} s; {look}") from None


class Started:
    """A child just started: PID, pidfd, the socket on which the zygote will say how it ended, further descriptors."""

    __slots__ = ("descriptors", "pid", "pidfd", "reply")

    def __init__(self, pid: int, pidfd: int, reply: socket.socket, descriptors: list[int]) -> None:
        self.pid, self.pidfd, self.reply, self.descriptors = pid, pidfd, reply, descriptors

    def close(self) -> None:
        """Give it up: the zygote kills it."""
        self.reply.close()
        for fd in (self.pidfd, *self.descriptors):
            os.close(fd)


def _ended(pidfd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _state(pid: int) -> str:
    """The state of a process, a letter; empty where it is gone. proc_pid_stat(5)"""
    try:
        return procfs.stat(pid)[2]
    except (OSError, ProcessLookupError):
        return ""


_DOCTOR = "`./lab doctor` says what is missing and how to mend it"
_ENDED = "the lab host has ended, and what ran in it with it; run the cell again to start a new one"
_NOT_TAKEN = "the lab host has no descriptor left to start anything with: end something that runs on it, then try again"
_current: LabHost | None = None
_maps: tuple[idmap.IdMap, idmap.IdMap] | None = None
_lock = threading.Lock()


def current() -> LabHost:
    """The lab host of this process, started on first use, and anew when it has died."""
    global _current
    with _lock:
        if _current and _current.owner != os.getpid():
            _current = None  # we are a fork of the process that owns it
        if _current and not _current.alive:
            _current.end()
            _current = None
        if _current is None:
            _current = LabHost()
        return _current


def map_ids(uids: idmap.IdMap, gids: idmap.IdMap) -> None:
    """From its next start on, have this process's lab host in a user namespace with these maps.

    So its root can be another user than the caller: one who can neither signal the caller nor look into it. The caller
    needs CAP_SETUID and CAP_SETGID, and may not have CAP_SYS_ADMIN, with which a lab host has no user namespace.
    """
    global _maps
    _maps = (uids, gids)


def pid() -> int:
    """The PID of the lab host's zygote, the process to look at for "the host" of the labs."""
    return current().pid


def namespaces() -> dict[str, int]:
    """The lab host's namespaces, kind by kind, as inodes; a kind this kernel lacks (time, say) is left out."""
    zygote_pid = pid()
    kinds = os.listdir(f"/proc/{zygote_pid}/ns")
    return {kind: procfs.namespace_inode(zygote_pid, kind) for kind in kinds if not kind.endswith("_for_children")}


def reset() -> None:
    """End this process's lab host, if it has one; the next use starts a fresh one."""
    global _current
    with _lock:
        if _current and _current.owner == os.getpid():
            _current.end()
        _current = None


def running() -> list[int]:
    """The PIDs (of the keepers) of the lab hosts that this user runs from this checkout, whoever began them."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError, ProcessLookupError):
                if os.stat(f"/proc/{entry}").st_uid != os.geteuid() or _import_root() not in procfs.cmdline(entry):
                    continue
                stat = procfs.stat(entry)
                if stat[1] == zygote.PROCESS_NAME and stat[2] != "Z":
                    found.append((int(entry), int(stat[3])))
    hosts = {pid for pid, _ in found}
    return sorted(pid for pid, parent in found if parent not in hosts)


def reset_all(timeout: float = 10.0) -> list[int]:
    """End every lab host that this user runs from this checkout; return their PIDs.

    Keeper and zygote guard each other, so killing one makes the other clean up. Control groups of lab hosts that were
    killed with both of them are removed too. `LabkitError`: one did not end.
    """
    reset()
    ended = running()
    for keeper in ended:
        with suppress(ProcessLookupError):
            _end(keeper, timeout)
    cgroup.remove_left_over()
    return ended


def _end(keeper: int, timeout: float) -> None:
    pidfd = syscalls.pidfd_open(keeper)
    try:
        zygotes = [child for child in procfs.children(keeper) if procfs.stat(child)[1] == zygote.PROCESS_NAME]
        for process in zygotes or [keeper]:
            os.kill(process, signal.SIGKILL)
        os.kill(keeper, signal.SIGCONT)  # it may have been stopped
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(timeout * 1000):
            raise LabkitError(
                f"lab host {keeper} did not end within {timeout:.0f} s; look at it with: ps -p {keeper} -o stat,wchan"
            )
    finally:
        os.close(pidfd)


def absolute_import_path() -> list[str]:
    """`sys.path` as it must be said to a process with another working directory."""
    return [entry or os.getcwd() for entry in sys.path]


def _import_root() -> str:
    return str(Path(__file__).resolve().parents[2])


@atexit.register
def _end_at_exit() -> None:
    with suppress(Exception):
        reset()
