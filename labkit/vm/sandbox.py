"""What a virtual machine's own program may do to the host: write where it must, and nowhere else.

User Mode Linux keeps the guest's root from no file of the caller's: with hostfs mounted once more, without `ro`, the
guest writes as the caller. So the program is started where there is nothing to write to: in a mount namespace in which
every mount is read-only but the folders shared writable and the machine's own. It has too few capabilities to change
that, and cannot get more. In a PID namespace of its own, moreover, it sees no other process of the host, and when its
first process dies, the kernel kills all the others (pid_namespaces(7)).

Root needs CAP_SYS_ADMIN for it. Anybody else needs a user namespace (user_namespaces(7)) with one user in it, the
caller: files of others then seem to belong to `nobody`. A system may forbid both; `possible` tells.
"""

import contextlib
import os
from dataclasses import dataclass

from labkit import constants as c
from labkit import syscalls

# CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER and FSETID: root's rights over files, which hostfs passes on.
_OVER_FILES = 0b11111


@dataclass(frozen=True)
class Confinement:
    """Where a confined program may write, and where its memory goes."""

    writable: list[str]
    memory: str  # an empty folder below a writable one; gets a tmpfs of its own
    memory_mib: int
    unconfined_memory: str  # the folder to use if that cannot be


def enter_namespaces() -> None:
    """Have the caller's next child be the first process of a new PID namespace, and able to call `confine`."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        syscalls.unshare(c.CLONE_NEWPID)
        return
    syscalls.unshare(c.CLONE_NEWUSER | c.CLONE_NEWPID)
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{file}", "w") as setting:
            setting.write(text)


def confine(plan: Confinement) -> None:
    """Leave the calling process no place to write to but those planned, for good."""
    syscalls.unshare(c.CLONE_NEWNS)
    syscalls.mount_setattr(c.AT_FDCWD, "/", c.AT_RECURSIVE, propagation=c.MS_PRIVATE)
    # Copies made before keep the flags that they and the mounts below them have; made writable after, all would be.
    copies = [syscalls.open_tree(c.AT_FDCWD, path, c.OPEN_TREE_CLONE | c.AT_RECURSIVE) for path in plan.writable]
    syscalls.mount_setattr(c.AT_FDCWD, "/", c.AT_RECURSIVE, attr_set=c.MOUNT_ATTR_RDONLY | c.MOUNT_ATTR_NODEV)
    for copy, path in zip(copies, plan.writable, strict=True):
        syscalls.mount_setattr(copy, "", c.AT_EMPTY_PATH | c.AT_RECURSIVE, attr_set=c.MOUNT_ATTR_NODEV)
        syscalls.move_mount(copy, "", c.AT_FDCWD, path, c.MOVE_MOUNT_F_EMPTY_PATH)
        os.close(copy)
    room = plan.memory_mib + 16  # the file has a little more than the memory in it
    syscalls.mount("tmpfs", plan.memory, "tmpfs", c.MS_NOSUID | c.MS_NODEV, f"mode=0700,size={room}m")
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    kept = _OVER_FILES & syscalls.capget()[1]
    syscalls.capset(kept, kept, 0)


def possible(plan: Confinement) -> bool:
    """Whether this user may do all that here, found by doing it in a child and a child of that."""
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(OSError):
            enter_namespaces()
            child = os.fork()
            if child == 0:
                with contextlib.suppress(OSError):
                    confine(plan)
                    os._exit(0)
                os._exit(1)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 1)
        os._exit(1)
    return os.waitpid(pid, 0)[1] == 0
