"""Layers: one folder shown through another, with every change kept apart. The kernel calls it an overlay.

::

    merged   what a program sees: the upper layer over the lower ones
    upper    what was changed: whole files, and marks where something was deleted
    work     an empty folder beside `upper`, in which the kernel prepares what it then moves there in one step
    lower    what everything begins with, any number of layers; never written to

An `Overlay` says which folders these are. `write` adds the system calls that make it a detached mount to a `Program`;
`mount` carries them out at once. What the upper layer then holds is told by `labkit.overlay.layer_reader`.

The options it is mounted with, and why:

- `metacopy=off`, `redirect_dir=nofollow`: an upper layer says all of what it changes by itself. With the other settings
  it points into the lower ones by extended attributes, which a layer from elsewhere may have been given on purpose.
- `index=off`: with an index the kernel refuses a lower layer that was copied or unpacked anew since.
- `userxattr` in a user namespace, where the kernel's own `trusted.` attributes may not be written; it switches off the
  three above by itself. Linux 5.11.
- `volatile`, only when asked for: it leaves out all syncing, and so an upper layer is not to be used again.
- `xino` stays as the kernel was built: it only decides how inode numbers are made up.

Sources: the kernel's Documentation/filesystems/overlayfs.rst; fsopen(2), fsconfig(2), fsmount(2), mount(2).
"""

import os
import stat
import struct
from contextlib import suppress
from errno import ENOENT, ENOTDIR

from labkit import constants as c
from labkit import syscalls
from labkit.errors import InvalidConfig, Unsupported
from labkit.mounts import fsmount
from labkit.program import Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from labkit.program.program import Value

    Path = str | os.PathLike[str]

LAYERS_MAX = 500  # fs/overlayfs/params.h: OVL_MAX_STACK
_TEXT_BYTES = 255  # of one fsconfig(2) value


class Overlay:
    """Which folders are layered: plain, validated data. `InvalidConfig`: it makes no sense whatever the machine.

    `lower` is a list of folders, the topmost first. `upper` and `work` are two folders of one file system; without them
    nothing can be written. With `scratch_bytes` both are in memory instead, in a tmpfs of that size that belongs to the
    mount alone: it goes when the mount goes.
    """

    __slots__ = ("lower", "scratch_bytes", "upper", "volatile", "work")

    def __init__(
        self,
        lower: "Iterable[Path]",
        upper: "Path | None" = None,
        work: "Path | None" = None,
        *,
        volatile: bool = False,
        scratch_bytes: int = 0,
    ) -> None:
        if isinstance(lower, str | bytes | os.PathLike):
            raise InvalidConfig("lower is a list of folders, the topmost first, not a single one")
        self.lower = tuple(os.fspath(one) for one in lower)
        self.upper = None if upper is None else os.fspath(upper)
        self.work = None if work is None else os.fspath(work)
        self.volatile, self.scratch_bytes = volatile, scratch_bytes
        if not self.lower:
            raise InvalidConfig("an overlay needs at least one lower layer")
        if len(self.lower) > LAYERS_MAX:
            raise InvalidConfig(f"an overlay of {len(self.lower)} lower layers: the kernel takes {LAYERS_MAX} at most")
        if (upper is None) != (work is None):
            there, missing = ("upper", "work") if work is None else ("work", "upper")
            raise InvalidConfig(f"an overlay with {there} and without {missing}: they go together")
        if scratch_bytes < 0 or (scratch_bytes and upper is not None):
            raise InvalidConfig("scratch_bytes is the size of an upper layer in memory, in place of upper and work")
        if volatile and upper is None:
            raise InvalidConfig("volatile is about an upper layer, and there is none")
        for what, path in self.folders():
            if "\0" in path:
                raise InvalidConfig(f"the path of {what} holds a NUL byte, which no system call can carry")
            if not path.startswith("/"):
                raise InvalidConfig(f"{what} is {path!r}: its path must be absolute, beginning with /")

    @classmethod
    def scratch(cls, *lower: "Path", scratch_bytes: int = 256 << 20) -> "Overlay":
        """One image for many: each mount of it begins as `lower`, and what is changed in it is kept in memory, of which
        `scratch_bytes` at most, and forgotten with the mount."""
        return cls(lower, scratch_bytes=scratch_bytes)

    def folders(self) -> list[tuple[str, str]]:
        """What each folder is, with its path: `[("the lower layer", "/image"), ("upper", ...), ("work", ...)]`."""
        one = len(self.lower) == 1
        found = [(f"the lower layer{'' if one else f' {n}'}", path) for n, path in enumerate(self.lower, start=1)]
        return found + [(name, path) for name, path in (("upper", self.upper), ("work", self.work)) if path is not None]

    @property
    def writable(self) -> bool:
        """Whether anything can be changed in it."""
        return self.upper is not None or self.scratch_bytes > 0

    def message(self) -> tuple[object, ...]:
        """The same as plain values, for another process: `Overlay.of(message)` gives it back."""
        return self.lower, self.upper, self.work, self.volatile, self.scratch_bytes

    @classmethod
    def of(cls, message: "tuple[object, ...]") -> "Overlay":
        """The overlay of which `message` is the `message()`."""
        lower, upper, work, volatile, scratch_bytes = message
        return cls(lower, upper, work, volatile=volatile, scratch_bytes=scratch_bytes)  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Overlay) and self.message() == other.message()

    def __hash__(self) -> int:
        return hash(self.message())

    def __repr__(self) -> str:
        upper = f" under {self.upper}" if self.upper else " under memory" if self.scratch_bytes else ""
        return f"<Overlay of {', '.join(self.lower)}{upper}>"


def write(
    program: Program,
    overlay: Overlay,
    *,
    copies: "Sequence[Value]" = (),
    own_user_namespace: bool = False,
    files: "Mapping[str, str] | None" = None,
) -> "Value":
    """Add the system calls that make `overlay` a mount that is attached nowhere yet; return its descriptor.

    For a process in a mount namespace of its own whose mounts do not propagate. The tmpfs of an upper layer in memory
    covers the topmost lower layer, until that is unmounted, or the old root with all that is mounted in it.

    A process in a user namespace of its own cannot reach every folder: `copies` are mounts of the lower layers that
    its parent has made for it, one each. It needs an upper layer in memory. So do `files`, texts that it begins with,
    by paths such as "etc/hosts"; where the lower layers have no such folder they are left out.
    """
    program.step(f"mount -t overlay -o {','.join(_options(overlay, own_user_namespace))}")
    if not overlay.writable and len(overlay.lower) == 1:
        return _readonly(program, overlay.lower[0])
    if overlay.scratch_bytes:
        overlay = _in_memory(program, overlay, copies, files or {})
    return (_append if _takes_one_by_one(overlay) else _at_once)(program, overlay, own_user_namespace)


def _in_memory(program: Program, overlay: Overlay, copies: "Sequence[Value]", files: "Mapping[str, str]") -> Overlay:
    """Make the upper layer, in a tmpfs that covers the topmost lower layer; return the overlay as it is now."""
    # /proc is there in every mount namespace. Another place may be closed to a user namespace.
    place = "/proc" if copies else overlay.lower[0]
    root_mode = stat.S_IMODE(os.stat(overlay.lower[0]).st_mode)  # the root of the upper layer is the root that is seen
    memory = fsmount.filesystem(program, "tmpfs", (f"size={overlay.scratch_bytes}", "mode=0700"))
    program.call("mkdirat", memory, "upper", root_mode)
    program.call("mkdirat", memory, "work", 0o700)
    for path, text in files.items():
        folder, _, _ = path.rpartition("/")
        if (mode := _folder_mode(overlay, folder)) is not None:
            program.call("mkdirat", memory, f"upper/{folder}", mode, may_fail=True)
            how = struct.pack("=3Q", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644, 0)
            file = program.call("openat2", memory, f"upper/{path}", how, len(how), returns="file")
            program.call("write", file, text, len(os.fsencode(text)))
    if copies:
        # To copy it from a lower layer, its owner would have to be somebody in the user namespace.
        program.call("mkdirat", memory, "upper/tmp", 0o1777)
    else:
        # Once the tmpfs covers the topmost layer, that is reached at a place inside the tmpfs.
        flags = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC
        copies = [program.call("open_tree", c.AT_FDCWD, place, flags, returns="lower")]
    program.call("move_mount", memory, "", c.AT_FDCWD, place, c.MOVE_MOUNT_F_EMPTY_PATH)
    lower = list(overlay.lower)
    for number, copy in enumerate(copies):
        name = f"lower{number}"
        # A copy is a peer of its original: what is mounted on it would appear there.
        private = struct.pack("=4Q", 0, 0, c.MS_PRIVATE, 0)
        program.call("mount_setattr", copy, "", c.AT_EMPTY_PATH, private, len(private))
        program.call("mkdirat", memory, name, 0o700)
        program.call("move_mount", copy, "", memory, name, c.MOVE_MOUNT_F_EMPTY_PATH)
        lower[number] = f"{place}/{name}"
    return Overlay(lower, f"{place}/upper", f"{place}/work")


def _folder_mode(overlay: Overlay, folder: str) -> int | None:
    """The mode of a folder in the topmost lower layer that has the name; None where that is none, such as a link."""
    for layer in overlay.lower:
        with suppress(OSError):
            found = os.lstat(f"{layer}/{folder}")
            return stat.S_IMODE(found.st_mode) if stat.S_ISDIR(found.st_mode) else None
    return None


def mount(overlay: Overlay, target: "Path") -> None:
    """Mount `overlay` on the folder `target`, in the calling process's mount namespace. `InvalidConfig`, `OSError`.

    Needs CAP_SYS_ADMIN in the user namespace that owns the mount namespace, as every process on the lab host has it.
    """
    from labkit.overlay import checks as overlay_checks

    overlay_checks.check(overlay)
    path = os.fspath(target)
    overlay_checks.folder("the target", path)
    program = Program()
    made = write(program, overlay)
    if overlay.scratch_bytes:
        program.call("umount2", overlay.lower[0], c.MNT_DETACH)  # the overlay has hold of all it needs
    program.call("move_mount", made, "", c.AT_FDCWD, path, c.MOVE_MOUNT_F_EMPTY_PATH)
    try:
        program.perform()
    finally:
        _close(program)


def _readonly(program: Program, folder: str) -> "Value":
    """A single layer that nothing is to change: the kernel takes that for no overlay, and a bind mount does it."""
    flags = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC
    tree = program.call("open_tree", c.AT_FDCWD, folder, flags, returns="layer")
    attributes = struct.pack("=4Q", c.MOUNT_ATTR_RDONLY, 0, 0, 0)
    program.call("mount_setattr", tree, "", c.AT_EMPTY_PATH, attributes, len(attributes))
    return tree


def _append(program: Program, overlay: Overlay, own_user_namespace: bool) -> "Value":
    """With fsconfig(2), the layers one by one."""
    lower = [f"lowerdir+={path}" for path in overlay.lower]
    return fsmount.filesystem(program, "overlay", [*lower, *_options(overlay, own_user_namespace)[1:]])


def _at_once(program: Program, overlay: Overlay, own_user_namespace: bool) -> "Value":
    """With mount(2), all layers in one text; then a copy of that mount without a place, and the mount goes."""
    place, options = overlay.lower[0], ",".join(_options(overlay, own_user_namespace))
    page = os.sysconf("SC_PAGE_SIZE")
    if len(os.fsencode(options)) >= page:
        raise Unsupported(
            f"this kernel takes an overlay's layers as one text of less than {page} bytes, and these "
            f"{len(overlay.lower)} need {len(os.fsencode(options))}",
            "use fewer layers or shorter paths, or Linux 6.7 or newer, which takes them one by one",
        )
    program.call("mount", "overlay", place, "overlay", 0, options)
    flags = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC
    made = program.call("open_tree", c.AT_FDCWD, place, flags, returns="overlay")
    program.call("umount2", place, c.MNT_DETACH)
    return made


def _options(overlay: Overlay, own_user_namespace: bool = False) -> list[str]:
    """The options as mount(2) takes them, in one list; the layers first."""
    options = ["lowerdir=" + ":".join(escaped(path) for path in overlay.lower)]
    if overlay.upper is not None and overlay.work is not None:
        options += [f"upperdir={escaped(overlay.upper)}", f"workdir={escaped(overlay.work)}"]
    if not own_user_namespace and _in_first_user_namespace():
        options += ["index=off", "metacopy=off", "redirect_dir=nofollow"]
    else:
        options += ["userxattr"]
    return [*options, "volatile"] if overlay.volatile else options


def _close(program: Program) -> None:
    """Close the descriptors that `program.perform()` has opened."""
    for call, result in program.results():
        if call.name in ("fsmount", "open_tree") and result > 0:
            os.close(result)


def escaped(path: str) -> str:
    """A path as an option holds it."""
    for special in "\\:,":
        path = path.replace(special, "\\" + special)
    return path


def _takes_one_by_one(overlay: Overlay) -> bool:
    """Whether this kernel takes these layers one by one: it knows `lowerdir+`, and no path is too long for it."""
    lengths = [len(os.fsencode(path)) for path in overlay.lower]
    lengths += [len(os.fsencode(escaped(path))) for path in (overlay.upper, overlay.work) if path is not None]
    return max(lengths) <= _TEXT_BYTES and _knows_lowerdir_plus()


def _knows_lowerdir_plus() -> bool:
    """Found by asking for a layer that cannot be. A kernel that knows the option looks for it at once; others refuse
    the option (EINVAL), or keep it unread until the file system is made. Asked once."""
    global _one_by_one
    if _one_by_one is None:
        context = syscalls.fsopen("overlay")
        try:
            syscalls.fsconfig(context, c.FSCONFIG_SET_STRING, "lowerdir+", "/dev/null/none")
            _one_by_one = False
        except OSError as error:
            _one_by_one = error.errno in (ENOENT, ENOTDIR)
        finally:
            os.close(context)
    return _one_by_one


def _in_first_user_namespace() -> bool:
    """Whether this process's user namespace is the machine's first: only there may `trusted.` attributes be written."""
    with open("/proc/self/uid_map") as file:
        return file.read().split() == ["0", "0", "4294967295"]


_one_by_one: bool | None = None
