"""A child that runs beside the zygote and waits for it: for the maps of its user namespace, and for mounts.

`labkit.launch.launcher` draws the two.
"""

import errno
import os
import signal
import socket

from labkit import constants as c
from labkit import idmap, syscalls
from labkit.kernel import reaping, scm_rights
from labkit.launch.joiner import START_SECONDS
from labkit.launch.pending import Started, Wait
from labkit.launch.steps import InitProgram
from labkit.program import DiedBeforeExecve, how_it_ended

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from labkit.launch.joiner import NamespaceJoiner
    from labkit.program import Value


class ParentSync:
    """A child that runs beside the zygote, and waits for it."""

    def __init__(self, written: InitProgram) -> None:
        self.written = written
        self.pid = 0

    def go(
        self,
        parameters: "list[tuple[Value, int]]",
        cgroup_fd: int | None,
        joiner: "NamespaceJoiner | None",
        leaves_orphans: bool,
    ) -> "Generator[Wait, bool, Started]":
        """Begin it and do the parent's part; return it once it has executed its command, or waits to be started."""
        sync, status = yield from self._begin(parameters, cgroup_fd, joiner)
        try:
            if self.written.maps:
                uid_map, gid_map = self.written.maps
                idmap.write(self.pid, idmap.IdMap.parse(uid_map), idmap.IdMap.parse(gid_map))
            _send(sync, copied_mounts(self.pid, self.written.sources))
            if not (yield Wait(status, START_SECONDS, lambda: (self.pid,))):
                raise OSError(errno.ETIMEDOUT, f"it was held up for {START_SECONDS:.0f} s")
            created = os.read(status, 1) == b"c"
            if failed := self.written.program.failure():
                raise failed
            if not created and not self.written.program.came_to_execve():
                raise DiedBeforeExecve
        except BaseException as error:
            os.close(status)
            if self.pid not in reaping.early:
                os.kill(self.pid, signal.SIGKILL)
            ended = reaping.status_of(self.pid)
            os.close(self.pidfd)
            if isinstance(error, DiedBeforeExecve):
                raise DiedBeforeExecve(how_it_ended(ended)) from None
            raise
        finally:
            sync.close()
        if created:
            return Started(self.pid, self.pidfd, leaves_orphans, (status,))
        os.close(status)
        return Started(self.pid, self.pidfd, leaves_orphans)

    def _begin(
        self, parameters: "list[tuple[Value, int]]", cgroup_fd: int | None, joiner: "NamespaceJoiner | None"
    ) -> "Generator[Wait, bool, tuple[socket.socket, int]]":
        """Fork it; return where it hears, and where it says how far it has come."""
        written = self.written
        sync, childs_sync = socket.socketpair()
        status, childs_status = os.pipe2(os.O_CLOEXEC)
        try:
            parameters = [
                *parameters,
                (written.parameters["sync"], childs_sync.fileno()),
                (written.parameters["status"], childs_status),
            ]
            if joiner:
                self.pid, self.pidfd = yield from joiner.clone(written.flags, parameters, cgroup_fd, asleep=False)
            else:
                self.pid, self.pidfd = written.program.clone(written.flags, parameters, cgroup_fd, asleep=False)
        except BaseException:
            os.close(status)
            sync.close()
            raise
        finally:
            childs_sync.close()
            os.close(childs_status)
        return sync, status


def _send(sync: socket.socket, mounts: list[int]) -> None:
    """Let it go on, with `mounts`, which are closed here."""
    try:
        for fd in mounts or [None]:  # type: ignore[list-item]
            scm_rights.send(sync, b"g", [] if fd is None else [fd])
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
