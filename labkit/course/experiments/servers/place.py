"""Where a server runs: on the lab host, with its root filesystem for root. These functions run in a child there.

The programs come from a tree of the distribution's packages (`rootfs/`), and each names its loader, libraries and
further files by absolute paths. So a server's root is that tree: chroot(2), which moves nothing else. It has the
namespaces, the network and the PIDs of everybody else on the lab host, which is what "bare metal" means in this course.
To call the tree's loader with the tree's libraries would do without; but then every process would be called
ld-linux.so.2, and Python and PostgreSQL would have to be told in ways of their own where their files are.

The root is the tree, read-only; the lab host's /dev; and on /srv the server's own folder.
"""

import os
import select
import shutil
import time
from collections.abc import Callable

from labkit import constants as c
from labkit import idmap, syscalls


def assemble(tree: str, root: str, folder: str) -> None:
    """Mount what the server will see at `root`. The mounts are the lab host's, and end with it."""
    syscalls.mount(tree, root, None, c.MS_BIND)
    syscalls.mount(None, root, None, c.MS_PRIVATE)  # nothing mounted in it appears in the tree itself
    syscalls.mount_setattr(c.AT_FDCWD, root, 0, attr_set=c.MOUNT_ATTR_RDONLY | c.MOUNT_ATTR_NODEV)
    syscalls.mount("/dev", f"{root}/dev", None, c.MS_BIND | c.MS_REC)
    syscalls.mount(folder, f"{root}/srv", None, c.MS_BIND)
    # As peers of the lab host's own, what is unmounted here would be unmounted there: /dev/shm, for one.
    syscalls.mount(None, root, None, c.MS_REC | c.MS_PRIVATE)


def keep_in(data: str, target: str) -> bool:
    """Have what a server keeps in `target` lie in the folder `data`; return whether an earlier one has used that."""
    os.makedirs(target, exist_ok=True)
    if not (used := bool(os.listdir(data))):
        shutil.copytree(target, data, dirs_exist_ok=True)
    syscalls.mount(data, target, None, c.MS_BIND)
    return used


def dismantle(root: str) -> None:
    """Unmount it all."""
    syscalls.umount2(root, c.MNT_DETACH)


def give_to(uid: int, folder: str) -> None:
    """Make everything in `folder` belong to the user and the group `uid`."""
    for where, _, files in os.walk(folder):
        os.chown(where, uid, uid)
        for name in files:
            os.lchown(os.path.join(where, name), uid, uid)


def execute(root: str, command: list[str], environment: dict[str, str], errors: str, uid: int, in_name: bool) -> None:
    """Become the server: the user `uid`, with `root` for root; what it says goes to the file `errors`. Never returns.

    Where it is that user `in_name` only, it is so in a user namespace of its own, in which the lab host's root is
    called `uid`: user_namespaces(7). An ordinary user's lab host does it that way: it may have no other id to give, and
    the files are that user's, and theirs to remove.
    """
    for number, fd in enumerate((os.open("/dev/null", os.O_RDONLY), *[os.open(errors, os.O_WRONLY | os.O_APPEND)] * 2)):
        os.dup2(fd, number)
    os.umask(0o022)
    if in_name:
        syscalls.unshare(c.CLONE_NEWUSER)
        idmap.write(os.getpid(), idmap.IdMap.one(0, uid), idmap.IdMap.one(0, uid))
    os.chroot(root)
    os.chdir("/srv")
    if not in_name:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    os.execve(command[0], command, environment)


def wait_until(answers: Callable[[], object], pid: int, seconds: float) -> str | None:
    """Ask until there is an answer; None then, or else the last reason why not: it has ended, or time is up."""
    deadline = time.monotonic() + seconds
    try:
        pidfd = syscalls.pidfd_open(pid)
    except ProcessLookupError:
        return "it has ended"
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    try:
        while True:
            try:
                answers()
                return None
            except Exception as error:
                reason = str(error) or type(error).__name__
            if time.monotonic() > deadline:
                return f"it has not answered in {seconds:.0f} s ({reason.splitlines()[0]})"
            if ended.poll(50):  # ms
                return "it has ended"
    finally:
        os.close(pidfd)
