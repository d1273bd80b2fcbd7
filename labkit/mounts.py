"""Mounting inside a root filesystem that nobody vouches for; each operation is data.

A plan is a list of steps such as `("filesystem", "proc", "proc", ...)`: it can be shown (`describe`), sent to another
process, and is written out as the system calls of a `Program` before anything is done.

Every path in a plan is relative to the new root and resolved with openat2(2) RESOLVE_IN_ROOT: a symbolic link that the
image planted leads nowhere but into the image, and never to the place of a mount. What was resolved is then used by its
descriptor alone, so that nothing can be exchanged between the look and the use.

Sources: mount(2), open_tree(2), move_mount(2), fsopen(2), mount_setattr(2); mount_namespaces(7).
"""

import os
import stat
import struct

from labkit import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from labkit.program import Program, Value

    Step = tuple[str, *tuple[object, ...]]  # the name of an operation below, then its arguments: plain values only

_ATTRIBUTES = {
    "ro": c.MOUNT_ATTR_RDONLY,
    "nosuid": c.MOUNT_ATTR_NOSUID,
    "nodev": c.MOUNT_ATTR_NODEV,
    "noexec": c.MOUNT_ATTR_NOEXEC,
    "noatime": c.MOUNT_ATTR_NOATIME,
}
_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
_IN_ROOT = c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS
_BOTH_BY_FD = c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH


def write(program: "Program", root: "Value", plan: "Iterable[Step]") -> None:
    """Add the system calls of `plan`, on the mounted root behind the descriptor `root`, to `program`."""
    for step in plan:
        program.step(describe(step))
        name, *arguments = step
        _OPERATIONS[name](program, root, *arguments)


def describe(step: "Step") -> str:
    """One step as a shell user would say it."""
    name, *arguments = step
    if name == "filesystem":
        fstype, target, attributes, options = arguments
        return f"mount -t {fstype} -o {','.join([*attributes, *options]) or 'defaults'} {fstype} /{target}"  # type: ignore[misc]
    if name == "bind":
        source, target, attributes = arguments
        return f"mount --rbind -o {','.join(attributes) or 'defaults'} {source} /{target}"  # type: ignore[arg-type]
    if name == "device":
        major, minor = _DEVICES[str(arguments[0])]
        return f"mknod /dev/{arguments[0]} c {major} {minor}"
    if name == "symlink":
        return f"ln -s {arguments[0]} /{arguments[1]}"
    if name == "readonly":
        return f"mount --rbind -o ro /{arguments[0]} /{arguments[0]}"
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
    """
    context = program.call("fsopen", fstype, c.FSOPEN_CLOEXEC, returns=f"{fstype}_context")
    for option in options:
        key, equals, value = option.partition("=")
        if equals:
            program.call("fsconfig", context, c.FSCONFIG_SET_STRING, key, value, 0)
        else:
            program.call("fsconfig", context, c.FSCONFIG_SET_FLAG, key, None, 0)
    program.call("fsconfig", context, c.FSCONFIG_CMD_CREATE, None, None, 0)
    mount = program.call("fsmount", context, c.FSMOUNT_CLOEXEC, _attribute_mask(attributes), returns=fstype)
    _attach(program, root, mount, target)


def bind(program: "Program", root: "Value", source: str, target: str, attributes: "Iterable[str]" = ()) -> None:
    """Show the machine's file or folder `source` at `target`, with all that is mounted below it. mount(2): MS_BIND.

    Attributes hold for every mount of the copy, so "ro" means read-only all the way down. What `source` is, a file or a
    folder, is looked at when the plan is written.
    """
    flags = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | c.AT_RECURSIVE
    tree = program.call("open_tree", c.AT_FDCWD, source, flags, returns="tree")
    if mask := _attribute_mask(attributes):
        attr = struct.pack("=4Q", mask, 0, 0, 0)
        program.call("mount_setattr", tree, "", c.AT_EMPTY_PATH | c.AT_RECURSIVE, attr, len(attr))
    _attach(program, root, tree, target, onto_file=not stat.S_ISDIR(os.stat(source).st_mode))


def device(program: "Program", root: "Value", name: str) -> None:
    """Make /dev/`name`, one of null, zero, full, random, urandom, tty.

    In a user namespace mknod(2) is refused, and the machine's own device is bound there instead.
    """
    major, minor = _DEVICES[name]
    if may_make_devices():
        dev = _open(program, root, "dev", os.O_PATH | os.O_DIRECTORY)
        program.call("mknodat", dev, name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        return
    found = os.stat(f"/dev/{name}")
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(major, minor):
        raise OSError(f"/dev/{name} of this machine is not the device {major}:{minor}")
    bind(program, root, f"/dev/{name}", f"dev/{name}")


def symlink(program: "Program", root: "Value", points_to: str, path: str) -> None:
    """Make a symbolic link; what stands there already stays."""
    folder, _, name = path.rpartition("/")
    parent = _open(program, root, folder or ".", os.O_PATH | os.O_DIRECTORY)
    program.call("symlinkat", points_to, parent, name, may_fail=True)


def directory(program: "Program", root: "Value", path: str, mode: int = 0o755) -> None:
    """Make a folder, in one that exists; one that stands there already stays."""
    folder, _, name = path.rpartition("/")
    parent = _open(program, root, folder or ".", os.O_PATH | os.O_DIRECTORY)
    program.call("mkdirat", parent, name, mode, may_fail=True)


def readonly(program: "Program", root: "Value", path: str) -> None:
    """Make a part of /proc or /sys read-only, where this kernel has it.

    Root's user id alone, without any capability, may write to most of /proc/sys: to the program that the kernel starts
    for a crashed process, for one.
    """
    if not os.path.exists(f"/{path}"):
        return
    place, tree = _copy_of(program, root, path)
    attributes = struct.pack("=4Q", c.MOUNT_ATTR_RDONLY, 0, 0, 0)
    program.call("mount_setattr", tree, "", c.AT_EMPTY_PATH | c.AT_RECURSIVE, attributes, len(attributes))
    program.call("move_mount", tree, "", place, "", _BOTH_BY_FD)


def mask(program: "Program", root: "Value", path: str) -> None:
    """Hide a part of /proc or /sys, where this kernel has it: a file under the container's own /dev/null, a folder
    under an empty one."""
    if os.path.isdir(f"/{path}"):
        filesystem(program, root, "tmpfs", path, ("ro", "nosuid", "nodev", "noexec"), ("size=0",))
    elif os.path.exists(f"/{path}"):
        place = _open(program, root, path, os.O_PATH, c.RESOLVE_NO_SYMLINKS)
        _, null = _copy_of(program, root, "dev/null")
        program.call("move_mount", null, "", place, "", _BOTH_BY_FD)


def may_make_devices() -> bool:
    """Whether this process's user namespace is the machine's first, the only one in which mknod(2) makes devices."""
    global _may_make_devices
    if _may_make_devices is None:
        with open("/proc/self/uid_map") as file:
            _may_make_devices = file.read().split() == ["0", "0", "4294967295"]
    return _may_make_devices


_may_make_devices: bool | None = None


def _attach(program: "Program", root: "Value", mount: "Value", target: str, onto_file: bool = False) -> None:
    """Attach a detached mount at `target`, made if it is missing. A link there is refused (ENOTDIR or ELOOP)."""
    folder, _, name = target.rpartition("/")
    parent = _open(program, root, folder, os.O_PATH | os.O_DIRECTORY) if folder else root
    if onto_file:
        program.call("mknodat", parent, name, stat.S_IFREG | 0o644, 0, may_fail=True)
    else:
        program.call("mkdirat", parent, name, 0o755, may_fail=True)
    kind = 0 if onto_file else os.O_DIRECTORY
    place = _open(program, parent, name, os.O_PATH | kind, c.RESOLVE_NO_SYMLINKS)
    program.call("move_mount", mount, "", place, "", _BOTH_BY_FD)


def _copy_of(program: "Program", root: "Value", path: str) -> "tuple[Value, Value]":
    """The place `path`, and a detached copy of what is there."""
    place = _open(program, root, path, os.O_PATH, c.RESOLVE_NO_SYMLINKS)
    flags = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | c.AT_EMPTY_PATH | c.AT_RECURSIVE
    return place, program.call("open_tree", place, "", flags, returns="copy")


def _open(program: "Program", root: "Value", path: str, flags: int, resolve: int = 0) -> "Value":
    """Open `path` as a process whose root is `root` would, but through no magic link of /proc. openat2(2)."""
    how = struct.pack("=3Q", flags | os.O_CLOEXEC, 0, _IN_ROOT | resolve)
    return program.call("openat2", root, path, how, len(how), returns=path.replace("/", "_").replace(".", "root"))


def _attribute_mask(attributes: "Iterable[str]") -> int:
    mask = 0
    for attribute in attributes:
        mask |= _ATTRIBUTES[attribute]
    return mask


_OPERATIONS: "dict[str, Callable[..., None]]" = {
    "filesystem": filesystem,
    "bind": bind,
    "device": device,
    "symlink": symlink,
    "directory": directory,
    "readonly": readonly,
    "mask": mask,
}
