"""Namespaces seen from outside: which a process is in, who else is in it, and how to step inside for a moment.

Making them is one system call in the process that wants them (`syscalls.unshare`, or `syscalls.clone3` for its child).
Sources: namespaces(7), /proc/PID/ns in proc(5).
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

from labkit import constants as c
from labkit import process, procfs, syscalls
from labkit.errors import LabkitError

P = ParamSpec("P")
T = TypeVar("T")

#: Every kind, by its name in /proc/PID/ns, with the flag that makes a new one. User comes first: it owns the others,
#: so it is the first to be joined.
FLAGS = {
    "user": c.CLONE_NEWUSER,
    "mnt": c.CLONE_NEWNS,
    "uts": c.CLONE_NEWUTS,
    "ipc": c.CLONE_NEWIPC,
    "net": c.CLONE_NEWNET,
    "pid": c.CLONE_NEWPID,
    "cgroup": c.CLONE_NEWCGROUP,
    "time": c.CLONE_NEWTIME,
}
KINDS = ("mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time")


def inode(pid: int | str, kind: str) -> int:
    """The identity of the namespace of `kind` that process `pid` is in. `LabkitError`: there is no such kind."""
    _check_kind(kind)
    return procfs.namespace_inode(pid, kind)


def label(pid: int | str, kind: str) -> str:
    """The same as the kernel writes it: `uts:[4026531838]`."""
    return f"{kind}:[{inode(pid, kind)}]"


def of(pid: int | str) -> dict[str, int]:
    """Every namespace of process `pid`, as inodes by kind; a kind this kernel lacks is left out."""
    found = {}
    for kind in KINDS:
        with suppress(FileNotFoundError):
            found[kind] = procfs.namespace_inode(pid, kind)
    if not found:
        raise ProcessLookupError(f"there is no process {pid}")
    return found


def members(kind: str, inode: int) -> list[int]:
    """The PIDs of the processes in that namespace, as far as the caller may look into processes; ascending."""
    _check_kind(kind)
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                if procfs.namespace_inode(entry, kind) == inode:
                    found.append(int(entry))
    return sorted(found)


def enter(pid: int, kinds: tuple[str, ...]) -> None:
    """Move the calling thread into namespaces of process `pid`; for a child, see `inside`. setns(2) with a pidfd."""
    flags = 0
    for kind in kinds:
        _check_kind(kind)
        # Joining the user namespace one is in already is an error (EINVAL), and there is nothing to do.
        if procfs.namespace_inode(pid, kind) != procfs.namespace_inode("self", kind):
            flags |= FLAGS[kind]
    if flags:
        pidfd = syscalls.pidfd_open(pid)
        try:
            syscalls.setns(pidfd, flags)
        finally:
            os.close(pidfd)


def inside(pid: int, kinds: tuple[str, ...], fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `fn` in a child that has joined those namespaces of process `pid`, and return its value.

    For a PID namespace the call is made in a child of that child, since joining one takes effect for children only.
    """
    with process.Child() as child:
        child.call(enter, pid, kinds)
        if "pid" in kinds:
            return child.call(_in_fork, fn, *args, **kwargs)
        return child.call(fn, *args, **kwargs)


def _in_fork(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    import cloudpickle

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            payload = cloudpickle.dumps((True, fn(*args, **kwargs)))
        except BaseException as error:
            payload = cloudpickle.dumps((False, error))
        with os.fdopen(writer, "wb") as file:
            file.write(payload)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        payload = file.read()
    os.waitpid(pid, 0)
    if not payload:
        raise LabkitError("the child in the other PID namespace ended before it could answer")
    returned, value = cloudpickle.loads(payload)
    if not returned:
        raise value
    return value  # type: ignore[no-any-return]


def _check_kind(kind: str) -> None:
    if kind not in FLAGS:
        raise LabkitError(f"there is no kind of namespace called {kind!r}; there are {', '.join(KINDS)}")
