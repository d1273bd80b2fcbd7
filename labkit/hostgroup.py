"""The lab host's control group: found a place for, made, made the root of a cgroup namespace, and removed.

::

    /sys/fs/cgroup ── ... ── a group that may be written to: the caller's own, or one above it
                             └── labkit-4711       the root of the lab host's cgroup namespace
                                 ├── host          the zygote, and what it forks
                                 └── ...           what labs, containers and learners make

On the lab host a fresh cgroup2 file system at /sys/fs/cgroup shows `labkit-4711` as its root, and nothing above it.
Where no place has controllers to hand on, none of this happens. cgroups(7), cgroup-v2.rst: "Delegation", "Namespace".
"""

import os
import re
import select
import time
from contextlib import suppress

from labkit import constants as c
from labkit import procfs, syscalls
from labkit.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset")  # those that are handed on, where there are any
PREFIX = "labkit-"
LEAF = "host"
MOUNT = "/sys/fs/cgroup"
KEEPER_NAME = "labkit-host"  # `labkit.zygote.PROCESS_NAME`: by it a group's lab host is known to be alive
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# In the zygote, and so in its children:
on_lab_host = False
current: "HostGroup | None" = None
lack = ("", "")  # where there is none: why, and what to do, as `Unsupported` has them


class Place:
    """A group below which the lab host's can be made, and the controllers to be had there."""

    __slots__ = ("controllers", "folder", "own")

    def __init__(self, folder: str, controllers: tuple[str, ...], own: str) -> None:
        self.folder, self.controllers = folder, controllers
        self.own = own  # the group that the caller is in


def find() -> Place:
    """The best place for this process to make a group with controllers below; nothing is changed.

    That is its own group or one above it: a process may be moved only by who may write to `cgroup.procs` of a group
    that is above both where it comes from and where it goes to. `Unsupported` says why there is none.
    """
    own, top = own_group()
    if not set(words(f"{top}/cgroup.controllers")) & set(CONTROLLERS):
        raise Unsupported(
            "the controllers of this machine's cgroup v2 are not to be had (cgroup v1 may hold them)",
            "use a virtual machine: ./lab --vm",
        )
    if not os.access(f"{own}/cgroup.procs", os.W_OK):
        raise Unsupported("your control group may not be written to by you", _DELEGATE)
    best, best_rank = Place(own, (), own), (0, 0)
    for folder in _upwards(own, top):
        controllers = _to_hand_on(folder)
        rank = (len(controllers), len(set(controllers) & set(words(f"{folder}/cgroup.subtree_control"))))
        if rank > best_rank:
            best, best_rank = Place(folder, controllers, own), rank
    if not best.controllers:
        if set(words(f"{own}/cgroup.controllers")) & set(CONTROLLERS) and os.access(own, os.W_OK):
            what = "your control group holds processes itself, and so may not hand controllers on to groups below it"
            raise Unsupported(what, "start ./lab in a group below it, or use a virtual machine: ./lab --vm")
        raise Unsupported("no control group with controllers has been delegated to you", _DELEGATE)
    return best


_DELEGATE = "start with: systemd-run --user --scope -p Delegate=yes ./lab; or use a virtual machine: ./lab --vm"


def own_group() -> tuple[str, str]:
    """The folders of the caller's own v2 group and of the topmost that it can see. `Unsupported`: it sees none."""
    with open("/proc/self/cgroup") as file:
        path = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), "/")
    for mount in reversed(procfs.mountinfo()):
        # A mount may show a part of the tree only, and the caller's group may lie outside of what it may see ("/..").
        root = "" if mount.root == "/" else mount.root
        if mount.filesystem == "cgroup2" and "/.." not in path and f"{path}/".startswith(f"{root}/"):
            return (mount.mount_point + path[len(root) :]).rstrip("/"), mount.mount_point
    raise Unsupported("no cgroup v2 file system is mounted here", "use a virtual machine: ./lab --vm")


def _upwards(folder: str, top: str) -> "Iterator[str]":
    yield folder
    while folder != top:
        folder = os.path.dirname(folder)
        yield folder


def _to_hand_on(folder: str) -> tuple[str, ...]:
    """The controllers that a group made below `folder` would have, or could be given by the caller."""
    files = ("", "/cgroup.procs", "/cgroup.subtree_control")
    if not all(os.access(folder + name, os.W_OK) for name in files):
        return ()
    kind = words(f"{folder}/cgroup.type")  # the root of the whole tree has none
    if kind not in ((), ("domain",)):
        return ()
    # No inner processes: but for that root, a group that holds processes cannot hand on a controller.
    fixed = kind and words(f"{folder}/cgroup.procs")
    found = words(f"{folder}/cgroup.subtree_control" if fixed else f"{folder}/cgroup.controllers")
    return tuple(name for name in CONTROLLERS if name in found)


class HostGroup:
    """The group of one lab host. `make` comes before the namespaces, `mount` after them, `settle` in the zygote."""

    def __init__(self, place: Place) -> None:
        """Make it, and move the calling process in: a new cgroup namespace has the group of its maker as its root."""
        self.name = f"{PREFIX}{os.getpid()}"
        self.folder = f"{place.folder}/{self.name}"
        self.controllers = place.controllers
        # Descriptors from before the namespaces: the kernel asks what the one who opened them was allowed.
        self._home = os.open(f"{place.own}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        self._parent = os.open(place.folder, _DIRECTORY)
        enable(self._parent, place.controllers)
        with suppress(FileNotFoundError):
            remove(self._parent, self.name)  # of a lab host whose keeper had our PID
        os.mkdir(self.name, dir_fd=self._parent)
        try:
            self._fd = os.open(self.name, _DIRECTORY, dir_fd=self._parent)
            os.mkdir(LEAF, dir_fd=self._fd)
            self._leaf = os.open(f"{LEAF}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._fd)
            write("cgroup.procs", "0", self._fd)
        except OSError:
            remove(self._parent, self.name)
            raise

    def mount(self) -> None:
        """Show it at /sys/fs/cgroup of the caller's mount namespace, and move the caller, the keeper, back outside."""
        # mount(2) refuses to mount a file system on itself, and the machine's groups are the same file system.
        context = syscalls.fsopen("cgroup2")
        syscalls.fsconfig(context, c.FSCONFIG_CMD_CREATE)
        mount = syscalls.fsmount(context, c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC)
        syscalls.move_mount(mount, "", c.AT_FDCWD, MOUNT, c.MOVE_MOUNT_F_EMPTY_PATH)
        os.close(mount)
        os.close(context)
        os.write(self._home, b"0")

    def settle(self) -> None:
        """Move the caller, the zygote, into the leaf, and hand every controller on to the groups beside it."""
        os.write(self._leaf, b"0")
        enable(self._fd, self.controllers)

    def end(self, timeout: float = 5.0) -> None:
        """Kill every process in it and remove it, with all groups below. Twice, or by two at once, does no harm."""
        with suppress(OSError):
            os.write(self._home, b"0")  # the zygote, where it is the one that is left
        with suppress(OSError):
            kill(self._fd)
            wait_until_empty(self._fd, timeout)
        with suppress(OSError):
            remove(self._parent, self.name)


def make() -> tuple[HostGroup | None, tuple[str, str]]:
    """The lab host's group; or None and what is lacking, with what to do about it, as `Unsupported` has them."""
    try:
        return HostGroup(find()), ("", "")
    except Unsupported as lack:
        return None, (lack.what, lack.mend)
    except OSError as error:
        return None, (f"no control group could be made for the lab host ({error})", "use a virtual machine: ./lab --vm")


# What the keeper, `labkit.cgroups` and a reset need


def words(path: str, dir_fd: int | None = None) -> tuple[str, ...]:
    """What a file of a group lists; empty where there is no such file, or none that may be read."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)) as file:
            return tuple(file.read().split())
    except OSError:
        return ()


def write(path: str, text: str, dir_fd: int | None = None) -> None:
    """Write `text` to a group's file in one write(2), which is how the kernel wants it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def enable(fd: int, controllers: tuple[str, ...]) -> None:
    """Hand `controllers` on to the groups below the one whose directory is `fd`; those that cannot be stay off."""
    enabled = words("cgroup.subtree_control", fd)
    for name in controllers:
        if name not in enabled:
            with suppress(OSError):
                write("cgroup.subtree_control", f"+{name}", fd)


def below(fd: int) -> list[str]:
    """The paths of all groups below the one whose directory is `fd`, each after the one it lies in."""
    found = [""]
    for path in found:
        with suppress(FileNotFoundError):
            folder = os.open(path or ".", _DIRECTORY, dir_fd=fd)
            try:
                with os.scandir(folder) as entries:
                    found += [
                        os.path.join(path, entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)
                    ]
            finally:
                os.close(folder)
    return found[1:]


def kill(fd: int) -> None:
    """Kill every process below the group whose directory is `fd`, those that fork and those that are frozen included.

    Not by its own `cgroup.kill`: at the root of a cgroup namespace that file is out of bounds. Before Linux 5.14 there
    is none.
    """
    for path in below(fd):
        try:
            write(f"{path}/cgroup.kill", "1", fd)
        except FileNotFoundError:
            for pid in words(f"{path}/cgroup.procs", fd):
                with suppress(ProcessLookupError):
                    os.kill(int(pid), 9)


def wait_until_empty(fd: int, timeout: float) -> bool:
    """Wait until no process is in or below the group whose directory is `fd`; False after `timeout` seconds."""
    return wait_for_event(fd, "populated 0", timeout)


def wait_for_event(fd: int, line: str, timeout: float) -> bool:
    """Wait until `cgroup.events` of the group whose directory is `fd` has `line`; False after `timeout` seconds."""
    with open(os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=fd)) as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)  # what a change gives; to have read the file is what it is measured from
        deadline = time.monotonic() + timeout
        while line not in events.read().splitlines():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
            events.seek(0)
    return True


def remove(parent_fd: int, name: str) -> None:
    """Remove the group `name` in the directory `parent_fd`, and all below it. EBUSY: a process is in one of them."""
    fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        for path in reversed(below(fd)):
            with suppress(FileNotFoundError):
                os.rmdir(path, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent_fd)


def left_over() -> list[str]:
    """The folders of this user's groups whose lab host is gone: keeper and zygote were both killed, say."""
    try:
        _, top = own_group()
    except (Unsupported, OSError):
        return []
    found = []
    for folder, names, _ in os.walk(top):
        for name in names:
            if re.fullmatch(PREFIX + "[0-9]+", name):
                path = os.path.join(folder, name)
                with suppress(FileNotFoundError):
                    if os.stat(path).st_uid == os.geteuid() and not _alive(path, name):
                        found.append(path)
        # What is in a lab host's group is its own affair.
        names[:] = [name for name in names if not re.fullmatch(PREFIX + "[0-9]+", name)]
    return found


def _alive(path: str, name: str) -> bool:
    for pid in (name.removeprefix(PREFIX), *words(f"{path}/{LEAF}/cgroup.procs")):
        if words(f"/proc/{pid}/comm") == (KEEPER_NAME,):
            return True
    return False


def remove_left_over(timeout: float = 5.0) -> list[str]:
    """Kill what is in groups that are `left_over`, and remove them; return their folders."""
    removed = []
    for path in left_over():
        with suppress(OSError):
            parent = os.open(os.path.dirname(path), _DIRECTORY)
            fd = os.open(path, _DIRECTORY)
            try:
                kill(fd)
                wait_until_empty(fd, timeout)
                remove(parent, os.path.basename(path))
                removed.append(path)
            finally:
                os.close(fd)
                os.close(parent)
    return removed
