"""Mounting inside a root filesystem that nobody vouches for; each operation is data.

A plan is a list of steps such as `("filesystem", "proc", "proc", ...)`: it can be shown (`describe`), sent to another
process, and is written out as the system calls of a `Program` before anything is done.

Every path in a plan is relative to the new root, and led no further: `labkit.mounts.in_root`.

Sources: mount(2), fsopen(2), mount_setattr(2); mount_namespaces(7).
"""

import os
import stat
import struct

from labkit import constants as c
from labkit.mounts import fsmount
from labkit.mounts.bind import attach_source, open_source
from labkit.mounts.in_root import BOTH_BY_FD, attach, attribute_mask, copy_of, folder_in, open_in

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from labkit.program import Program, Value

    Sources = dict[int, Value]  # by the place in the plan
    Step = tuple[str, *tuple[object, ...]]  # the name of an operation below, then its arguments: plain values only

_EMPTY = "empty_folder"
_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}


def write(program: "Program", root: "Value", plan: "Iterable[Step]", sources: "Sources | None" = None) -> None:
    """Add the system calls of `plan`, on the mounted root behind the descriptor `root`, to `program`.

    `sources` are the bind mounts' sources where they were opened before: see `open_sources`.
    """
    for number, step in enumerate(plan):
        program.step(describe(step))
        name, *arguments = step
        if name == "bind":
            source, target, attributes = bind_of(step)
            tree = sources[number] if sources else open_source(program, source, attributes)
            attach_source(program, root, tree, source, target, attributes)
        else:
            _OPERATIONS[name](program, root, *arguments)


def open_sources(program: "Program", plan: "Iterable[Step]", copies: "Iterator[Value] | None" = None) -> "Sources":
    """Add the calls that copy the mounts to be bound, by their place in the plan, before anything else is done.

    A copy made while mounts still propagate belongs to its original's peer group, and can stay in it ("shared") or go
    on receiving ("slave"). `copies` were made elsewhere, in the plan's order.
    """
    sources = {}
    for number, step in enumerate(plan):
        if step[0] == "bind":
            program.step(describe(step))
            source, _, attributes = bind_of(step)
            sources[number] = next(copies) if copies else open_source(program, source, attributes)
    return sources


def bind_of(step: "Step") -> "tuple[str, str, tuple[str, ...]]":
    """A bind step's source, target and attributes: see `labkit.mounts.bind`."""
    _, *bind = step
    return tuple(bind)  # type: ignore[return-value]


def describe(step: "Step") -> str:
    """One step as a shell user would say it."""
    name, *arguments = step
    if name == "filesystem":
        fstype, target, attributes, options = arguments
        return f"mount -t {fstype} -o {','.join([*attributes, *options]) or 'defaults'} {fstype} /{target}"  # type: ignore[misc]
    if name == "bind":
        source, target, attributes = bind_of(step)
        kind = "bind" if "bind" in attributes else "rbind"
        return f"mount --{kind} -o {','.join(attributes) or 'defaults'} {source} /{target}"
    if name == "sysctls":
        return "sysctl -w " + " ".join(f"{key}={value}" for key, value in arguments[0])  # type: ignore[attr-defined]
    if name == "device":
        major, minor = _DEVICES[str(arguments[0])]
        return f"mknod /dev/{arguments[0]} c {major} {minor}"
    if name == "symlink":
        return f"ln -s {arguments[0]} /{arguments[1]}"
    if name == "readonly":
        return f"mount --rbind -o ro /{arguments[0]} /{arguments[0]}"
    if name == "nodev":
        return f"mount -o remount,bind,nodev /{arguments[0]}"
    return f"{'mkdir' if name == 'directory' else name} /{arguments[0]}"


def filesystem(
    program: "Program",
    root: "Value",
    fstype: str,
    target: str,
    attributes: "Iterable[str]",
    options: "Iterable[str]" = (),
) -> None:
    """Mount a new `fstype` on `target`, with attributes ("nosuid", ...) and the file system's own options ("size=64k").

    It is made detached and then attached, so a folder of the image that looks like a procfs never stands in for one.
    Device nodes in it cannot be opened, unless "dev" is among the attributes.
    """
    attributes = tuple(attributes)
    mask = attribute_mask(attribute for attribute in attributes if attribute != "dev")
    if "dev" not in attributes:
        mask |= c.MOUNT_ATTR_NODEV
    mount = fsmount.filesystem(program, fstype, options, mask)
    attach(program, root, mount, target)
    program.call("close", mount)


def sysctls(program: "Program", root: "Value", settings: "Iterable[tuple[str, str]]") -> None:
    """Set kernel parameters, by their names as sysctl(8) has them, through a procfs that nobody else sees."""
    proc = fsmount.filesystem(program, "proc")
    for name, value in settings:
        program.step(f"sysctl -w {name}={value}")
        path = name if "/" in name else name.replace(".", "/")
        how = struct.pack("=3Q", os.O_WRONLY | os.O_CLOEXEC, 0, c.RESOLVE_BENEATH | c.RESOLVE_NO_SYMLINKS)
        file = program.call("openat2", proc, f"sys/{path}", how, len(how), returns="sysctl")
        program.call("write", file, value, len(os.fsencode(value)))


def device(program: "Program", root: "Value", name: str) -> None:
    """Make /dev/`name`, one of null, zero, full, random, urandom, tty.

    Each is a mount of its own, over itself: it stays a device when /dev becomes a place where nobody can make more of
    them. In a user namespace mknod(2) is refused, and the machine's own device is bound there instead.
    """
    major, minor = _DEVICES[name]
    if may_make_devices():
        dev = folder_in(program, root, "dev")
        program.call("mknodat", dev, name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        own = program.call("open_tree", dev, name, c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC, returns=name)
        program.call("move_mount", own, "", dev, name, c.MOVE_MOUNT_F_EMPTY_PATH)
        program.call("close", own)
        return
    found = os.stat(f"/dev/{name}")
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(major, minor):
        raise OSError(f"/dev/{name} of this machine is not the device {major}:{minor}")
    write(program, root, [bound_device(name)])


def bound_device(name: str) -> "Step":
    """The bind mount that stands for a device where none can be made."""
    return ("bind", f"/dev/{name}", f"dev/{name}", ("dev",))


def symlink(program: "Program", root: "Value", points_to: str, path: str) -> None:
    """Make a symbolic link; what stands there already stays."""
    folder, _, name = path.rpartition("/")
    parent = folder_in(program, root, folder)
    program.call("symlinkat", points_to, parent, name, may_fail=True)


def directory(program: "Program", root: "Value", path: str, mode: int = 0o755) -> None:
    """Make a folder, in one that exists; one that stands there already stays."""
    folder, _, name = path.rpartition("/")
    parent = folder_in(program, root, folder)
    program.call("mkdirat", parent, name, mode, may_fail=True)


def nodev(program: "Program", root: "Value", path: str) -> None:
    """Have no device node open that is made in the mount at `path` from here on."""
    folder = folder_in(program, root, path)
    attributes = struct.pack("=4Q", c.MOUNT_ATTR_NODEV, 0, 0, 0)
    program.call("mount_setattr", folder, "", c.AT_EMPTY_PATH, attributes, len(attributes))


def readonly(program: "Program", root: "Value", path: str) -> None:
    """Make a part of /proc or /sys read-only, where this kernel has it.

    Root's user id alone, without any capability, may write to most of /proc/sys: to the program that the kernel starts
    for a crashed process, for one.
    """
    if not os.path.exists(f"/{path}"):
        return
    place, tree = copy_of(program, root, path)
    attributes = struct.pack("=4Q", c.MOUNT_ATTR_RDONLY, 0, 0, 0)
    program.call("mount_setattr", tree, "", c.AT_EMPTY_PATH | c.AT_RECURSIVE, attributes, len(attributes))
    program.call("move_mount", tree, "", place, "", BOTH_BY_FD)
    program.call("close", place)
    program.call("close", tree)


def mask(program: "Program", root: "Value", path: str) -> None:
    """Hide a part of /proc or /sys, where this kernel has it: a file under the container's own /dev/null, a folder
    under an empty one, the same for all of them: a file system of its own for each costs memory and time."""
    if os.path.isdir(f"/{path}"):
        made = next((call.result for call in program.calls if call.result.name == _EMPTY), None)
        if made is None:
            nothing = attribute_mask(("ro", "nosuid", "nodev", "noexec"))
            empty = fsmount.filesystem(program, "tmpfs", ("size=0",), nothing, _EMPTY)
        else:
            flags = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | c.AT_EMPTY_PATH
            empty = program.call("open_tree", made, "", flags, returns="copy")
        attach(program, root, empty, path)
    elif os.path.exists(f"/{path}"):
        place = open_in(program, root, path, os.O_PATH, c.RESOLVE_NO_SYMLINKS)
        original, null = copy_of(program, root, "dev/null")
        program.call("move_mount", null, "", place, "", BOTH_BY_FD)
        for done in (place, original, null):
            program.call("close", done)


def may_make_devices() -> bool:
    """Whether this process's user namespace is the machine's first, the only one in which mknod(2) makes devices."""
    global _may_make_devices
    if _may_make_devices is None:
        with open("/proc/self/uid_map") as file:
            _may_make_devices = file.read().split() == ["0", "0", "4294967295"]
    return _may_make_devices


_may_make_devices: bool | None = None


_OPERATIONS: "dict[str, Callable[..., None]]" = {
    "filesystem": filesystem,
    "sysctls": sysctls,
    "device": device,
    "symlink": symlink,
    "directory": directory,
    "nodev": nodev,
    "readonly": readonly,
    "mask": mask,
}
