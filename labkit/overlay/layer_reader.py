"""Reading a layer of an overlay: what is really in it, whoever filled it.

A layer holds whole files for what it adds or changes, and marks for what is gone:

- a *whiteout* says that a name is gone. It is a character device 0:0, or, in a folder whose attribute `overlay.opaque`
  is "x", an empty file with the attribute `overlay.whiteout`;
- an *opaque* folder (`overlay.opaque` is "y") hides all that the layers below have in it.

Both attributes begin with `trusted.`, which only the machine's root can read, or with `user.` where the overlay was
mounted in a user namespace.

Whoever filled a layer may have put symbolic links in it to mislead whoever reads it. So nothing is reached by a path
through it: each folder is opened from the top by openat2(2) without following any link, and what is in it is held by a
descriptor that says what it really is before anything of it is read.

Sources: the kernel's Documentation/filesystems/overlayfs.rst; openat2(2), open(2) on O_PATH, xattr(7).
"""

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

from labkit import constants as c
from labkit import syscalls
from labkit.errors import InvalidConfig, LabkitError

Path = str | os.PathLike[str]
PREFIXES = ("trusted.overlay.", "user.overlay.")  #: of the overlay's own attributes
_STEPS = c.RESOLVE_BENEATH | c.RESOLVE_NO_SYMLINKS | c.RESOLVE_NO_XDEV


@dataclass(frozen=True)
class Entry:
    """One name in an upper layer, as it was found; `path` is relative to the layer."""

    path: str
    info: os.stat_result
    attributes: Mapping[str, bytes] = field(default_factory=dict)
    target: str = ""  #: where a symbolic link points to
    whiteout: bool = False

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.info.st_mode)

    @property
    def opaque(self) -> bool:
        """Whether it hides what the layers below have in it."""
        return self.is_folder and _mark(self.attributes, "opaque") == b"y"


def entries_of(top: int, path: str) -> list[Entry]:
    """What is in the folder `path` of the layer whose descriptor is `top`: whiteouts first, each kind by name."""
    above = f"{path}/" if path else ""
    found = []
    try:
        with folder(top, path) as fd:
            by_attribute = has_whiteouts_by_attribute(fd)
            for name in sorted(os.listdir(fd), key=os.fsencode):
                with suppress(FileNotFoundError):  # removed meanwhile
                    found.append(entry_of(fd, name, by_attribute, above))
    except (FileNotFoundError, NotADirectoryError):
        raise LabkitError(
            f"the folder {path!r} was replaced while the layer was read, or something is mounted on it"
        ) from None
    return sorted(found, key=lambda entry: not entry.whiteout)


def entry_of(folder_fd: int, name: str, whiteouts_by_attribute: bool = False, above: str = "") -> Entry:
    """What has that name in the folder of that descriptor; `above` is that folder's path with a slash."""
    with _held(folder_fd, name) as fd:
        info, attributes = os.fstat(fd), _attributes(fd)
        target = os.readlink("", dir_fd=fd) if stat.S_ISLNK(info.st_mode) else ""
    for attribute, setting in (("redirect", "redirect_dir=nofollow"), ("metacopy", "metacopy=off")):
        if _mark(attributes, attribute) is not None:
            raise LabkitError(
                f"{above + name!r} has the attribute overlay.{attribute}: a part of it is in a layer below, and this "
                f"layer alone cannot tell it; mount the overlay with {setting}"
            )
    if stat.S_ISCHR(info.st_mode):
        whiteout = info.st_rdev == 0
    else:
        empty = stat.S_ISREG(info.st_mode) and info.st_size == 0
        whiteout = whiteouts_by_attribute and empty and _mark(attributes, "whiteout") is not None
    return Entry(above + name, info, attributes, target, whiteout)


def is_opaque(fd: int) -> bool:
    """Whether the folder of that descriptor hides what the layers below have in it."""
    return _mark(_attributes(fd), "opaque") == b"y"


def has_whiteouts_by_attribute(fd: int) -> bool:
    """Whether empty files in the folder of that descriptor may be whiteouts. Linux 6.7."""
    return _mark(_attributes(fd), "opaque") == b"x"


# Descriptors: what is held cannot be exchanged for something else


@contextmanager
def opened(layer: Path) -> Iterator[int]:
    """The top folder of a layer. `InvalidConfig`: there is none."""
    try:
        fd = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidConfig(f"the layer {os.fspath(layer)} is not a folder") from None
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def folder(top: int, path: str) -> Iterator[int]:
    """The folder `path` below `top`, through no link and into no other file system. NotADirectoryError: it is none."""
    try:
        fd = syscalls.openat2(top, path or ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_STEPS)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise LabkitError(f"a folder lies deeper than a path can name: {path[:60]!r}...") from None
        if error.errno in (errno.ELOOP, errno.EXDEV):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from None
        raise
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _held(folder_fd: int, name: str) -> Iterator[int]:
    """Whatever has that name, held but not opened: no device is touched and no link followed."""
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def contents(top: int, entry: Entry) -> Iterator[BinaryIO]:
    """The bytes of a file, which must still be the one that was found."""
    replaced = LabkitError(f"{entry.path!r} was replaced while the layer was read; stop what writes it")
    try:
        with folder(top, entry.path.rpartition("/")[0]) as above, _held(above, entry.name) as held:
            found = os.fstat(held)
            # A number is used again: the type must be looked at too, or a device could be opened.
            if not stat.S_ISREG(found.st_mode) or not os.path.samestat(found, entry.info):
                raise replaced
            fd = os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise replaced from None
    with open(fd, "rb") as file:
        yield file


def _attributes(fd: int) -> dict[str, bytes]:
    """The extended attributes of what `fd` holds, a link's own if it is one; none where it cannot have any."""
    itself = f"/proc/self/fd/{fd}"
    found = {}
    try:
        for name in os.listxattr(itself):
            with suppress(OSError):
                found[name] = os.getxattr(itself, name)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise
    return found


def _mark(attributes: Mapping[str, bytes], name: str) -> bytes | None:
    return next((attributes[prefix + name] for prefix in PREFIXES if prefix + name in attributes), None)
