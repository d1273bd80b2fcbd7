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
from contextlib import suppress

from labkit import constants as c
from labkit import procfs, syscalls
from labkit.errors import Unsupported
from labkit.kernel.cgroupfs import DIRECTORY, enable, kill, remove, wait_until_empty, words, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset")  # those that are handed on, where there are any
PREFIX = "labkit-"
LEAF = "host"
HANDED_OVER = ("user.delegate", "trusted.delegate")  # systemd's marks on a group, as extended attributes
MOUNT = "/sys/fs/cgroup"
# `labkit.host.zygote.PROCESS_NAME` and its guard's: by them a group's lab host is known to be alive.
KEEPER_NAME, GUARD_NAME = "labkit-host", "labkit-guard"

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
        if handed_over(folder):
            break  # what is above is systemd's own, which would undo what is changed there
    if not best.controllers:
        if set(words(f"{own}/cgroup.controllers")) & set(CONTROLLERS) and os.access(own, os.W_OK):
            what = "your control group holds processes itself, and so may not hand controllers on to groups below it"
            raise Unsupported(
                what, f"move them into one: {_MOVE_DOWN.format(own)}; or use a virtual machine: ./lab --vm"
            )
        raise Unsupported("no control group with controllers has been delegated to you", _DELEGATE)
    return best


# What is usual in containers, whose processes are all in what looks like the root.
_MOVE_DOWN = (
    "cd {0} && mkdir -p init && for p in $(cat cgroup.procs); do echo $p > init/cgroup.procs; done 2> /dev/null"
)
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


def handed_over(folder: str) -> bool:
    """Whether systemd has handed this group, with all below it, to its owner: `Delegate=yes`. It marks it then."""
    for name in HANDED_OVER:
        with suppress(OSError):
            if os.getxattr(folder, name) == b"1":
                return True
    return False


class HostGroup:
    """The group of one lab host. `make` comes before the namespaces, `mount` after them, `settle` in the zygote."""

    def __init__(self, place: Place) -> None:
        """Make it, and move the calling process in: a new cgroup namespace has the group of its maker as its root."""
        self.name = f"{PREFIX}{os.getpid()}"
        self.folder = f"{place.folder}/{self.name}"
        self.controllers = place.controllers
        # Descriptors from before the namespaces: the kernel asks what the one who opened them was allowed.
        self._home = os.open(f"{place.own}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        self._parent = os.open(place.folder, DIRECTORY)
        enable(self._parent, place.controllers)
        if os.path.isdir(self.folder) and not _alive(self.folder):  # of a keeper that had our PID
            _clear(self._parent, self.name)
        os.mkdir(self.name, dir_fd=self._parent)
        try:
            self._fd = os.open(self.name, DIRECTORY, dir_fd=self._parent)
            os.mkdir(LEAF, dir_fd=self._fd)
            self._leaf = os.open(f"{LEAF}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._fd)
            write("cgroup.procs", "0", self._fd)
        except OSError:
            remove(self._parent, self.name)
            raise

    def mount(self) -> None:
        """Show it at /sys/fs/cgroup of the caller's mount namespace, and move the caller, the keeper, back outside."""
        mount_own_root()
        os.write(self._home, b"0")

    def settle(self) -> None:
        """Move the caller, the zygote, into the leaf, and hand every controller on to the groups beside it."""
        os.write(self._leaf, b"0")
        enable(self._fd, self.controllers)

    def end(self) -> None:
        """Kill every process in it and remove it, with all groups below. Twice, or by two at once, does no harm."""
        with suppress(OSError):
            os.write(self._home, b"0")  # the zygote, where it is the one that is left
        with suppress(OSError):
            _clear(self._parent, self.name)


def mount_own_root() -> None:
    """Mount the caller's cgroup namespace at /sys/fs/cgroup: with the root of that namespace as its root.

    mount(2) would refuse to mount a file system on itself, and what lies there is the same one: EBUSY.
    """
    context = syscalls.fsopen("cgroup2")
    syscalls.fsconfig(context, c.FSCONFIG_CMD_CREATE)
    mount = syscalls.fsmount(context, c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC)
    syscalls.move_mount(mount, "", c.AT_FDCWD, MOUNT, c.MOVE_MOUNT_F_EMPTY_PATH)
    os.close(mount)
    os.close(context)


def make() -> tuple[HostGroup | None, tuple[str, str]]:
    """The lab host's group; or None and what is lacking, with what to do about it, as `Unsupported` has them."""
    try:
        return HostGroup(find()), ("", "")
    except Unsupported as lack:
        return None, (lack.what, lack.mend)
    except OSError as error:
        return None, (f"no control group could be made for the lab host ({error})", "use a virtual machine: ./lab --vm")


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
                    if os.stat(path).st_uid == os.geteuid() and not _alive(path):
                        found.append(path)
        # What is in a lab host's group is its own affair.
        names[:] = [name for name in names if not re.fullmatch(PREFIX + "[0-9]+", name)]
    return found


def remove_left_over() -> list[str]:
    """Kill what is in groups that are `left_over`, and remove them; return their folders."""
    removed = []
    for path in left_over():
        with suppress(OSError):
            parent = os.open(os.path.dirname(path), DIRECTORY)
            try:
                _clear(parent, os.path.basename(path))
                removed.append(path)
            finally:
                os.close(parent)
    return removed


def _alive(path: str) -> bool:
    """Whether the guard, the keeper or the zygote of the lab host's group `path` lives.

    The guard's PID is in the group's name, but for other eyes: a container's lab host has PIDs of its own. The zygote
    in the leaf is known by its parent, the keeper; its children have the same name, and may have outlived both.
    """
    if _is_ours(os.path.basename(path).removeprefix(PREFIX)) and not path.endswith(f"{PREFIX}{os.getpid()}"):
        return True
    for pid in words(f"{path}/{LEAF}/cgroup.procs"):
        with suppress(ProcessLookupError):
            if _is_ours(pid) and _is_ours(procfs.stat(pid)[3]):
                return True
    return False


def _is_ours(pid: str) -> bool:
    try:
        stat = procfs.stat(pid)
    except (OSError, ProcessLookupError):
        return False
    return stat[1] in (KEEPER_NAME, GUARD_NAME) and stat[2] not in "ZX"  # one that nobody has waited for yet is over


def _clear(parent_fd: int, name: str, timeout: float = 5.0) -> None:
    """Kill every process below the group `name` in the directory `parent_fd`, and remove it with all groups below."""
    fd = os.open(name, DIRECTORY, dir_fd=parent_fd)
    try:
        kill(fd)
        wait_until_empty(fd, timeout)
    finally:
        os.close(fd)
    remove(parent_fd, name)
