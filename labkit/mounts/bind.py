"""Bind mounts: a file or folder of the machine, shown at a place in the root.

Attributes are those of `ATTRIBUTES` for the mount alone; with an "r" before them ("rro") for all that is mounted below
it, too; "bind": without what is mounted below (the default is "rbind"); the propagation of the copy, "slave" say
("private" by default); "idmap": with owners shifted by the container's user namespace;
"dev": with the device nodes in it usable, which they are not otherwise;
"over_link": a file, which covers a symbolic link at its place instead of being refused.

Sources: mount(2), mount_setattr(2), mount_namespaces(7); OCI config.md, "Linux mount options".
"""

import os
import stat
import struct

from labkit import constants as c
from labkit.mounts.in_root import ATTRIBUTES, attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from labkit.program import Program, Value

PROPAGATIONS = {
    "private": c.MS_PRIVATE,
    "slave": c.MS_SLAVE,
    "shared": c.MS_SHARED,
    "unbindable": c.MS_UNBINDABLE,
}


def open_source(program: "Program", source: str, attributes: "Iterable[str]") -> "Value":
    """Copy the mount of `source`, detached."""
    flags = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | (0 if "bind" in attributes else c.AT_RECURSIVE)
    return program.call("open_tree", c.AT_FDCWD, source, flags, returns="tree")


def attach_source(
    program: "Program", root: "Value", tree: "Value", source: str, target: str, attributes: "Iterable[str]"
) -> None:
    """Show `source`, copied as `tree`, at `target` in the root.

    What `source` is, a file or a folder, is looked at when the program is written.
    """
    one, below, propagation = split_attributes(attributes)
    if "dev" not in attributes:
        below |= c.MOUNT_ATTR_NODEV
    for flags, mask, kind in (
        # A copy is a peer of its original, and all mounted in either would appear in both, unless that is changed.
        (c.AT_EMPTY_PATH | c.AT_RECURSIVE, below, 0 if propagation == c.MS_SHARED else propagation),
        (c.AT_EMPTY_PATH, one, 0),
    ):
        if mask or kind:
            attr = struct.pack("=4Q", mask, 0, kind, 0)
            program.call("mount_setattr", tree, "", flags, attr, len(attr))
    onto_file = not stat.S_ISDIR(os.stat(source).st_mode)
    attach(program, root, tree, target, onto_file, over_link="over_link" in attributes)
    program.call("close", tree)


def split_attributes(attributes: "Iterable[str]") -> tuple[int, int, int]:
    """A bind step's attributes as masks: of the mount alone, of all below it too; and its propagation, an MS_* flag.

    `ValueError`: an attribute that nobody knows.
    """
    one = below = 0
    propagation = c.MS_PRIVATE
    for attribute in attributes:
        if attribute in ATTRIBUTES:
            one |= ATTRIBUTES[attribute]
        elif attribute[:1] == "r" and attribute[1:] in ATTRIBUTES:
            below |= ATTRIBUTES[attribute[1:]]
        elif attribute.removeprefix("r") in PROPAGATIONS:
            propagation = PROPAGATIONS[attribute.removeprefix("r")]
        elif attribute not in ("bind", "rbind", "rw", "dev", "idmap", "over_link"):
            raise ValueError(f"there is no mount attribute {attribute!r}")
    return one, below, propagation
