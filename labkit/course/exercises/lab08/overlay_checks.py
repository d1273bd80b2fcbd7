"""Overlays as checks look at them: a place to make them in, what they show, and what their layers hold. For lab 08."""

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from labkit import procfs, rootfs, syscalls, temporary
from labkit.constants import MNT_DETACH
from labkit.course.exercises.common.left_behind import read_regular
from labkit.course.exercises.common.mount_stand_in import StandIn
from labkit.course.experiments.overlay_scratch import make_room
from labkit.process import Child

#: What the root of a box begins with, besides busybox: these files and what is in them.
FILES = {"etc/greeting": "hello\n", "etc/motd": "welcome\n", "var/log/old": "old\n", "tmp/.keep": ""}
_COMMANDS = ("sh", "cat", "rm", "echo", "ls")


class Place:
    """A folder in which overlays can keep changes, in a stand-in for the lab host. Only processes there see into it."""

    def __init__(self, town: StandIn, path: str) -> None:
        self.town, self.path = town, path

    def make(self, *names: str) -> list[str]:
        """Empty folders of these names; their paths."""
        return self.town.hand.call(_make, self.path, names)

    def do(self, fn: Any, *args: Any) -> Any:
        """Call a function there."""
        return self.town.hand.call(fn, *args)


@contextmanager
def place() -> Iterator[Place]:
    """A fresh one; all that was mounted or made in it goes at the end. `Unsupported`: this machine has no overlays."""
    with temporary.Folder() as path, StandIn() as town:
        town.hand.call(make_room, path)
        yield Place(town, path)


def _make(above: str, names: tuple[str, ...]) -> list[str]:
    paths = [os.path.join(above, name) for name in names]
    for path in paths:
        os.makedirs(path)
    return paths


def busybox() -> str:
    """The path of the program. `Unsupported`: it has not been built."""
    return str(rootfs.find("busybox") / "bin" / "busybox")


def build_image(folder: str, program: str) -> None:
    """There: make `folder` a small root file system."""
    for name in ("bin", "dev", "proc", "home"):
        os.makedirs(os.path.join(folder, name))
    shutil.copy2(program, os.path.join(folder, "bin", "busybox"))
    for name in _COMMANDS:
        os.symlink("busybox", os.path.join(folder, "bin", name))
    for path, text in FILES.items():
        write(os.path.join(folder, path), text)


def write(path: str, text: str) -> None:
    """There: write a file, and the folders above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str | None:
    """There: what a file holds; None where there is none."""
    found = read_regular(path, 10_000)
    return None if found is None else found.decode(errors="replace")


def kind_of(path: str) -> str:
    """There: what has this name: "nothing", "whiteout", "device 1:3", "file of 5 bytes", "folder", "link"."""
    try:
        found = os.lstat(path)
    except OSError:
        return "nothing"
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        numbers = os.major(found.st_rdev), os.minor(found.st_rdev)
        return "whiteout" if numbers == (0, 0) else f"device {numbers[0]}:{numbers[1]}"
    if stat.S_ISREG(found.st_mode):
        return f"file of {found.st_size} bytes"
    return "folder" if stat.S_ISDIR(found.st_mode) else "link" if stat.S_ISLNK(found.st_mode) else "special file"


def run_in_root(root: str, script: str) -> int:
    """There: have the shell of `root` run `script`, with `root` as its root; its exit code."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            os.chroot(root)
            os.chdir("/")
            null = os.open("/tmp", os.O_RDONLY)
            os.dup2(null, 2)
            os.execve("/bin/sh", ["sh", "-c", script], {"PATH": "/bin"})
        os._exit(127)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def used_bytes(folder: str, without: str = "") -> int:
    """There: the space that a folder takes, in blocks, not counting the folder `without`."""
    total, seen = 0, set()
    for above, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if os.path.join(above, name) != without]
        for name in (*folders, *files):
            found = os.lstat(os.path.join(above, name))
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


def overlays(witness: Child) -> dict[str, dict[str, str]]:
    """The overlays in the mount namespace of `witness`: by mount point, their options."""
    return {
        mount.mount_point: dict(option.partition("=")[::2] for option in mount.super_options)
        for mount in procfs.mountinfo(witness.pid)
        if mount.filesystem == "overlay"
    }


def unmount_below(folder: str) -> None:
    """There: unmount all that lies below a folder."""
    for mount in reversed(procfs.mountinfo()):
        if mount.mount_point.startswith(f"{folder}/"):
            with suppress(OSError):
                syscalls.umount2(mount.mount_point, MNT_DETACH)


def tree_of(folder: str) -> dict[str, tuple[str, object]]:
    """There: everything below a folder, as {path: (kind, contents)}."""
    found: dict[str, tuple[str, object]] = {}
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(above, name)
            mode = os.lstat(path).st_mode
            inside = os.path.relpath(path, folder)
            if stat.S_ISLNK(mode):
                found[inside] = ("link", os.readlink(path))
            elif stat.S_ISDIR(mode):
                found[inside] = ("folder", None)
            elif stat.S_ISREG(mode):
                found[inside] = ("file", read_regular(path, 16 << 20))
            else:
                found[inside] = ("special file", None)
    return found
