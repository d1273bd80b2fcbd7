"""A folder on the lab host in which overlays can keep their changes, whatever machine this is.

An upper layer needs a file system that can hold one. A container's own files lie on an overlay, and on that one no
other can keep changes; and in a user namespace the file system must have `user.` attributes, which tmpfs has since
Linux 6.6. So it is tried: first a tmpfs, which is also quick and goes with the lab host, then the folder as it is.
"""

import os
import shutil
from contextlib import suppress

from labkit import overlay, procfs, syscalls, temporary
from labkit.constants import MNT_DETACH
from labkit.errors import InvalidConfig, Unsupported
from labkit.overlay import Overlay
from labkit.process import run_in_child

SIZE = "400m"
_CAP_SYS_ADMIN = 1 << 21


class Workshop:
    """Such a folder, at `path` as every process on the lab host sees it, until `cleanup()` or the notebook's end."""

    def __init__(self) -> None:
        """Make one. `Unsupported`: no overlay can keep changes on this machine."""
        self._folder = temporary.Folder()
        self.path = self._folder.name
        try:
            run_in_child(make_room, self.path)
        except BaseException:
            self._folder.cleanup()
            raise

    def fresh(self, name: str) -> str:
        """An empty folder of that name in it; what an earlier run of the cell left there, mounts too, is taken away."""
        return run_in_child(_fresh, os.path.join(self.path, name))

    def cleanup(self) -> None:
        """Remove it, once the lab host with its mounts is gone. Twice is as good as once."""
        self._folder.cleanup()


def make_room(folder: str) -> None:
    """Have `folder` lie where an overlay can keep changes, in the calling process's mount namespace. `Unsupported`."""
    syscalls.mount("tmpfs", folder, "tmpfs", 0, f"size={SIZE},mode=0755")
    try:
        _try(folder)
    except OSError:
        syscalls.umount2(folder, MNT_DETACH)
    else:
        return
    try:
        _try(folder)
    except OSError as error:
        raise Unsupported(
            f"no overlay can keep changes here ({os.strerror(error.errno or 0)})",
            "load the module (sudo modprobe overlay), set TMPDIR to a folder of another file system, or run the labs "
            "in the VM: ./lab --vm",
        ) from None


def _try(folder: str) -> None:
    """Mount an overlay, and do in it what asks the most of its upper layer: exchange a folder for a new one."""
    trial = os.path.join(folder, ".trial")
    lower, upper, work, merged = (os.path.join(trial, name) for name in ("lower", "upper", "work", "merged"))
    for one in (lower, upper, work, merged):
        os.makedirs(one)
    try:
        os.mkdir(os.path.join(lower, "folder"))
        overlay.mount(Overlay([lower], upper, work), merged)
        try:
            os.rmdir(os.path.join(merged, "folder"))
            os.mkdir(os.path.join(merged, "folder"))
        finally:
            syscalls.umount2(merged, MNT_DETACH)
    except InvalidConfig as error:
        raise OSError(22, str(error)) from None  # it lies on an overlay: a file system that will not do
    finally:
        shutil.rmtree(trial)


def _fresh(path: str) -> str:
    for mount in reversed(procfs.mountinfo()):
        if mount.mount_point.startswith(f"{path}/"):
            with suppress(OSError):
                syscalls.umount2(mount.mount_point, MNT_DETACH)
    if os.path.isdir(path):
        shutil.rmtree(path)
    os.mkdir(path)
    return path


def marks() -> str:
    """What an overlay's options must end with here. On the lab host of an ordinary user its marks are `user.`
    attributes, since only the machine's root may write `trusted.` ones."""
    with open("/proc/self/uid_map") as file:
        in_first = file.read().split() == ["0", "0", "4294967295"]
    return "" if in_first and syscalls.capget()[0] & _CAP_SYS_ADMIN else ",userxattr"
