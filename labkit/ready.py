"""Network namespaces made ahead of time.

A new network namespace is the dearest part of a container: the kernel registers dozens of subsystems with it, and waits
for the lock that the clean-up of the one before still holds. So the keeper, which has nothing else to do, makes a few
with their loopback up and hands them to the zygote as descriptors; a container's child joins one with setns(2). Each is
used once. When none is ready the child makes its own.

The two talk over a socket: a byte from the zygote asks for one more, a message with a descriptor brings it.
"""

import os
import socket

from labkit import constants as c
from labkit import syscalls

COUNT = 4


def make(sock: socket.socket, home: int) -> bool:
    """The keeper's side: make what the zygote has asked for; False once the zygote has closed its end.

    `home` is a descriptor of the network namespace to return to.
    """
    try:
        asked = sock.recv(64)
    except ConnectionResetError:
        return False
    for _ in asked:
        try:
            syscalls.unshare(c.CLONE_NEWNET)
            syscalls.set_interface_up("lo")
            made = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            break  # a limit is reached; the child that tries for itself reports it
        finally:
            syscalls.setns(home, c.CLONE_NEWNET)
        try:
            socket.send_fds(sock, [b"n"], [made], socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            return False
        finally:
            os.close(made)
    return bool(asked)


class Ready:
    """The zygote's side."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._asked = False

    def take(self) -> int | None:
        """A descriptor of a fresh network namespace, which the caller closes; None where none is ready."""
        try:
            if not self._asked:
                self._asked = True
                self._sock.send(b"." * COUNT, socket.MSG_NOSIGNAL)
                return None
            _, fds, _, _ = socket.recv_fds(self._sock, 1, 1, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
            if fds:
                self._sock.send(b".", socket.MSG_NOSIGNAL)
                return fds[0]
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass
        return None
