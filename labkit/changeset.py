"""What an upper layer changes, as a list and as a tar archive: the form in which images carry their layers.

In the archive the whiteout of `name` is an empty file `.wh.name`, and an opaque folder holds one called `.wh..wh..opq`;
what these are in a layer on disk, and how it is read, says `labkit.overlay.layer_reader`.

Sources: OCI image-spec layer.md; pax(1), "pax Extended Header".
"""

import os
import stat
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import BinaryIO, Literal, NamedTuple, Self

from labkit.errors import LabkitError
from labkit.overlay import layer_reader
from labkit.overlay.layer_reader import Entry, Path

WHITEOUT, OPAQUE = ".wh.", ".wh..wh..opq"
_CARRIED = ("user.", "security.capability")  # other attributes mean something on one machine only


class Change(NamedTuple):
    """One name that an upper layer changes: `Change("deleted", "etc/motd")`.

    A modified folder is `opaque` where nothing that the layers below have in it is seen any more.
    """

    kind: Literal["added", "modified", "deleted"]
    path: str
    opaque: bool = False


class Skipped(NamedTuple):
    """One name that a tar archive cannot carry, and why."""

    path: str
    why: str


def changes(upper: Path, lower: "Path | Sequence[Path]") -> list[Change]:
    """What the layer `upper` changes of the layers `lower`, the topmost first; in the order of the paths.

    A folder in which something was changed is modified itself: it has another time. `InvalidConfig`: one of them is no
    folder. `LabkitError`: something lies too deep, or was made by an overlay with other settings than ours.
    """
    found: list[Change] = []
    with ExitStack() as stack:
        top = stack.enter_context(layer_reader.opened(upper))
        below = [lower] if isinstance(lower, str | os.PathLike) else lower
        tops = [stack.enter_context(layer_reader.opened(one)) for one in below]
        waiting = [("", tops)]  # a folder of upper, and the lower layers of which it shows what they have there
        while waiting:
            path, showing = waiting.pop()
            with _Below(showing, path) as folders:
                for entry in layer_reader.entries_of(top, path):
                    showing, exists = folders.look_up(entry.name)
                    if entry.is_folder:
                        waiting.append((entry.path, [] if entry.opaque else showing))
                    if not entry.whiteout:
                        found.append(Change("modified" if exists else "added", entry.path, exists and entry.opaque))
                    elif exists:
                        found.append(Change("deleted", entry.path))
    return sorted(found, key=lambda change: change.path.split("/"))


class _Below:
    """The same folder in each of several layers, as far as they have it."""

    def __init__(self, tops: Sequence[int], path: str) -> None:
        self._tops, self._path = tops, path

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._found = []  # (top of the layer, the folder in it, whether empty files may be whiteouts there)
        for top in self._tops:
            with suppress(NotADirectoryError, FileNotFoundError):
                fd = self._stack.enter_context(layer_reader.folder(top, self._path))
                self._found.append((top, fd, layer_reader.has_whiteouts_by_attribute(fd)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def look_up(self, name: str) -> tuple[list[int], bool]:
        """(the layers whose folder of that name shows, whether anything of that name shows at all)."""
        showing: list[int] = []
        for top, fd, by_attribute in self._found:
            try:
                entry = layer_reader.entry_of(fd, name, by_attribute)
            except FileNotFoundError:
                continue
            if not entry.is_folder:
                return showing, bool(showing) or not entry.whiteout
            showing.append(top)
            if entry.opaque:
                break
        return showing, bool(showing)


def as_tar(upper: Path, to: BinaryIO) -> list[Skipped]:
    """Write the layer `upper` to `to` as a tar archive, as OCI images have them; return what it could not carry.

    The same layer gives the same bytes: names are in order, in each folder the deletions first; times are whole
    seconds, owners are numbers. Of the attributes `user.*` and file capabilities are kept. Raises as `changes` does.
    """
    skipped: list[Skipped] = []
    first_names: dict[tuple[int, int], str] = {}  # of files with several names
    with layer_reader.opened(upper) as top, tarfile.open(fileobj=to, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        with layer_reader.folder(top, "") as fd:
            if layer_reader.is_opaque(fd):
                tar.addfile(_mark(OPAQUE, os.fstat(fd)))
        waiting = layer_reader.entries_of(top, "")[::-1]
        while waiting:
            entry = waiting.pop()
            if why := _not_carried(entry):
                skipped.append(Skipped(entry.path, why))
            elif entry.whiteout:
                tar.addfile(_mark(entry.path[: -len(entry.name)] + WHITEOUT + entry.name, entry.info))
            else:
                _add(tar, top, entry, first_names)
                waiting += layer_reader.entries_of(top, entry.path)[::-1] if entry.is_folder else []
    return skipped


def _not_carried(entry: Entry) -> str | None:
    if entry.name.startswith(WHITEOUT):
        return f"in an archive a name that begins with {WHITEOUT} is a deletion"
    if stat.S_ISSOCK(entry.info.st_mode):
        return "a socket is a meeting place of running processes, not a file"
    return None


def _add(tar: tarfile.TarFile, top: int, entry: Entry, first_names: dict[tuple[int, int], str]) -> None:
    info, mode = _member(entry.path, entry.info), entry.info.st_mode
    info.pax_headers = {
        f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
        for name, value in sorted(entry.attributes.items())
        if name.startswith(_CARRIED) and not name.startswith(layer_reader.PREFIXES)
    }
    identity = (entry.info.st_dev, entry.info.st_ino)
    if not entry.is_folder and entry.info.st_nlink > 1 and identity in first_names:
        info.type, info.linkname = tarfile.LNKTYPE, first_names[identity]
    elif stat.S_ISDIR(mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(mode):
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
    elif stat.S_ISFIFO(mode):
        info.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        info.type = tarfile.CHRTYPE if stat.S_ISCHR(mode) else tarfile.BLKTYPE
        info.devmajor, info.devminor = os.major(entry.info.st_rdev), os.minor(entry.info.st_rdev)
    else:
        info.size = entry.info.st_size
        with layer_reader.contents(top, entry) as file:
            try:
                tar.addfile(info, file)
            except OSError as error:
                raise LabkitError(f"{entry.path!r} changed while it was read ({error}); stop what writes it") from None
    if info.type != tarfile.REGTYPE:
        tar.addfile(info)
    if entry.opaque:
        tar.addfile(_mark(f"{entry.path}/{OPAQUE}", entry.info))
    if not entry.is_folder and entry.info.st_nlink > 1:
        first_names.setdefault(identity, entry.path)


def _member(path: str, found: os.stat_result) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.mode, info.uid, info.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    info.mtime = int(found.st_mtime)
    return info


def _mark(path: str, found: os.stat_result) -> tarfile.TarInfo:
    info = _member(path, found)
    info.mode, info.uid, info.gid = 0o600, 0, 0
    return info
