"""Where a process has its root, and what still leads it back to the old one: for lab 07's escape and pivot_root.

All of it is seen from outside: by device and inode of /proc/PID/root, by mountinfo, and by the mount that a working
directory or a descriptor lies on.
"""

import os
import stat
from contextlib import suppress
from pathlib import Path

from labkit import namespaces, procfs
from labkit.course.exercises.common.mount_stand_in import StandIn
from labkit.course.framework.outcomes import NotYet, Verdict
from labkit.process import Child


def place(pid: int, link: str) -> str:
    """Where the "root" or "cwd" of a process lies, as a path of ours."""
    return os.readlink(f"/proc/{pid}/{link}")


def identity(pid: int, link: str) -> tuple[int, int]:
    """Which folder a process has as its "root" or "cwd": no path says that for sure, device and inode do."""
    return folder_id(f"/proc/{pid}/{link}/.")


def folder_id(path: str | Path) -> tuple[int, int]:
    """What identifies a folder, whatever path leads to it: device and inode."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def host_changed(town: StandIn, child: Child) -> Verdict | None:
    """What has happened to the mounts that the process came from."""
    own = namespaces.inode(child.pid, "mnt") != namespaces.inode(town.pid, "mnt")
    if not own and (town.leaked() or town.lost() or town.no_longer_shared()):
        return NotYet(
            f"Process {child.pid} is in mnt:[{namespaces.inode(child.pid, 'mnt')}], the lab host's own mount "
            "namespace: what you changed, you changed for every process there.",
            "Which call gives a process a list of mounts of its own, before it changes any?",
        )
    if leaked := town.leaked():
        return NotYet(
            f"Your mount on `{leaked[0].mount_point}` leaked: the lab host has it too.",
            "The mount namespace is a copy, and its mounts are still shared with those they were copied from. What "
            "cures that, and when must it be done? (Lab 06.)",
        )
    return None


def not_the_root(child: Child, witness: Child, folder: tuple[int, int]) -> Verdict | None:
    """Whether the folder is the root, of the process and of its whole mount namespace."""
    if identity(child.pid, "root") != folder:
        return NotYet(
            f"The root of process {child.pid} is not your folder; it is `{place(child.pid, 'root')}`, as its mount "
            "namespace has it.",
            "Which call exchanges the root mount of a mount namespace?",
        )
    if identity(witness.pid, "root") != folder:
        return NotYet(
            "The process has your folder as its root, but its mount namespace has not: a process that joins it still "
            f"finds the old root, with {len(procfs.mountinfo(witness.pid))} mounts.",
            "That is what chroot does, and you have walked out of it above. Which call changes the root of the *mount "
            "namespace*?",
        )
    return None


def trace_in_mounts(town: StandIn, witness: Child) -> Verdict | None:
    """Mounts of the lab host that the namespace still holds."""
    places = town.places()
    old = [one for one in procfs.mountinfo(witness.pid) if (one.device, one.root) in places]
    if not old:
        return None
    return NotYet(
        f"The old root is still there: `{old[0].mount_point}` and {len(old) - 1} more mounts of the lab host can be "
        "reached in the new one.",
        "pivot_root *moves* the old root, to where its second argument says. What must be done with it there? It is in "
        "use, and has mounts below it: which flag of `umount2` does not mind?",
    )


def trace_in_process(pid: int) -> Verdict | None:
    """The references that a process itself holds: its working directory, and open folders."""
    here = {one.mount_id for one in procfs.mountinfo(pid)}
    if _mount_id(f"/proc/{pid}/cwd") not in here:
        return NotYet(
            "The mounts are gone, but the process's working directory is still a folder of the old root: "
            "`os.listdir('.')` shows the lab host's files.",
            "A working directory keeps what it stands in, mounted or not. Which call moves it into the new root?",
        )
    for number in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{number}"
        with suppress(OSError):
            if stat.S_ISDIR(os.stat(path).st_mode) and _mount_id(path) not in here:
                return NotYet(
                    f"Descriptor {number} of the process is still open on a folder of the old root: "
                    f"`os.fchdir({number})` "
                    "leads out.",
                    "A descriptor keeps what it was opened on. Who opened it, and who should close it?",
                )
    return None


def _mount_id(path: str) -> int:
    """Which mount a path of /proc leads to; for a folder that no longer is in any tree, one that is in no list."""
    fd = os.open(path, os.O_PATH)
    try:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    finally:
        os.close(fd)
    return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
