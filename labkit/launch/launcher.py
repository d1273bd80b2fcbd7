"""Starting a container's processes, in the zygote. `labkit.launch.steps` has what each of them does.

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
import os
import stat
import struct
from contextlib import suppress

from labkit import constants as c
from labkit import idmap, syscalls
from labkit.launch import steps
from labkit.launch.joiner import NamespaceJoiner
from labkit.launch.parent_sync import ParentSync
from labkit.launch.pending import Started
from labkit.launch.spec import ContainerSpec, JoinSpec
from labkit.launch.steps import InitProgram
from labkit.program import CallFailed, Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from labkit.kernel.record import Record
    from labkit.launch.pending import Networks, Starting

    S = TypeVar("S", bound=Record)

_KEPT_PROGRAMS = 64
_written: "dict[tuple[Record, tuple[str, ...]], InitProgram]" = {}


def start(spec: ContainerSpec, fds: "dict[str, int]", networks: "Networks | None" = None) -> "Starting":
    """Start the first process of a new container; return it.

    `fds` are descriptors: "stdin", "stdout", "stderr"; "console", a socket for the terminal; "cgroup_fd", the folder of
    its control group; "net", "ipc", "uts", "pid", "cgroup": namespaces to join; "start": a pipe, and then the process
    waits on it before it executes the command. Otherwise this returns when execve(2) has succeeded. `CallFailed` says
    what did not. A network namespace that `networks` has in stock is taken where a new one is asked for.
    """
    _give_streams(spec.process.uid, spec.uid_map, fds)
    network = None
    if not {"net"} & {*fds, *spec.shared} and spec.network != "host" and not spec.uid_map and networks:
        network = networks.take()
    try:
        if network is not None:
            fds = {**fds, "net": network}
        # PID 1 of a PID namespace takes all of its processes along, so nothing of its session can be left.
        alone = "pid" not in (*fds, *spec.shared)
        return (yield from _launch(steps.first_process, spec, fds, leaves_orphans=not alone))
    finally:
        if network is not None:
            os.close(network)


def join(spec: JoinSpec, fds: "dict[str, int]", networks: "Networks | None" = None) -> "Starting":
    """Start a further process in a running container; return it. As `start`, with the container's pidfd "container"."""
    _give_streams(spec.process.uid, spec.uid_map, fds)
    return (yield from _launch(steps.further_process, spec, {**fds, "pid": fds["container"]}, leaves_orphans=False))


def _give_streams(uid: int, uid_map: str, fds: "dict[str, int]") -> None:
    """Have the user own the pipes that the process reads and writes, or it could not open /dev/stdout. runc does, too.

    What else it was given, such as a file, belongs to whom it belongs.
    """
    outside = idmap.IdMap.parse(uid_map).outside(uid) if uid_map else uid
    if not outside:
        return
    for name, fd in fds.items():
        if name in ("stdin", "stdout", "stderr") and stat.S_ISFIFO(os.fstat(fd).st_mode):
            with suppress(PermissionError):  # a pipe of somebody who is nobody on the lab host
                os.fchown(fd, outside, -1)


def _launch(
    write: "Callable[[S, tuple[str, ...]], InitProgram]", spec: "S", given: "dict[str, int]", leaves_orphans: bool
) -> "Starting":
    written = _written_for(write, spec, tuple(given))
    # These are the zygote's own for as long as it lives, so no descriptor is overwritten when its copy goes there.
    assert min(given.values(), default=steps.START_FD + 1) > steps.START_FD
    parameters = [(written.parameters[name], fd) for name, fd in given.items()]
    group = given.get("cgroup_fd")
    joiner = None
    if written.born_in:
        joiner = NamespaceJoiner(written.program, [(kind, given[kind]) for kind in written.born_in])
    written.busy = True
    try:
        if written.waits:
            return (yield from ParentSync(written).go(parameters, group, joiner, leaves_orphans))
        if joiner:
            pid, pidfd = yield from joiner.clone(written.flags, parameters, group, asleep=True)
        else:
            try:
                pid, pidfd = written.program.clone(written.flags, parameters, group, asleep=True)
            finally:
                _be_dumpable_again()
        written.program.check(pid, pidfd)
        return Started(pid, pidfd, leaves_orphans)
    except CallFailed as failed:
        raise _most_telling(written.program, failed) from None
    finally:
        written.busy = False


def _be_dumpable_again() -> None:
    """A child that shares this process's memory until its execve has closed that to others; undo it.

    Where a lab host's root is another user than its caller, the kernel has it closed from the beginning: it stays so.
    """
    if _was_dumpable:
        syscalls.prctl(c.PR_SET_DUMPABLE, 1)


_was_dumpable = syscalls.prctl(c.PR_GET_DUMPABLE) == 1  # of the zygote, when it imports this for its first container


def _written_for(
    write: "Callable[[S, tuple[str, ...]], InitProgram]", spec: "S", names: "tuple[str, ...]"
) -> InitProgram:
    """The program for `spec`, written now or kept from the last time the same was asked for.

    One that is under way has its results in its memory: then another is written.
    """
    if "start" in names:
        return write(spec, names)  # its child needs it until it is started
    key = (spec, names)
    written = _written.get(key)
    if written is None or written.busy:
        if len(_written) >= _KEPT_PROGRAMS:
            del _written[next(iter(_written))]  # the oldest
        written = _written[key] = write(spec, names)
    return written


def _most_telling(program: Program, failed: CallFailed) -> CallFailed:
    """Of several execve calls that failed, one that found something (EACCES, say) tells more than a last ENOENT.

    Where a mount point is missing, why it could not be made tells more (ENOSPC, EROFS).
    """
    if failed.errno == errno.ENOENT and failed.call.name == "openat2":
        before, made = program.results()[program.calls.index(failed.call) - 1]
        if before.name in ("mkdirat", "mknodat") and made < 0:
            return CallFailed(-made, before)
    if failed.call.name == "execve":
        for call, result in program.results():
            if call.name == "execve" and -result not in (errno.ENOENT, errno.ENOTDIR):
                return CallFailed(-result, call)
    return failed


def errnos(message: bytes) -> list[int]:
    """What a created child has written that could not execute its command: an errno for each place it looked at."""
    return [-number for number in struct.unpack(f"={len(message) // 8}q", message)]
