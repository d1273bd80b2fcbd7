"""What /proc says about processes and mounts: the outside view that verdicts are taken from.

Every function reads afresh; a process that is gone raises `ProcessLookupError`. Source: proc(5).
"""

import os
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _Fields(NamedTuple):
        mount_id: int
        parent_id: int
        device: str
        root: str
        mount_point: str
        options: tuple[str, ...]
        propagation: tuple[str, ...]
        filesystem: str
        source: str
        super_options: tuple[str, ...]

else:  # typing is a module that the lab host's zygote does without
    _NAMES = "mount_id parent_id device root mount_point options propagation filesystem source super_options"
    _Fields = namedtuple("_Fields", _NAMES)


class Mount(_Fields):
    """A line of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""

    __slots__ = ()

    @property
    def is_shared(self) -> bool:
        """Whether mounts made under it travel to its peers in other namespaces."""
        return any(field.startswith("shared:") for field in self.propagation)

    @property
    def is_readonly(self) -> bool:
        """Whether writing is refused here, by this mount or by its file system."""
        return "ro" in self.options or "ro" in self.super_options


def mountinfo(pid: int | str = "self") -> list[Mount]:
    """The mounts that process `pid` sees, in the kernel's order: parents before children, lower before upper."""
    return [_mount(line) for line in _read(f"{pid}/mountinfo").splitlines()]


def _mount(line: str) -> Mount:
    # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
    before, after = line.split(" - ", 1)
    mount_id, parent_id, device, root, mount_point, options, *propagation = before.split()
    filesystem, source, super_options = after.split(" ", 2)
    return Mount(
        int(mount_id),
        int(parent_id),
        device,
        _unescape(root),
        _unescape(mount_point),
        tuple(options.split(",")),
        tuple(propagation),
        filesystem,
        _unescape(source),
        tuple(super_options.split(",")),
    )


def _unescape(field: str) -> str:
    # Space, tab, newline and backslash stand as three octal digits, since spaces separate the fields.
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def namespace_inode(pid: int | str, kind: str) -> int:
    """The inode of the namespace of `kind` (as in /proc/PID/ns) that process `pid` is in.

    The inode is the namespace's identity: equal inodes, same namespace. The number is used again once the namespace is
    gone, so it identifies only what is alive.
    """
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino


def threads(pid: int) -> list[int]:
    """The threads of process `pid`; that of its beginning has the number of the process itself."""
    return sorted(map(int, _list(f"{pid}/task", None)))


def children(pid: int, dir_fd: int | None = None) -> list[int]:
    """The children of every thread of `pid`, in the order they were made.

    `dir_fd` is an open /proc, for a process that cannot rely on what is mounted there now.
    """
    found: list[int] = []
    for thread in _list(f"{pid}/task", dir_fd):
        try:
            found += [int(child) for child in _read(f"{pid}/task/{thread}/children", dir_fd).split()]
        except ProcessLookupError:
            if "children" not in _list(f"{pid}/task/{pid}", dir_fd):
                return _children_by_search(pid, dir_fd)  # a kernel built without CONFIG_PROC_CHILDREN
            continue  # the thread ended meanwhile
    return found


def _children_by_search(pid: int, dir_fd: int | None = None) -> list[int]:
    found = []
    for entry in _list(".", dir_fd):
        if entry.isdigit():
            try:
                if int(stat(entry, dir_fd)[3]) == pid:
                    found.append(int(entry))
            except ProcessLookupError:
                continue
    return found


def descendants(pid: int) -> list[int]:
    """The children of `pid`, their children, and so on; each after its parent."""
    found: list[int] = []
    waiting = children(pid)
    while waiting:
        child = waiting.pop(0)
        found.append(child)
        try:
            waiting += children(child)
        except ProcessLookupError:
            continue
    return found


def stat(pid: int | str, dir_fd: int | None = None) -> list[str]:
    """The fields of /proc/PID/stat, from 0: [1] is the name, [2] the state, [3] the parent, [5] the session."""
    text = _read(f"{pid}/stat", dir_fd)
    # The name is in parentheses and may hold spaces and parentheses itself; the last one closes it.
    opened, closed = text.index("("), text.rindex(")")
    return [text[:opened].strip(), text[opened + 1 : closed], *text[closed + 1 :].split()]


def status(pid: int | str) -> dict[str, str]:
    """The lines of /proc/PID/status: `{"Name": "bash", "NSpid": "4242\\t1", "CapEff": "0000...", ...}`."""
    lines = _read(f"{pid}/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def nspid(pid: int | str) -> list[int]:
    """The PIDs of process `pid`, one for each PID namespace it is in, the reader's own first, its innermost last."""
    return [int(number) for number in status(pid)["NSpid"].split()]


def cmdline(pid: int | str) -> list[str]:
    """The arguments process `pid` was started with; empty for a zombie or a kernel thread."""
    return _read(f"{pid}/cmdline").split("\0")[:-1]


def _read(path: str, dir_fd: int | None = None) -> str:
    try:
        fd = os.open(path if dir_fd is not None else f"/proc/{path}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        with open(fd, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"there is no process behind /proc/{path}") from None


def _list(path: str, dir_fd: int | None = None) -> list[str]:
    try:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        fd = os.open(path if dir_fd is not None else f"/proc/{path}", flags, dir_fd=dir_fd)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"there is no process behind /proc/{path}") from None
    try:
        return os.listdir(fd)
    except ProcessLookupError:
        return []
    finally:
        os.close(fd)
