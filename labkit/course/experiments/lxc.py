"""LXC on the lab host: the real program, kept away from the machine's own LXC.

`lxc-execute` wants a /run to lock in, a /proc whose process 1 it may ask for its control group, and one kind of
cgroup file system. It gets all three in namespaces of its own; its folders are temporary. Nothing of /var/lib/lxc or
/run/lxc is read or written. lxc-execute(1), lxc.container.conf(5).
"""

import contextlib
import os
from pathlib import Path

from labkit import procfs
from labkit.constants import CLONE_NEWCGROUP, CLONE_NEWNS, CLONE_NEWPID, MNT_DETACH, MS_PRIVATE, MS_REC
from labkit.course.needs import lxc as lack
from labkit.syscalls import mount, umount2, unshare

__all__ = ["execute", "lack", "reason"]

_CGROUP = "/sys/fs/cgroup"


def execute(config: str, command: list[str], folder: str) -> int:
    """In a child on the lab host: run `command` in a container of LXC's with the lines of `config`; its exit code.

    `folder` is where LXC may keep its state and its log. What the container writes to its standard error is not shown:
    LXC writes there too. 125: LXC could not start it; `reason(folder)` says why.
    """
    for name in ("state/box", "mnt"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
    file = Path(folder, "state", "box", "config")
    file.write_text(f"{config}\nlxc.uts.name = box\nlxc.rootfs.mount = {folder}/mnt\n")
    unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWCGROUP)
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return 125 if code == 1 and reason(folder) else code
    try:
        _own_surroundings()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.execvp(
            "lxc-execute",
            f"lxc-execute -P {folder}/state -n box -f {file} -o {folder}/log -l ERROR --".split() + command,
        )
    finally:
        os._exit(126)


def _own_surroundings() -> None:
    """As PID 1 in new mount and cgroup namespaces: a /proc, a /run, and a cgroup2 file system that begin here."""
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    mount("tmpfs", "/run", "tmpfs")
    with contextlib.suppress(OSError):  # what came from a more privileged namespace stays; ours covers it
        while any(one.mount_point == _CGROUP for one in procfs.mountinfo()):
            umount2(_CGROUP, MNT_DETACH)
    with contextlib.suppress(OSError):  # it is that already
        mount("cgroup2", _CGROUP, "cgroup2")


def reason(folder: str) -> str:
    """The last error that LXC has written to its log about the container in `folder`; "" where there is none."""
    with contextlib.suppress(FileNotFoundError):
        for line in reversed(Path(folder, "log").read_text(errors="replace").splitlines()):
            if "Failed to spawn" in line or "Failed to initialize" in line:
                return line.rpartition(" - ")[2]
    return ""
