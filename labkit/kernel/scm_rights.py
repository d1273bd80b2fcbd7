"""Messages with descriptors attached, between processes on one machine. unix(7): SCM_RIGHTS.

Python's own `socket.send_fds` and `recv_fds` take flags and do not pass them on (as of 3.11), so MSG_NOSIGNAL,
MSG_DONTWAIT and MSG_CMSG_CLOEXEC would have no effect there.
"""

import array
import errno
import os
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def send(sock: socket.socket, data: bytes, fds: "Iterable[int]" = (), flags: int = 0) -> None:
    """Send one message with copies of the descriptors `fds`. sendmsg(2).

    Where the other end has closed, BrokenPipeError or ConnectionResetError, and no SIGPIPE.
    """
    attached = array.array("i", fds)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, attached)] if attached else []
    sock.sendmsg([data], ancillary, flags | socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, size_bytes: int, count: int, flags: int = 0) -> tuple[bytes, list[int]]:
    """The next message, with at most `count` descriptors, each closed on execve; (b"", []) at the end. recvmsg(2).

    `BlockingIOError`: with MSG_DONTWAIT, there is none now. EMFILE: this process may open no more descriptors; the
    message is lost then.
    """
    fds = array.array("i")
    space = socket.CMSG_SPACE(count * fds.itemsize)
    data, ancillary, received_flags, _ = sock.recvmsg(size_bytes, space, flags | socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if received_flags & socket.MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return data, list(fds)
