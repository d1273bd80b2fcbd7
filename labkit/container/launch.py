"""Starting a container's processes, in the zygote. `labkit.container.steps` has what each of them does.

::

    caller                 zygote                      child
      ── request ──────▶   write the program
                           clone3(NEWPID, ...) ─────▶  its steps ...
                           (sleeps)                    execve
      ◀── P, pidfd ───     or F, step and errno
      ◀── X, status ──     wait4

A child with a user namespace waits for its maps, and one that is created first and started later waits for the caller;
neither can have the zygote asleep meanwhile, so it runs beside it::

                           clone3(NEWUSER, ...) ────▶  recvmsg: waits
                           write the maps
                           go, copied mounts ───────▶  its steps ...
                           read                 ◀────  execve closes the pipe; or "c", and waits
      ◀── P, pidfd, pipe
      ── start ─────────────────────────────────────▶  execve closes the pipe; or the errnos
"""

import errno
import marshal
import os
import signal
import socket
import struct
from contextlib import suppress

from labkit import constants as c
from labkit import idmap, messages, syscalls, zygote
from labkit.container import steps
from labkit.container.steps import Written
from labkit.program import CallFailed, Program
from labkit.zygote import Started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KEPT_PROGRAMS = 64
_written: "dict[bytes, Written]" = {}
_home: dict[str, int] = {}  # the zygote's own namespaces, by kind, as far as it has ever left them


def start(argument: "Any", fds: list[int]) -> Started:
    """Start the first process of a new container; return it.

    `argument` is `(Config.message(), names)`, and `names` say what the descriptors `fds` are: "stdin", "stdout",
    "stderr"; "console", a socket for the terminal; "cgroup_fd", the folder of its control group; "net", "ipc", "uts",
    "pid", "cgroup": namespaces to join; "start": a pipe, and then the process waits on it before it executes the
    command. Otherwise this returns when execve(2) has succeeded. `CallFailed` says what did not.
    """
    message, names = argument
    network = None
    if not {"net"} & {*names, *message["shared"]} and message["network"] != "host" and not message["uid_map"]:
        network = zygote.ready_networks.take() if zygote.ready_networks else None
    try:
        if network is not None:
            names, fds = (*names, "net"), [*fds, network]
        # PID 1 of a PID namespace takes all of its processes along, so nothing of its session can be left.
        alone = "pid" not in (*names, *message["shared"])
        return _launch(steps.first_process, message, names, fds, leaves_orphans=not alone)
    finally:
        if network is not None:
            os.close(network)


def join(argument: "Any", fds: list[int]) -> Started:
    """Start a further process in a running container; return it. As `start`, with the container's pidfd "container"."""
    message, names = argument
    container = fds[names.index("container")]
    return _launch(steps.further_process, message, (*names, "pid"), [*fds, container], leaves_orphans=False)


def _launch(
    write: "Callable[[Any, tuple[str, ...]], Written]",
    message: "Any",
    names: "tuple[str, ...]",
    fds: list[int],
    leaves_orphans: bool,
) -> Started:
    written = _written_for(write, message, names)
    given = dict(zip(names, fds, strict=True))
    # These are the zygote's own for as long as it lives, so no descriptor is overwritten when its copy goes there.
    assert min(given.values(), default=steps.START_FD + 1) > steps.START_FD
    parameters = [(written.parameters[name], fd) for name, fd in given.items()]
    try:
        with _Visit({kind: given[kind] for kind in written.born_in}):
            if not written.waits:
                pid, pidfd = written.program.spawn(written.flags, parameters, given.get("cgroup_fd"))
                return Started(pid, pidfd, leaves_orphans)
            waiting = _Waiting(written, parameters, given.get("cgroup_fd"))
        return waiting.go(leaves_orphans)
    except CallFailed as failed:
        raise _most_telling(written.program, failed) from None


class _Visit:
    """Be in other namespaces for a moment, so that children begun within are born there: by kind, a descriptor.

    setns(2) moves no process into another PID namespace, but decides where its children are. And a child that is born
    in a user namespace of its own has no power over namespaces made outside, and so could not join them by itself.
    """

    def __init__(self, namespaces: dict[str, int]) -> None:
        self.namespaces = namespaces

    def __enter__(self) -> None:
        try:
            for kind, fd in self.namespaces.items():
                if kind not in _home:
                    _home[kind] = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
                syscalls.setns(fd, steps.FLAGS[kind])
        except OSError:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        for kind in self.namespaces:
            if kind in _home:
                syscalls.setns(_home[kind], steps.FLAGS[kind])


class _Waiting:
    """A child that runs beside the zygote, and waits for it."""

    def __init__(self, written: Written, parameters: "list[tuple[Any, int]]", cgroup_fd: int | None) -> None:
        self.written = written
        self.sync, sync = socket.socketpair()
        self.status, status = os.pipe2(os.O_CLOEXEC)
        try:
            parameters = [
                *parameters,
                (written.parameters["sync"], sync.fileno()),
                (written.parameters["status"], status),
            ]
            self.pid, self.pidfd = written.program.begin(written.flags, parameters, cgroup_fd)
        except BaseException:
            os.close(self.status)
            self.sync.close()
            raise
        finally:
            sync.close()
            os.close(status)

    def go(self, leaves_orphans: bool) -> Started:
        """Do the parent's part; return the child once it has executed its command, or waits to be started."""
        message = self.written.message
        try:
            if message["uid_map"]:
                maps = idmap.IdMap.parse(message["uid_map"]), idmap.IdMap.parse(message["gid_map"])
                idmap.write(self.pid, *maps)
            self._send(copied_mounts(self.pid, self.written.sources))
            created = os.read(self.status, 1) == b"c"
            if failed := self.written.program.failure():
                raise failed
        except BaseException:
            os.close(self.status)
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.pidfd)
            raise
        finally:
            self.sync.close()
        if created:
            return Started(self.pid, self.pidfd, leaves_orphans, (self.status,))
        os.close(self.status)
        return Started(self.pid, self.pidfd, leaves_orphans)

    def _send(self, mounts: list[int]) -> None:
        try:
            for fd in mounts or [None]:  # type: ignore[list-item]
                messages.send(self.sync, [b"g"], [] if fd is None else [fd], socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            return  # the child has ended, and the status pipe tells
        finally:
            for fd in mounts:
                os.close(fd)


def copied_mounts(pid: int, sources: "list[tuple[str, bool, bool]]") -> list[int]:
    """Detached copies of mounts, for process `pid`: by the path, with all that is mounted below it or not, and with
    their owners shifted by the user namespace of the process or not. mount_setattr(2): MOUNT_ATTR_IDMAP.
    """
    made: list[int] = []
    user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for path, recursive, shifted in sources:
            deep = c.AT_RECURSIVE if recursive else 0
            made.append(syscalls.open_tree(c.AT_FDCWD, path, c.OPEN_TREE_CLONE | deep))
            if shifted:
                _shift(made[-1], path, deep, user)
    except BaseException:
        for fd in made:
            os.close(fd)
        raise
    finally:
        os.close(user)
    return made


def _shift(mount: int, path: str, deep: int, user: int) -> None:
    try:
        syscalls.mount_setattr(mount, "", c.AT_EMPTY_PATH | deep, attr_set=c.MOUNT_ATTR_IDMAP, userns_fd=user)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EPERM):
            error.add_note(
                f"The owners of {path} cannot be shifted: that takes root on the real machine, and a file system that "
                "can. Without idmap its files belong to whom they belong."
            )
        raise


def _written_for(
    write: "Callable[[Any, tuple[str, ...]], Written]", message: "Any", names: "tuple[str, ...]"
) -> Written:
    """The program for `message`, written now or kept from the last time the same was asked for."""
    if "start" in names:
        return write(message, names)  # its child needs it until it is started
    key = marshal.dumps((write.__name__, message, names))
    written = _written.get(key)
    if written is None:
        if len(_written) >= _KEPT_PROGRAMS:
            del _written[next(iter(_written))]  # the oldest
        written = _written[key] = write(message, names)
    return written


def _most_telling(program: Program, failed: CallFailed) -> CallFailed:
    """Of several execve calls that failed, one that found something (EACCES, say) tells more than a last ENOENT."""
    if failed.call.name == "execve":
        for call, result in program.results():
            if call.name == "execve" and -result not in (errno.ENOENT, errno.ENOTDIR):
                return CallFailed(-result, call)
    return failed


def errnos(message: bytes) -> list[int]:
    """What a created child has written that could not execute its command: an errno for each place it looked at."""
    return [-number for number in struct.unpack(f"={len(message) // 8}q", message)]
