"""Where a user's home is, by the container's own /etc/passwd.

The file is the image's: read as bytes of a limited number, through no link that leads out of the root. passwd(5).
"""

import os
import stat
from contextlib import suppress

from labkit import constants as c
from labkit import syscalls
from labkit.errors import LabkitError
from labkit.overlay import Overlay, layer_reader

_BYTES_MAX = 1 << 20


def home(root: "str | os.PathLike[str] | Overlay", uid: int) -> str:
    """The home of the user `uid`; "/" where the file does not say, as in Docker."""
    for line in _passwd(root).splitlines():
        fields = line.split(b":")
        if len(fields) == 7 and fields[2] == b"%d" % uid and fields[5].startswith(b"/"):
            return os.fsdecode(fields[5])
    return "/"


def _passwd(root: "str | os.PathLike[str] | Overlay") -> bytes:
    """The contents of the file, as far as they matter; empty where there is none."""
    with suppress(OSError, LabkitError):
        if not isinstance(root, Overlay):
            return _read(root)
        uppermost = () if root.upper is None else (root.upper,)
        for layer in (*uppermost, *root.lower):
            with layer_reader.opened(layer) as top:
                if (found := _in_layer(top)) is not None:
                    return found
    return b""


def _in_layer(top: int) -> bytes | None:
    """The contents in one layer; empty where the layer says that there is none; None where layers below have a say."""
    try:
        etc = layer_reader.entry_of(top, "etc", layer_reader.has_whiteouts_by_attribute(top))
    except FileNotFoundError:
        return None
    if etc.whiteout or not etc.is_folder:
        return b""
    try:
        with layer_reader.folder(top, "etc") as folder:
            file = layer_reader.entry_of(folder, "passwd", layer_reader.has_whiteouts_by_attribute(folder), "etc/")
    except FileNotFoundError:
        return b"" if etc.opaque else None
    if file.whiteout:
        return b""
    with layer_reader.contents(top, file) as contents:
        return contents.read(_BYTES_MAX)


def _read(root: "str | os.PathLike[str]") -> bytes:
    with layer_reader.opened(root) as top:
        found = syscalls.openat2(top, "etc/passwd", os.O_PATH, resolve=c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):  # a device, which must not even be opened, or a FIFO
            return b""
        with open(f"/proc/self/fd/{found}", "rb") as file:
            return file.read(_BYTES_MAX)
    finally:
        os.close(found)
