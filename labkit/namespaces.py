"""Namespaces seen from outside: which a process is in, who else is in it, and how to step inside for a moment.

Making them is one system call in the process that wants them (`syscalls.unshare`, or `syscalls.clone3` for its child).
Sources: namespaces(7), /proc/PID/ns in proc(5).
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
_NS_GET_NSTYPE = 0xB703  # which CLONE_NEW* flag made it
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
    return census(kind).get(inode, [])


def census(kind: str) -> dict[int, list[int]]:
    """Who is in which: the namespaces of `kind`, as inodes, with the PIDs in each, as far as the caller may look."""
    _check_kind(kind)
    found: dict[int, list[int]] = {}
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        with suppress(OSError):
            found.setdefault(procfs.namespace_inode(pid, kind), []).append(pid)
    return found


def same(kind: str, *where: int | str | os.PathLike[str]) -> bool:
    """Whether these are one namespace, each said as for `opened`: equal inodes on one machine mean just that."""
    inodes = set()
    for one in where:
        with opened(kind, one) as fd:
            inodes.add(os.fstat(fd).st_ino)
    return len(inodes) == 1


@contextmanager
def opened(kind: str, where: int | str | os.PathLike[str]) -> Iterator[int]:
    """A descriptor of the namespace of `kind` of process `where`, or with the path `where`; closed on leaving.

    A path is a /proc/PID/ns/KIND, or a file on which one was bound so that it outlives its processes. `LabkitError`:
    there is none. The descriptor keeps the namespace alive, and `syscalls.setns` joins it. ioctl_ns(2).
    """
    _check_kind(kind)
    path = f"/proc/{where}/ns/{kind}" if isinstance(where, int) else where
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError, TypeError):
        raise LabkitError(f"there is no {kind} namespace at {where!r}") from None
    try:
        try:
            flag = fcntl.ioctl(fd, _NS_GET_NSTYPE)
        except OSError:
            flag = 0
        if flag != FLAGS[kind]:
            raise LabkitError(f"{where!r} is not a {kind} namespace")
        yield fd
    finally:
        os.close(fd)


def join(kind: str, where: int | str | os.PathLike[str]) -> None:
    """Move the calling thread into the namespace of `kind` that `where` says, as for `opened`. setns(2)."""
    with opened(kind, where) as fd:
        syscalls.setns(fd, FLAGS[kind])


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
    with process.Child(closed=True) as child:
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
