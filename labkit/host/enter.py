"""Moving into the lab host: namespaces of its own, in which the caller is root and the machine is out of reach.

Sources: namespaces(7), user_namespaces(7), mount_namespaces(7).
"""

import os

from labkit import constants as c
from labkit import syscalls
from labkit.host import cgroup, messages
from labkit.kernel import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

HOST_NAME = "labhost"
ANSWER_BYTES = 1024
_CAP_SYS_ADMIN = 1 << 21


def enter(control: "socket.socket") -> "tuple[cgroup.HostGroup | None, tuple[str, str]]":
    """Move into the namespaces of a new lab host: mount, network, IPC, UTS, cgroup; and user, if not privileged.

    Who is who in the user namespace is written from outside: the caller at the other end of `control` is asked to.
    Its mounts are slaves of the machine's: what the machine mounts appears here, and nothing done here appears there.
    Among themselves they are shared, as systemd leaves a machine's, so that a lab can show what sharing does.
    Returns its control group; where it has none, None and why.
    """
    if not syscalls.capget()[0] & _CAP_SYS_ADMIN:
        syscalls.unshare(c.CLONE_NEWUSER)
        control.send(record.dumps(messages.MapIds()))
        if not control.recv(ANSWER_BYTES):
            os._exit(1)  # the caller could not, or has gone
        if os.getuid():
            # Root is another user than the caller. The kernel has this process closed to that user, "not dumpable", and
            # so has it: children open themselves (`labkit.process.worker`), keeper and zygote stay out of their reach.
            os.setresgid(0, 0, 0)
            os.setgroups([])
            os.setresuid(0, 0, 0)
    group, lack = cgroup.make()
    try:
        syscalls.unshare(c.CLONE_NEWNS | c.CLONE_NEWNET | c.CLONE_NEWIPC | c.CLONE_NEWUTS | c.CLONE_NEWCGROUP)
        syscalls.mount(None, "/", None, c.MS_REC | c.MS_SLAVE)
        syscalls.mount(None, "/", None, c.MS_REC | c.MS_SHARED)
        if group:
            group.mount()
        syscalls.sethostname(HOST_NAME)
        syscalls.set_interface_up("lo")
    except OSError:
        if group:
            group.end()
        raise
    return group, lack
