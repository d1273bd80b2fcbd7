"""Places in a root filesystem that nobody vouches for: found once, then used by their descriptors.

A path is relative to the root and resolved with openat2(2) RESOLVE_IN_ROOT: a symbolic link that the image planted
leads nowhere but into the image, and never to the place of a mount. What was resolved is then used by its descriptor
alone, so that nothing can be exchanged between the look and the use.

Sources: openat2(2), open_tree(2), move_mount(2).
"""

import os
import stat
import struct

from labkit import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from labkit.program import Program, Value

#: What a mount can be told besides its file system's own options: mount_setattr(2), OCI config.md ("Linux mount
#: options"). With an "r" before it, an attribute of a bind mount holds for all that is mounted below, too.
ATTRIBUTES = {
    "ro": c.MOUNT_ATTR_RDONLY,
    "nosuid": c.MOUNT_ATTR_NOSUID,
    "nodev": c.MOUNT_ATTR_NODEV,
    "noexec": c.MOUNT_ATTR_NOEXEC,
    "noatime": c.MOUNT_ATTR_NOATIME,
    "strictatime": c.MOUNT_ATTR_STRICTATIME,
    "nodiratime": c.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": c.MOUNT_ATTR_NOSYMFOLLOW,
}
_IN_ROOT = c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS
_THE_KERNELS = ("proc", "sys")  # in which nobody makes folders
BOTH_BY_FD = c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH


def attach(
    program: "Program", root: "Value", mount: "Value", target: str, onto_file: bool = False, over_link: bool = False
) -> None:
    """Attach a detached mount at `target`, made with all folders above it where they are missing.

    A link at `target` is refused (ENOTDIR or ELOOP); or, for a file, covered itself with `over_link`, wherever it
    points to.
    """
    folder, _, name = target.strip("/").rpartition("/")
    parent = _made(program, root, folder)
    if onto_file:
        program.call("mknodat", parent, name, stat.S_IFREG | 0o644, 0, may_fail=True)
    else:
        program.call("mkdirat", parent, name, 0o755, may_fail=True)
    kind = os.O_NOFOLLOW if over_link else 0 if onto_file else os.O_DIRECTORY
    place = open_in(program, parent, name, os.O_PATH | kind, c.RESOLVE_NO_SYMLINKS)
    program.call("move_mount", mount, "", place, "", BOTH_BY_FD)
    program.call("close", place)
    _cover(program, root, target.strip("/"))


def _made(program: "Program", root: "Value", folder: str) -> "Value":
    """The folder `folder`, made with those above it where they are missing."""
    if folder and folder != "dev" and folder.partition("/")[0] not in _THE_KERNELS:
        above, _, name = folder.rpartition("/")
        program.call("mkdirat", _made(program, root, above), name, 0o755, may_fail=True)
    return folder_in(program, root, folder)


def folder_in(program: "Program", root: "Value", path: str) -> "Value":
    """The folder `path`; "" is the root itself. One that was opened before is used again, until it is covered.

    A container's process may have few descriptors (a limit of 64 is enough), and most of a plan lies in /dev.
    """
    if not path:
        return root
    known = program.folders.get((root, path))
    if known is None:
        known = program.folders[root, path] = open_in(program, root, path, os.O_PATH | os.O_DIRECTORY)
    return known


def _cover(program: "Program", root: "Value", path: str) -> None:
    """Something is mounted at `path`: folders there and below are others from now on."""
    for known in [(top, folder) for top, folder in program.folders if top is root]:
        if f"{known[1]}/".startswith(f"{path}/"):
            del program.folders[known]


def copy_of(program: "Program", root: "Value", path: str) -> "tuple[Value, Value]":
    """The place `path`, and a detached copy of what is there."""
    place = open_in(program, root, path, os.O_PATH, c.RESOLVE_NO_SYMLINKS)
    flags = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | c.AT_EMPTY_PATH | c.AT_RECURSIVE
    return place, program.call("open_tree", place, "", flags, returns="copy")


def open_in(program: "Program", root: "Value", path: str, flags: int, resolve: int = 0) -> "Value":
    """Open `path` as a process whose root is `root` would, but through no magic link of /proc. openat2(2)."""
    how = struct.pack("=3Q", flags | os.O_CLOEXEC, 0, _IN_ROOT | resolve)
    return program.call("openat2", root, path, how, len(how), returns=path.replace("/", "_").replace(".", "root"))


def attribute_mask(attributes: "Iterable[str]") -> int:
    mask = 0
    for attribute in attributes:
        mask |= ATTRIBUTES[attribute]
    return mask
