"""Looking, from outside, at what a learner's function has left: files that may be anything, mounts that may be other
ones, and words that a program says of itself, which prove nothing unless the kernel says whose they are.
"""

import os
import socket
import stat
import struct
from typing import Self

from labkit import procfs
from labkit.process import Child, spawn_closed

READ_BYTES = 1 << 20


def read_regular(path: str | os.PathLike[str], most: int = READ_BYTES) -> bytes | None:
    """What a regular file holds, `most` bytes at most; None where there is none, or a link, a FIFO, a device ..."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        content = b""
        while len(content) < most and (more := os.read(fd, min(most - len(content), 1 << 16))):
            content += more
        return content
    except OSError:
        return None
    finally:
        os.close(fd)


def mounted(pid: int, path: str) -> str:
    """The type of the file system that process `pid` sees at `path`, where it is a whole one; "" where it is not."""
    here = [one for one in procfs.mountinfo(pid) if one.mount_point == path]
    return here[-1].filesystem if here and here[-1].root == "/" else ""


def loads_more(pid: int) -> bool:
    """Whether the environment of `pid` tells the dynamic linker something that ours does not. ld.so(8)"""
    with open(f"/proc/{pid}/environ", "rb") as file:
        lines = [os.fsdecode(line).partition("=") for line in file.read().split(b"\0")]
    return any(name.startswith("LD_") and os.environ.get(name) != value for name, _, value in lines)


class Ear:
    """A datagram socket with a name that nobody can foresee, to be told something on: by whom, says the kernel.

    The name is an abstract one (unix(7)), so no file system leads to it. `name` is a line of Python's for a program:
    `socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"...", "\\0" + name)`.
    """

    def __init__(self, name: str) -> None:
        self.name = f"labkit-{name}-{os.urandom(6).hex()}"

    def __enter__(self) -> Self:
        self._child: Child = spawn_closed(_listen, self.name)
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()

    def heard(self) -> tuple[bytes, int] | None:
        """The next that was said, and the PID of who said it; None where nothing was."""
        return self._child.call(_hear)


_socket: socket.socket
_CREDENTIALS = struct.Struct("3i")  # PID, user, group


def _listen(name: str) -> None:
    global _socket
    _socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    _socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    _socket.bind(f"\0{name}")


def _hear() -> tuple[bytes, int] | None:
    try:
        data, extra, _, _ = _socket.recvmsg(4096, socket.CMSG_LEN(_CREDENTIALS.size))
    except BlockingIOError:
        return None
    for level, kind, credentials in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return data, _CREDENTIALS.unpack(credentials)[0]
    return data, 0
