"""Whether folders can be layered, looked at before the kernel is asked: it would say EINVAL to nearly all of this."""

import fcntl
import os
import stat

from labkit import constants as c
from labkit import procfs, syscalls
from labkit.errors import InvalidConfig
from labkit.overlay.overlay import Overlay, escaped

_LEFT_IN_WORK = {"work", "index"}  # what the kernel itself leaves there, and clears the next time
_WRITTEN_VOLATILE = ("work", "incompat", "volatile")  # the kernel's mark below it: overlayfs.rst, "Volatile mount"


def check(overlay: Overlay) -> None:
    """Look at the folders as the calling process sees them. `InvalidConfig`: why these cannot be layered."""
    places: dict[tuple[int, int], str] = {}
    for what, path in overlay.folders():
        found = folder(what, path)
        identity = (found.st_dev, found.st_ino)
        if identity in places:
            raise InvalidConfig(f"{what} and {places[identity]} are the same folder, {path}")
        places[identity] = what
    real = {os.path.realpath(path): what for what, path in overlay.folders()}
    for path, what in real.items():
        above = path
        while above != "/":
            above = os.path.dirname(above)
            if above in real:
                raise InvalidConfig(f"{what}, {path}, lies inside {real[above]}, {above}: keep them apart")
    if "/" in real:
        raise InvalidConfig(f"{real['/']} is this machine's own root; an overlay needs a folder of its own")
    if overlay.upper is not None and overlay.work is not None:
        _check_upper(overlay.upper, overlay.work)


def folder(what: str, path: str) -> os.stat_result:
    """Look at one folder. `InvalidConfig`: there is none of that path."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidConfig(f"{what}, {path}, does not exist") from None
    except PermissionError:
        raise InvalidConfig(f"{what}, {path}, may not be looked at by you") from None
    if stat.S_ISLNK(found.st_mode):
        raise InvalidConfig(f"{what}, {path}, is a symbolic link; name the folder it points to")
    if not stat.S_ISDIR(found.st_mode):
        raise InvalidConfig(f"{what}, {path}, is not a folder")
    return found


def _check_upper(upper: str, work: str) -> None:
    if os.stat(upper).st_dev != os.stat(work).st_dev:
        raise InvalidConfig(f"upper, {upper}, and work, {work}, lie on different file systems; put them side by side")
    fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        magic = syscalls.filesystem_magic(fd)
    finally:
        os.close(fd)
    if magic == c.OVERLAYFS_SUPER_MAGIC:
        raise InvalidConfig(
            f"upper, {upper}, lies on an overlay itself, as all files of a container do, and changes cannot be kept "
            "there: use a folder of another file system, such as a tmpfs"
        )
    if os.access(work, os.R_OK):
        found = set(os.listdir(work))
        if found - _LEFT_IN_WORK:
            raise InvalidConfig(f"work, {work}, is not empty, and the kernel clears it: it holds {min(found)!r}")
        if os.path.exists(os.path.join(work, *_WRITTEN_VOLATILE)):
            raise InvalidConfig(f"upper, {upper}, was written without syncing (volatile): begin with a new one")
    # proc_pid_mountinfo(5): what separates the fields and options stands in the text as octal numbers.
    shown = "".join(f"\\{ord(one):03o}" if one in ",= \t\n\\" else one for one in escaped(upper))
    for mount in procfs.mountinfo():
        if mount.filesystem == "overlay" and f"upperdir={shown}" in mount.super_options:
            raise InvalidConfig(f"upper, {upper}, is in use: it is that of the overlay on {mount.mount_point}")


def hold(upper: str) -> int:
    """Have an upper layer for oneself until the descriptor returned is closed. `InvalidConfig`: another one has it.

    The kernel itself only warns in its log when two overlays write to one upper layer, and what they then show is not
    defined. flock(2): it ends with the process at the latest.
    """
    fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise InvalidConfig(f"upper, {upper}, is in use: another container keeps its changes there") from None
    return fd
