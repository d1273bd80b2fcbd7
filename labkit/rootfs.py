"""The root filesystem: finding one, the plan of what a container's root holds, and moving into it.

Sources: pivot_root(2), mount_namespaces(7), OCI runtime-spec config-linux.md ("Default Filesystems").
"""

import itertools
import os
import struct

from labkit import constants as c
from labkit import mounts, overlay
from labkit.errors import Unsupported
from labkit.files import state_folder
from labkit.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from labkit.program import Value

#: What of the kernel's own files a container may read and not write, and what it is not shown: Docker's defaults.
READONLY = ("proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger")
MASKED = (
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/firmware",
    "sys/devices/virtual/powercap",
)

#: What a container expects below its root: its own /proc (of its own PID namespace), a small /dev, terminals, shared
#: memory and message queues, a read-only /sys. OCI's defaults.
DEFAULT_PLAN: "tuple[mounts.Step, ...]" = (
    ("filesystem", "proc", "proc", ("nosuid", "nodev", "noexec"), ()),
    ("filesystem", "tmpfs", "dev", ("nosuid", "noexec", "dev"), ("mode=755", "size=64k")),
    ("device", "null"),
    ("device", "zero"),
    ("device", "full"),
    ("device", "random"),
    ("device", "urandom"),
    ("device", "tty"),
    ("nodev", "dev"),
    ("symlink", "/proc/self/fd", "dev/fd"),
    ("symlink", "/proc/self/fd/0", "dev/stdin"),
    ("symlink", "/proc/self/fd/1", "dev/stdout"),
    ("symlink", "/proc/self/fd/2", "dev/stderr"),
    ("directory", "dev/pts"),
    ("filesystem", "devpts", "dev/pts", ("nosuid", "noexec", "dev"), ("newinstance", "ptmxmode=0666", "mode=0620")),
    ("symlink", "pts/ptmx", "dev/ptmx"),
    ("directory", "dev/shm"),
    ("filesystem", "tmpfs", "dev/shm", ("nosuid", "nodev", "noexec"), ("mode=1777", "size=64m")),
    ("filesystem", "mqueue", "dev/mqueue", ("nosuid", "nodev", "noexec"), ()),
    ("filesystem", "sysfs", "sys", ("nosuid", "nodev", "noexec", "ro"), ()),
    *(("readonly", path) for path in READONLY),
    *(("mask", path) for path in MASKED),
)


def find(name: str) -> "Path":
    """The folder of the root filesystem `name` ("busybox") that set-up has built from its recipe in `rootfs/`.

    `Unsupported`: it has not been built yet.
    """
    from pathlib import Path  # as in `paths`

    path = os.path.join(state_folder.state_folder(), "rootfs", name)
    if not os.path.isdir(os.path.join(path, "bin")):
        raise Unsupported(f"the root filesystem {name!r} has not been built", "run ./lab setup")
    return Path(path)


def write_entry(
    program: "Program",
    root: "str | overlay.Overlay",
    plan: "tuple[mounts.Step, ...]" = DEFAULT_PLAN,
    readonly: bool = False,
    copies: "Iterable[Value]" = (),
    files: "Mapping[str, str] | None" = None,
) -> None:
    """Add the system calls that make a folder or an overlay the root, laid out by `plan`, and let go of the old one.

    For a process that has just come into a mount namespace of its own. Nothing of the old root can be reached
    afterwards but through descriptors that are still open. `copies` are mounts copied already by somebody who may: of
    the root or of its layers, then of the plan's bind mounts, in their order. `files` are texts that an upper layer in
    memory begins with.
    """
    given = iter(copies)
    layers = list(itertools.islice(given, 1 if isinstance(root, str) else len(root.lower)))
    sources = mounts.open_sources(program, plan, given if layers else None)
    program.step("taking the mounts out of the lab host's propagation")
    # Where the mounts we were given are shared, ours would show up with their owners, and pivot_root would be refused.
    program.call("mount", None, "/", None, c.MS_REC | c.MS_PRIVATE, None)
    program.call("umask", 0)  # modes below are meant as they stand
    place = root if isinstance(root, str) else root.lower[0]
    program.step(f"mount --rbind {place} {place}")
    if layers and isinstance(root, str):
        (tree,) = layers
        place = "/"  # any place will do, and its own may be closed to us
    elif isinstance(root, str):
        flags = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC | c.AT_RECURSIVE
        tree = program.call("open_tree", c.AT_FDCWD, root, flags, returns="root")
    else:
        tree = overlay.write(program, root, copies=layers, own_user_namespace=bool(layers), files=files)
        place = "/proc" if layers else place
    # A device that lies in an image, or that is made there by who may, does not open.
    attributes = struct.pack("=4Q", c.MOUNT_ATTR_NODEV, 0, c.MS_PRIVATE, 0)
    program.call("mount_setattr", tree, "", c.AT_EMPTY_PATH | c.AT_RECURSIVE, attributes, len(attributes))
    # pivot_root wants a mount point, so the root becomes one: a folder bound on itself.
    program.call("move_mount", tree, "", c.AT_FDCWD, place, c.MOVE_MOUNT_F_EMPTY_PATH)
    mounts.write(program, tree, plan, sources)
    if readonly:
        program.step("making the root read-only")
        # The mount of the root alone: /proc and /dev have their own rules.
        attributes = struct.pack("=4Q", c.MOUNT_ATTR_RDONLY, 0, 0, 0)
        program.call("mount_setattr", tree, "", c.AT_EMPTY_PATH, attributes, len(attributes))
    program.step("pivot_root")
    program.call("fchdir", tree)
    # With "." for both, the old root ends up mounted on top of the new one, so that no folder is needed to put it in.
    # Unmounting "." takes away what lies on top there: the old root. pivot_root(2), NOTES.
    program.call("pivot_root", ".", ".")
    program.call("umount2", ".", c.MNT_DETACH)
    program.call("chdir", "/")
    program.call("umask", 0o022)


def enter(
    root: "str | overlay.Overlay", plan: "tuple[mounts.Step, ...]" = DEFAULT_PLAN, *, readonly: bool = False
) -> None:
    """Move the calling process, in a mount namespace of its own, into the root filesystem `root`: see `write_entry`."""
    program = Program()
    write_entry(program, root, plan, readonly)
    program.perform()
