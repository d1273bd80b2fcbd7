"""A child that runs beside the zygote and waits for it: for the maps of its user namespace, and for mounts.

`labkit.container.launch` draws the two.
"""

import errno
import os
import select
import signal
import socket
from contextlib import suppress

from labkit import constants as c
from labkit import idmap, messages, syscalls
from labkit.container.scout import START_SECONDS
from labkit.container.steps import Written
from labkit.program import DiedBeforeExecve, how_it_ended
from labkit.zygote import Started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from labkit.container.scout import Clone
    from labkit.program import Value


class Waiting:
    """A child that runs beside the zygote, and waits for it."""

    def __init__(
        self, written: Written, parameters: "list[tuple[Value, int]]", cgroup_fd: int | None, clone: "Clone"
    ) -> None:
        self.written = written
        self.sync, sync = socket.socketpair()
        self.status, status = os.pipe2(os.O_CLOEXEC)
        try:
            parameters = [
                *parameters,
                (written.parameters["sync"], sync.fileno()),
                (written.parameters["status"], status),
            ]
            self.pid, self.pidfd = clone(written.flags, parameters, cgroup_fd, asleep=False)
        except BaseException:
            os.close(self.status)
            self.sync.close()
            raise
        finally:
            sync.close()
            os.close(status)

    def go(self, leaves_orphans: bool) -> Started:
        """Do the parent's part; return the child once it has executed its command, or waits to be started."""
        message = self.written.message
        try:
            if message["uid_map"]:
                maps = idmap.IdMap.parse(message["uid_map"]), idmap.IdMap.parse(message["gid_map"])
                idmap.write(self.pid, *maps)
            self._send(copied_mounts(self.pid, self.written.sources))
            if not select.select([self.status], [], [], START_SECONDS)[0]:
                raise OSError(errno.ETIMEDOUT, f"it was held up for {START_SECONDS:.0f} s")
            created = os.read(self.status, 1) == b"c"
            if failed := self.written.program.failure():
                raise failed
            if not created and not self.written.program.came_to_execve():
                raise DiedBeforeExecve
        except BaseException as error:
            os.close(self.status)
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            _, status = os.waitpid(self.pid, 0)
            os.close(self.pidfd)
            if isinstance(error, DiedBeforeExecve):
                raise DiedBeforeExecve(how_it_ended(status)) from None
            raise
        finally:
            self.sync.close()
        if created:
            return Started(self.pid, self.pidfd, leaves_orphans, (self.status,))
        os.close(self.status)
        return Started(self.pid, self.pidfd, leaves_orphans)

    def _send(self, mounts: list[int]) -> None:
        try:
            for fd in mounts or [None]:  # type: ignore[list-item]
                messages.send(self.sync, b"g", [] if fd is None else [fd])
        except (BrokenPipeError, ConnectionResetError):
            return  # the child has ended, and the status pipe tells
        finally:
            for fd in mounts:
                os.close(fd)


def copied_mounts(pid: int, sources: "list[tuple[str, bool, bool]]") -> list[int]:
    """Detached copies of mounts, for process `pid`: by the path, with all that is mounted below it or not, and with
    their owners shifted by the user namespace of the process or not. mount_setattr(2): MOUNT_ATTR_IDMAP.
    """
    made: list[int] = []
    user = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for path, recursive, shifted in sources:
            deep = c.AT_RECURSIVE if recursive else 0
            made.append(syscalls.open_tree(c.AT_FDCWD, path, c.OPEN_TREE_CLONE | deep))
            if shifted:
                _shift(made[-1], path, deep, user)
    except BaseException:
        for fd in made:
            os.close(fd)
        raise
    finally:
        os.close(user)
    return made


def _shift(mount: int, path: str, deep: int, user: int) -> None:
    try:
        syscalls.mount_setattr(mount, "", c.AT_EMPTY_PATH | deep, attr_set=c.MOUNT_ATTR_IDMAP, userns_fd=user)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EPERM):
            error.add_note(
                f"The owners of {path} cannot be shifted: that takes root on the real machine, and a file system that "
                "can. Without idmap its files belong to whom they belong."
            )
        raise
