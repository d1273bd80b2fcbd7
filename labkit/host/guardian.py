"""The keeper: a process that waits for the end of zygote or caller, and then sees to it that nothing of theirs is left.

It is the zygote's parent, and its guard: see `labkit.host.zygote`, where the two are drawn.
"""

import os
import select
import signal
import time
from contextlib import suppress

from labkit import procfs
from labkit.host import netns_pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import NoReturn

    from labkit.host import cgroup


def watch(keeper: int, group: "cgroup.HostGroup | None", proc: int) -> "NoReturn":
    """The guard: wait for the process `keeper` to end, and then see to it that nothing is left, as the keeper has.

    It is needed where keeper and zygote were killed together, and has nothing to do elsewhere.
    """
    try:
        with suppress(ChildProcessError):
            while os.wait()[0] != keeper:
                pass
    finally:
        kill_descendants(proc)
        if group:
            group.end()
        os._exit(0)


def keep(
    zygote: int, caller: int, guard: int, asked: "socket.socket", group: "cgroup.HostGroup | None", proc: int
) -> "NoReturn":
    """The keeper: wait for the zygote or the caller to end; then see to it that nothing of theirs is left.

    `zygote`, `caller` and `guard` are pidfds, `proc` an open /proc. Meanwhile network namespaces are made ahead of
    time, for who asks at `asked` (`labkit.host.netns_pool`).
    """
    try:
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        poll = select.poll()
        for fd in (zygote, caller, guard, asked.fileno()):
            poll.register(fd, select.POLLIN)
        while not (events := {fd for fd, _ in poll.poll()}) & {zygote, caller, guard}:
            if not netns_pool.make(asked, home, proc):
                poll.unregister(asked.fileno())  # the zygote is ending
        if caller in events and zygote not in events:
            ended = select.poll()
            ended.register(zygote, select.POLLIN)
            ended.poll(2000)  # the zygote has seen the caller end too, and cleans up by itself
    finally:
        kill_descendants(proc)
        if group:
            group.end()
        os._exit(0)


def kill_descendants(proc: int, timeout: float = 5.0) -> None:
    """Kill every child of this process, and, since it is a subreaper, every child's child that falls to it then.

    `proc` is an open /proc; what lies at that path may be anything by now.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for pid in procfs.children(os.getpid(), proc):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            # Reap one, to learn of its children; a process in uninterruptible sleep must not hold us for ever.
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.0005)
        except ChildProcessError:
            return
