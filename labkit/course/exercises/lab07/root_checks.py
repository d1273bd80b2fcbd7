"""What a folder needs to be a root file system: for lab 07's first exercise."""

import os
import stat
from pathlib import Path

from labkit import syscalls
from labkit.constants import RESOLVE_IN_ROOT
from labkit.course.framework.outcomes import NotYet, Verdict

#: What `build` is asked for.
COMMANDS = ("sh", "ls", "cat", "echo", "sleep", "mount", "ps")
FOLDERS = ("dev", "proc", "tmp")

#: The exit codes of a shell whose program was not found, or may not be executed.
NOT_FOUND, NOT_RUNNABLE = 127, 126


def missing(root: Path) -> Verdict | None:
    """What the folder lacks, as seen from a process that has it as its root."""
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        for name in FOLDERS:
            if not _is_folder(fd, name):
                return NotYet(
                    f"Your root has no folder `/{name}`.",
                    "`/proc` and `/dev` are there to be mounted on later, and a mount point must exist before. `/tmp` "
                    "is for everyone. Which call makes a folder?",
                )
        for name in COMMANDS:
            if mistake := _command_missing(root, fd, name):
                return mistake
    finally:
        os.close(fd)
    return None


def _command_missing(root: Path, fd: int, name: str) -> Verdict | None:
    try:
        program = syscalls.openat2(fd, f"bin/{name}", os.O_PATH, resolve=RESOLVE_IN_ROOT)
    except OSError:
        link = Path(root, "bin", name)
        if link.is_symlink():
            return NotYet(
                f"`/bin/{name}` is a link to `{os.readlink(link)}`, and inside your root that leads nowhere.",
                "A link is only a text, looked up by whoever follows it, starting from *their* root. What text leads "
                "from `/bin/sh` to `/bin/busybox`, wherever the root lies?",
            )
        return NotYet(
            f"Your root has no command `/bin/{name}`.",
            "busybox looks at the name it was called by, and does what that command does. It needs a name in `/bin` "
            "for each of COMMANDS.",
        )
    try:
        mode = os.fstat(program).st_mode
    finally:
        os.close(program)
    if not stat.S_ISREG(mode) or not mode & 0o111:
        return NotYet(
            f"`/bin/{name}` leads to a file with the mode `{stat.filemode(mode)}`: nobody may execute it.",
            "The bytes were copied and the permission was not. Which function of `shutil` copies both?",
        )
    return None


def _is_folder(root_fd: int, name: str) -> bool:
    try:
        os.close(syscalls.openat2(root_fd, name, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT))
    except OSError:
        return False
    return True


def size(root: Path) -> str:
    """The bytes of all programs and files below `root`, in words."""
    files = [one for one in root.rglob("*") if one.is_file() and not one.is_symlink()]
    inodes = {one.stat().st_ino: one.stat().st_size for one in files}
    return f"{sum(inodes.values()) / 1e6:.0f} MB"


def chroot_and_execute(root: str, script: str) -> None:
    """In a child: have the shell of `root` run `script`; NOT_FOUND or NOT_RUNNABLE where it cannot be executed."""
    os.chroot(root)
    os.chdir("/")
    try:
        os.execve("/bin/sh", ["sh", "-c", script], {"PATH": "/bin"})
    except FileNotFoundError:
        os._exit(NOT_FOUND)
    except OSError:
        os._exit(NOT_RUNNABLE)
