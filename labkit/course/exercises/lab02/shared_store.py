"""One small file system for a database and for uploads, and whether they have been taken apart; for lab 02.

It is made in a stand-in for the lab host. What was done there is judged by the kernel's list of mounts, and by
uploading until nothing more fits.
"""

import errno
import os
from contextlib import suppress
from typing import NamedTuple, Self

from labkit import procfs
from labkit.course.exercises.common.mount_stand_in import StandIn
from labkit.course.framework.outcomes import NotYet, Passed, Verdict
from labkit.process import Child
from labkit.syscalls import mount

STORE_MIB = 24
UPLOAD_MAX_MIB = 64  # what the check writes at most, should nothing stop it
_BLOCK = 1 << 16


class Facts(NamedTuple):
    """What a process on the stand-in finds."""

    same_device: bool  #: whether uploads and database are in one file system
    uploads_bytes: int  #: how large the file system of the uploads is
    database_kept: bool  #: whether the database's file is there as it was


class OneStore:
    """A file system of `STORE_MIB` on the stand-in, with the folders `database` (and a file in it) and `uploads`."""

    def __init__(self, town: StandIn, folder: str, token: str) -> None:
        self._town, self._token = town, token
        self.store = os.path.realpath(folder)
        self.database, self.uploads = f"{self.store}/database", f"{self.store}/uploads"

    def __enter__(self) -> Self:
        self.look: Child = self._town.spawn_closed(_furnish, self.store, self._token)
        return self

    def __exit__(self, *_: object) -> None:
        self.look.kill()

    def mounts(self) -> list[str]:
        """Where in it something is mounted, from the outermost to the innermost."""
        points = [one.mount_point for one in procfs.mountinfo(self._town.pid)]
        return [point for point in points if point == self.store or point.startswith(f"{self.store}/")]

    def facts(self) -> Facts:
        """Look at it from a process of the stand-in."""
        return self.look.call(_facts, self.database, self.uploads, self._token)

    def upload(self) -> tuple[float, str]:
        """Upload until it goes no further: how many MiB went in, and which error ended it (or none)."""
        return self.look.call(_fill, self.uploads)

    def insert(self) -> str:
        """Have the database write a little, to the disk; which error there was, or none."""
        return self.look.call(_write, f"{self.database}/journal", 1 << 18)


def apart_enough(shop: OneStore, mib: int, hidden: bool) -> Verdict:
    """Whether an upload without end leaves the database alone. `hidden`: there is a mount that only its maker sees."""
    facts = shop.facts()
    if not facts.database_kept:
        return NotYet(
            "The database's files are gone: something else is mounted where they were.",
            "A file system that is mounted on a folder hides what was in it before. The uploads' folder is empty; the "
            "others are not. On which is it to appear?",
        )
    if facts.same_device:
        return _one_file_system(shop, hidden)
    if facts.uploads_bytes > (2 * mib) << 20:
        return NotYet(
            f"The uploads have a file system of their own, which may hold {facts.uploads_bytes >> 20} MiB; {mib} were "
            "asked for.",
            "Without `size=` a tmpfs takes up to half of the machine's memory, so the next thing to run out would be "
            "that. The fifth argument of `mount` takes options; the letter `m` behind the number stands for MiB.",
        )
    went_in, error = shop.upload()
    if error != "ENOSPC":
        return NotYet(
            f"Something was to be uploaded, and that ended after {went_in:.1f} MiB with {error or 'no error'}.",
            f"{mib} MiB must go in, and then the kernel must say ENOSPC: no space left.",
        )
    if went_in < mib * 0.75:
        return NotYet(
            f"After {went_in:.1f} MiB no more could be uploaded; there was to be room for {mib}.",
            "What does a number without a letter mean in `size=`? See tmpfs(5).",
        )
    if error := shop.insert():
        return NotYet(
            f"The uploads are full now, and the database cannot write either: {error}.", "What do they share?"
        )
    return Passed(
        f"After {went_in:.0f} MiB the kernel refused the upload with ENOSPC; the database then wrote to its own disk "
        "as if nothing had happened.",
        "The limit stands where the one writes who knows no bounds. A container's volume is such a mount.",
    )


def _one_file_system(shop: OneStore, hidden: bool) -> Verdict:
    if shop.uploads in shop.mounts():
        return NotYet(
            "Something is mounted on `uploads`, and it is the very file system that the database is in.",
            "A bind mount shows the same file system at a second place; its space is the same too. What makes a *new* "
            "one? (The third argument.)",
        )
    if hidden:
        return NotYet(
            "Your function's own process has a file system on `uploads`; nobody else does: the mount was made in a "
            "mount namespace of its own.",
            "The file server must see it. Mount it where everybody looks.",
        )
    if len(shop.mounts()) > 1:
        return NotYet(
            f"Something is mounted on {shop.mounts()[-1].removeprefix(shop.store + '/')!r}, and uploads and database "
            "are still in one file system.",
            "Where do uploads go? That very folder must lead to another file system.",
        )
    return NotYet(
        "Nothing is mounted on `uploads`: it is a folder in the same file system as the database's.",
        "Folders are names; the space belongs to the file system. `mount` makes another one appear on a folder.",
    )


# On the stand-in


def _furnish(store: str, token: str) -> None:
    mount("store", store, "tmpfs", 0, f"size={STORE_MIB}m,mode=755")
    for name in ("database", "uploads"):
        os.mkdir(f"{store}/{name}")
    with open(f"{store}/database/accounts", "w") as file:
        file.write(token)


def _facts(database: str, uploads: str, token: str) -> Facts:
    kept = False
    with suppress(OSError), open(f"{database}/accounts") as file:
        kept = file.read() == token
    size = os.statvfs(uploads) if os.path.isdir(uploads) else None
    same = size is None or not kept or os.stat(uploads).st_dev == os.stat(database).st_dev
    return Facts(same, size.f_blocks * size.f_frsize if size else 0, kept)


def _fill(folder: str) -> tuple[float, str]:
    written = 0
    try:
        with open(f"{folder}/upload", "wb", buffering=0) as file:
            while written < UPLOAD_MAX_MIB << 20:
                written += file.write(bytes(_BLOCK))
    except OSError as error:
        return written / 2**20, errno.errorcode.get(error.errno or 0, str(error))
    return written / 2**20, ""


def _write(path: str, length: int) -> str:
    try:
        with open(path, "wb", buffering=0) as file:
            file.write(bytes(length))
            os.fsync(file.fileno())
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return ""
