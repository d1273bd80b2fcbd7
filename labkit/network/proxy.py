"""The process that stands between a published port and an endpoint: it accepts outside and connects inside.

::

    client ── 127.0.0.1:8080 ──▶ relay ──── 10.88.0.2:80 ──▶ the endpoint's server
              (the machine's             (from the lab host's
               network namespace)         network namespace)

A socket stays with the network namespace it was made in, and the caller made the listening ones on the real machine:
this process, on the lab host, may accept from them though no interface connects the two. It has one thread and one
epoll for all connections, and copies bytes both ways. The end of one direction is passed on alone (shutdown(2)): many
protocols say "that was my request" so. An error is passed on as an error, so that nobody takes half an answer for all.

Forked from the zygote, which imports this module: hence only light imports. Sources: epoll(7), tcp(7), connect(2).
"""

import errno
import os
import resource
import select
import signal
import socket
import struct
import traceback

from labkit import constants as c
from labkit import syscalls
from labkit.host.zygote import plain_signals_in_child
from labkit.kernel.record import Record
from labkit.launch.pending import Started

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

BUFFER_BYTES = 64 * 1024  # of each direction of a connection: who reads slowly holds up only who writes to them
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset, not an orderly end
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class ProxySpec(Record):
    """For each listening socket, in their order, the (address, port) to connect to."""

    targets: "list[tuple[str, int]]"


def start(spec: ProxySpec, fds: "dict[str, int]", networks: object) -> Started:
    """Fork a proxy that accepts on the sockets `fds`; return it. Runs in the zygote."""
    listeners = list(fds.values())
    zygote_pid = os.getpid()
    pid = os.fork()
    if pid:
        return Started(pid, os.pidfd_open(pid), leaves_orphans=False)
    try:
        syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)  # else it would listen for ever, were all its guards killed
        if os.getppid() != zygote_pid:
            os._exit(1)
        plain_signals_in_child()
        os.setsid()
        # First above all numbers in use, then down to 3, 4, ...: dup2 must not close what is still needed.
        above = [_above(fd, max(listeners) + 1) for fd in listeners]
        mine = [os.dup2(fd, number, inheritable=False) for number, fd in enumerate(above, start=3)]
        syscalls.close_range(3 + len(mine))
        with open("/proc/self/comm", "w") as comm:
            comm.write("labkit-relay")
        _allow_many_descriptors()
        Relay(mine, spec.targets).serve()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _above(fd: int, lowest: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


def _allow_many_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Side:
    """One socket of a connection, and what is on its way to it."""

    __slots__ = ("connected", "ended", "interest", "other", "sock", "waiting")

    def __init__(self, sock: socket.socket, connected: bool) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what was written apart is passed on apart
        self.sock = sock
        self.connected = connected
        self.ended = False  # it has said that it will send no more
        self.waiting = bytearray()  # read from the other side, not yet written to this one
        self.interest = 0  # what epoll watches for
        self.other: Side


class Relay:
    """All connections of all listening sockets."""

    def __init__(self, listeners: list[int], targets: list[tuple[str, int]]) -> None:
        self.poll = select.epoll()
        self.listeners = {}
        for fd, target in zip(listeners, targets, strict=True):
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            self.listeners[fd] = (sock, tuple(target))
        self.sides: dict[int, Side] = {}
        self.listening = False
        self._listen(True)

    def serve(self) -> "NoReturn":
        """Serve until killed, which is how a relay ends."""
        while True:
            for fd, events in self.poll.poll():
                if fd in self.listeners:
                    self._accept(*self.listeners[fd])
                elif side := self.sides.get(fd):  # else it was closed earlier in this very turn
                    self._turn(side, events)

    def _listen(self, on: bool) -> None:
        """With no descriptor left for another connection, leave those who come in the queue until one ends."""
        if on is not self.listening:
            self.listening = on
            for fd in self.listeners:
                self.poll.register(fd, select.EPOLLIN) if on else self.poll.unregister(fd)

    def _accept(self, listener: socket.socket, target: "Any") -> None:
        try:
            client, _ = listener.accept()
        except OSError as error:
            if error.errno in _NO_DESCRIPTORS:
                self._listen(False)
            return  # else: that client has left the queue already
        try:
            server = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            self._listen(False)
            _reset(client)
            return
        near, far = Side(client, True), Side(server, False)
        near.other, far.other = far, near
        self.sides[client.fileno()], self.sides[server.fileno()] = near, far
        try:
            server.connect(target)
        except BlockingIOError:
            pass  # under way
        except OSError:
            self._abort(near)
            return
        self._watch(near)
        self._watch(far)

    def _turn(self, side: Side, events: int) -> None:
        try:
            if not side.connected:
                if number := side.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(number, os.strerror(number))
                side.connected = True
            if events & select.EPOLLERR:
                raise ConnectionResetError
            if events & (select.EPOLLIN | select.EPOLLHUP) and side.interest & select.EPOLLIN:
                self._read(side)
            if events & select.EPOLLOUT:
                self._write(side)
        except BlockingIOError:
            pass
        except OSError:
            self._abort(side)
            return
        if side.ended and side.other.ended and not side.waiting and not side.other.waiting:
            self._close(side)
        else:
            self._watch(side)
            self._watch(side.other)

    def _read(self, side: Side) -> None:
        data = side.sock.recv(BUFFER_BYTES)
        if data:
            side.other.waiting += data
        else:
            side.ended = True
        if side.other.connected:
            self._write(side.other)  # most often there is room at once

    def _write(self, side: Side) -> None:
        try:
            while side.waiting:
                del side.waiting[: side.sock.send(side.waiting, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            return
        if side.other.ended:
            side.sock.shutdown(socket.SHUT_WR)

    def _watch(self, side: Side) -> None:
        """Watch a socket for what can be dealt with now, and for nothing else: epoll would not stop telling."""
        wanted = 0
        if not side.ended and len(side.other.waiting) < BUFFER_BYTES and side.connected:
            wanted |= select.EPOLLIN
        if side.waiting or not side.connected:
            wanted |= select.EPOLLOUT
        if wanted == side.interest:
            return
        fd = side.sock.fileno()
        if not wanted:
            self.poll.unregister(fd)  # a hang-up is told even to those who ask for nothing
        elif not side.interest:
            self.poll.register(fd, wanted)
        else:
            self.poll.modify(fd, wanted)
        side.interest = wanted

    def _abort(self, side: Side) -> None:
        """One side has failed, and the other shall know that it was not an orderly end."""
        self._close(side, _reset)

    def _close(self, side: Side, how: "Any" = socket.socket.close) -> None:
        for one in (side, side.other):
            if self.sides.pop(one.sock.fileno(), None):
                how(one.sock)
        self._listen(True)


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
