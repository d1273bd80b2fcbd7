"""Network namespaces made ahead of time.

A new network namespace is the dearest part of a container: the kernel registers dozens of subsystems with it, and waits
for the lock that the clean-up of the one before still holds. So the keeper, which has nothing else to do, makes a few
with their loopback up and hands them to the zygote as descriptors; a container's child joins one with setns(2). Each is
used once. When none is ready the child makes its own.

The two talk over a socket: a byte from the zygote asks for one more, a message with a descriptor brings it.
"""

import os
import socket
from contextlib import suppress

from labkit import constants as c
from labkit import syscalls
from labkit.kernel import netns, scm_rights

COUNT = 4


def make(sock: socket.socket, home: int, proc: int) -> bool:
    """The keeper's side: make what the zygote has asked for; False once the zygote has closed its end.

    `home` is a descriptor of the network namespace to return to, `proc` an open /proc.
    """
    try:
        asked = sock.recv(64)
    except ConnectionResetError:
        return False
    for _ in asked:
        try:
            syscalls.unshare(c.CLONE_NEWNET)
            netns.begin(proc)
            made = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            break  # a limit is reached; the child that tries for itself reports it
        finally:
            syscalls.setns(home, c.CLONE_NEWNET)
        try:
            scm_rights.send(sock, b"n", [made])
        except (BrokenPipeError, ConnectionResetError):
            return False
        finally:
            os.close(made)
    return bool(asked)


class NetnsPool:
    """The zygote's side."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._wanted = COUNT  # how many to ask for next
        self._used = False

    def take(self) -> int | None:
        """A descriptor of a fresh network namespace, which the caller closes; None where none is ready."""
        self._used = True
        try:
            _, fds = scm_rights.receive(self._sock, 1, 1, socket.MSG_DONTWAIT)
        except (BlockingIOError, ConnectionResetError):
            fds = []
        self._wanted += len(fds)
        if self._wanted > COUNT // 2:
            self.ask()
        return fds[0] if fds else None

    def ask(self) -> None:
        """Have used ones replaced. At a quiet moment for choice: making one keeps kernel locks that a start needs."""
        if self._used and self._wanted:
            with suppress(BrokenPipeError, ConnectionResetError):
                self._sock.send(b"." * self._wanted, socket.MSG_NOSIGNAL)
            self._wanted = 0
