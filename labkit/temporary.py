"""Temporary folders that are found again when their process was killed.

`tempfile.TemporaryDirectory` removes its folder when it is told to, and when Python ends. A process that is killed does
neither. So each folder here is locked for as long as its process holds a descriptor of it; one that can be locked by
somebody else is nobody's any more. flock(2).
"""

import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress

PREFIX = "labkit."

#: False where the place for temporary files ends soon itself: then folders are left, whoever owns what is in them.
remove = True


class Folder(tempfile.TemporaryDirectory[str]):
    """A new folder, below `within` (the system's place for temporary files), removed by `cleanup` or on leaving."""

    def __init__(self, within: str | None = None) -> None:
        while True:
            super().__init__(prefix=PREFIX, dir=within)
            lock = _lock(self.name)
            #: closes the lock, also where nobody cleaned up, and Python drops the folder
            self._unlock = weakref.finalize(self, os.close, lock) if lock >= 0 else None
            if lock >= 0:
                return
            self.cleanup()  # it was taken for an abandoned one before it was locked

    def cleanup(self) -> None:
        """Remove it with all that is in it. Twice is as good as once."""
        if remove:
            with suppress(FileNotFoundError):
                super().cleanup()
        else:
            self._finalizer.detach()  # type: ignore[attr-defined]
        if self._unlock:
            self._unlock()


def abandoned(*within: str) -> list[str]:
    """The folders of this user whose process is gone, in the places `within` (the system's for temporary files)."""
    found = []
    for path, lock in _unlocked(within):
        os.close(lock)
        found.append(path)
    return sorted(found)


def remove_abandoned(*within: str) -> list[str]:
    """Remove the folders that are `abandoned`; return those that were, what could not be removed left out."""
    removed = []
    for path, lock in _unlocked(within):
        try:
            _open_up(path)
            shutil.rmtree(path, ignore_errors=True)
            if not os.path.lexists(path):
                removed.append(path)
        finally:
            os.close(lock)
    return sorted(removed)


def _unlocked(within: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """Each abandoned folder, with a descriptor that keeps it locked."""
    for place in within or (tempfile.gettempdir(),):
        with os.scandir(place) as entries:
            names = [entry.path for entry in entries if entry.name.startswith(PREFIX)]
        for path in names:
            with suppress(OSError):
                if os.lstat(path).st_uid == os.geteuid() and (lock := _lock(path)) >= 0:
                    yield path, lock


def _lock(path: str) -> int:
    """Lock a folder; the descriptor that keeps it so, or -1 where another has it, or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    mine = False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.path.samestat(os.fstat(fd), os.lstat(path))
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if not mine:
            os.close(fd)
    return fd if mine else -1


def _open_up(path: str) -> None:
    """Make the folders below removable: an overlay's work folder, for one, has no permissions at all."""
    for folder, names, _ in os.walk(path):
        for name in names:
            inner = os.path.join(folder, name)
            if not os.path.islink(inner):
                with suppress(OSError):
                    os.chmod(inner, 0o700)
