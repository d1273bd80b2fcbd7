"""What a box's /dev and /proc must hold, and must not: for lab 07's last exercise."""

import errno
import os
import stat
from typing import Any

from labkit import host, namespaces, procfs
from labkit.course.framework.outcomes import NotYet, Passed, Verdict

#: What `furnish` is asked for: the devices that programs take for granted.
DEVICES = {"null": (1, 3), "zero": (1, 5), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
#: What may be there besides: what container engines put there too.
ALSO_IN_DEV = {"full", "console", "ptmx", "pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "core"}


def mknod_refused(error: PermissionError) -> Verdict | None:
    """What to say where the kernel refused to make a device; None where it was another call that failed."""
    is_the_users_own = namespaces.inode(host.pid(), "user") != namespaces.inode(os.getpid(), "user")
    if not is_the_users_own or error.errno != errno.EPERM or "(" in str(error):
        return None  # a call of labkit.syscalls is named in the text, and explains itself
    return NotYet(
        "The kernel refused a call: operation not permitted. `os.mknod` does that to everybody but the machine's own "
        "root.",
        "The lab host's root is you, in a user namespace, and there nobody may make devices: whoever could, could make "
        "one that opens the disk. How can you show the host's device in a second place instead?",
    )


def look_into(root: str) -> dict[str, dict[str, Any]]:
    """From within the mount namespace: every name in /dev and /proc below `root`. No import may happen here."""
    dev: dict[str, Any] = {}
    for name in os.listdir(f"{root}/dev"):
        found = os.lstat(f"{root}/dev/{name}")
        opens = None
        if name in ("null", "zero", "random", "urandom") and stat.S_ISCHR(found.st_mode):
            try:
                os.close(os.open(f"{root}/dev/{name}", os.O_RDWR))
            except OSError as error:
                opens = error.strerror
        dev[name] = (found.st_mode, (os.major(found.st_rdev), os.minor(found.st_rdev)), found.st_size, opens)
    numbers = {entry: None for entry in os.listdir(f"{root}/proc") if entry.isdigit()}
    return {"dev": dev, "proc": numbers}


def wrong_dev(found: dict[str, Any]) -> Verdict | None:
    """What is not as it should be in /dev; None: nothing."""
    foreign = sorted(
        name
        for name, (mode, _, _, _) in found.items()
        if name not in DEVICES and name not in ALSO_IN_DEV and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode))
    )
    if foreign:
        examples = ", ".join(f"`{name}`" for name in foreign[:4])
        return NotYet(
            f"Your `/dev` has {len(foreign)} devices that no shell needs, among them {examples}.",
            "These are the host's own: with the right one of them a process reads its disk, its memory or its "
            "keyboard. Which devices does `DEVICES` name, and how do you show those only?",
        )
    for name, numbers in DEVICES.items():
        if mistake := _device(name, numbers, found.get(name)):
            return mistake
    return None


def _device(name: str, numbers: tuple[int, int], found: Any) -> Verdict | None:
    if found is None:
        return NotYet(
            f"There is no `/dev/{name}` in your root.",
            "Bind-mounts and `os.mknod` both do. Is it below `root`? (`os.path.join(root, '/dev')` is `/dev`: an "
            "absolute second part replaces the first.)",
        )
    mode, is_numbers, size, opens = found
    if not stat.S_ISCHR(mode):
        return NotYet(
            f"`/dev/{name}` is no device: it is `{stat.filemode(mode)}`, a file of {size} bytes.",
            "An empty file is only the place. What must be mounted on it, or made instead of it, to make it a device?",
        )
    if is_numbers != numbers:
        return NotYet(
            f"`/dev/{name}` is the device {is_numbers[0]}:{is_numbers[1]}, and should be {numbers[0]}:{numbers[1]}.",
            "The pair says which driver answers (major) and which of its devices (minor); the name says nothing. See "
            "`ls -l /dev`, or `DEVICES`.",
        )
    if opens:
        return NotYet(
            f"`/dev/{name}` has the right numbers, and opening it fails: {opens}.",
            "The mount it lies on does not allow devices (`nodev`), as every file system does that was mounted in a "
            "user namespace. Would a bind mount of the host's device help?",
        )
    if mode & 0o666 != 0o666:
        return NotYet(
            f"`/dev/{name}` has the mode `{stat.filemode(mode)}`: not everyone may read and write it.",
            "You asked for a mode, and the umask took bits away from it. Which call sets a mode exactly?",
        )
    return None


def wrong_proc(numbers: dict[str, None], pid: int) -> Verdict | None:
    """Whether /proc lists other processes than those of PID namespace that PID 1, `pid` out here, is in."""
    expected = {str(procfs.nspid(one)[-1]) for one in namespaces.members("pid", namespaces.inode(pid, "pid"))}
    if set(numbers) == expected:
        return None
    if not numbers:
        return NotYet(
            "`/proc` in your root lists no process.",
            "Which file system shows the processes, and where below `root` must it be mounted?",
        )
    return NotYet(
        f"`/proc` in your root lists {len(numbers)} processes: those of the outer PID namespace. The box has "
        f"{len(expected)}.",
        "A bind mount shows the host's procfs a second time, and that one belongs to the host's PID namespace. What "
        "must PID 1 mount instead?",
    )


def furnished(found: dict[str, Any]) -> Passed:
    """What to say when all is right."""
    names = ", ".join(f"`{name}`" for name in sorted(found))
    return Passed(
        f"`/dev` has {names}, each the right driver and open to everyone; `/proc` lists the box's own process only.",
        "A process inside can only use the hardware that has a name inside.",
    )
