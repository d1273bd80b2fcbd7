"""What comes back from a child besides a value: its output, passed on live or kept, and how it ended.

The output of a child goes through two pipes of its own: in a notebook, the descriptors 1 and 2 of the calling process
are not the cell's, so its `sys.stdout` and `sys.stderr` are what output is passed on to.
"""

import contextlib
import errno
import os
import select
import signal as signals
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import IO, Protocol

from labkit.host import messages
from labkit.kernel import nofile, record

_PIPE_READ_BYTES = 65536


class HasDescriptor(Protocol):
    """A socket, or anything else that is open."""

    def fileno(self) -> int:
        """Its descriptor."""


class Exit:
    """How a process ended, and what it had used."""

    def __init__(self, status: int, cpu_usec: int = 0, peak_memory_kib: int = 0) -> None:
        self.status = status  #: as wait(2) gives it
        self.cpu_usec = cpu_usec
        self.peak_memory_kib = peak_memory_kib

    @classmethod
    def receive(cls, reply: socket.socket) -> "Exit | None":
        """Read it from a reply socket; None where the lab host has ended, and nobody is there to tell."""
        try:
            message = reply.recv(messages.REPLY_BYTES)
        except ConnectionResetError:
            message = b""
        if not message:
            return None
        ended = record.loads(message)
        return cls(ended.status, ended.cpu_usec, ended.peak_memory_kib)

    @property
    def code(self) -> int:
        """The exit code, or 128 + n where signal n ended the process, as shells have it."""
        code = os.waitstatus_to_exitcode(self.status)
        return 128 - code if code < 0 else code

    def __str__(self) -> str:
        code = os.waitstatus_to_exitcode(self.status)
        return f"was killed by {signals.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


class Output:
    """The two pipes of a child's output, passed on to the caller's `sys.stdout` and `sys.stderr`, or kept.

    `keep` is True to keep all of it, or how many bytes of each are kept; what comes after them is read and dropped.
    """

    def __init__(self, keep: bool | int = False) -> None:
        self._most = None if isinstance(keep, bool) else keep
        self._readers: dict[int, str] = {}
        self._kept: dict[str, bytearray] | None = {"stdout": bytearray(), "stderr": bytearray()} if keep else None
        self._partial: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def writers(self) -> Iterator[list[int]]:
        """The write ends for stdout and stderr, to be handed to the child; closed on leaving."""
        ends: list[int] = []
        try:
            for name in ("stdout", "stderr"):
                reader, writer = os.pipe2(os.O_CLOEXEC)
                self._readers[reader] = name
                ends.append(writer)
                nofile.make_room(writer)
                os.set_blocking(reader, False)
            yield ends
        finally:
            for end in ends:
                os.close(end)

    def follow_terminal(self, fd: int) -> None:
        """Take what comes out of a terminal for stdout; `fd` is a descriptor of its own of the master, closed here."""
        self._readers[fd] = "stdout"
        os.set_blocking(fd, False)

    def kept(self, name: str) -> str:
        """What was kept of "stdout" or "stderr"."""
        return self._kept[name].decode("utf-8", "replace") if self._kept else ""

    def pass_on_until(self, *others: int | HasDescriptor, timeout: float | None = None) -> bool:
        """Pass output on until one of `others` is readable; False where `timeout` seconds went by first."""
        poll = select.poll()
        watched = set()
        for other in others:
            fd = other if isinstance(other, int) else other.fileno()
            watched.add(fd)
            poll.register(fd, select.POLLIN)
        for fd in self._readers:
            poll.register(fd, select.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = [fd for fd, _ in poll.poll(None if left is None else left * 1000)]
            for fd in ready:
                if fd in self._readers and not self._read(fd):
                    poll.unregister(fd)
            if watched & set(ready):
                return True
            if left == 0:
                return False

    def drain(self) -> None:
        """Pass on what is in the pipes now."""
        for fd in tuple(self._readers):
            self._read(fd, until_empty=True)

    def follow(self) -> None:
        """From now on, pass output on from a thread, for a child that lives on."""
        threading.Thread(target=self._follow, name="labkit-output", daemon=True).start()

    def _follow(self) -> None:
        poll = select.poll()
        for fd in tuple(self._readers):
            poll.register(fd, select.POLLIN)
        open_fds = len(self._readers)
        while open_fds:
            for fd, event in poll.poll():
                if event & select.POLLNVAL or not self._read(fd):
                    poll.unregister(fd)
                    open_fds -= 1

    def _read(self, fd: int, until_empty: bool = False) -> bool:
        """Pass on what `fd` has; False at its end."""
        with self._lock:
            while fd in self._readers:
                try:
                    data = os.read(fd, _PIPE_READ_BYTES)
                except BlockingIOError:
                    return True
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    return False  # a terminal whose other end nobody holds any more
                if not data:
                    return False
                self._pass_on(self._readers[fd], data)
                if not until_empty:
                    return True
            return False

    def _pass_on(self, name: str, data: bytes) -> None:
        if self._kept is not None:
            kept = self._kept[name]
            kept += data if self._most is None else data[: max(0, self._most - len(kept))]
            return
        data = self._partial.pop(name, b"") + data
        # A read may end in the middle of a UTF-8 character; its beginning waits for the rest.
        cut = next((i for i in range(1, min(4, len(data)) + 1) if data[-i] & 0xC0 == 0xC0), 0)
        if cut and len(data[-cut:]) < (2 if data[-cut] < 0xE0 else 3 if data[-cut] < 0xF0 else 4):
            self._partial[name], data = data[-cut:], data[:-cut]
        stream: IO[str] = getattr(sys, name)
        stream.write(data.decode("utf-8", "replace"))
        stream.flush()

    def close(self) -> None:
        """Pass on the rest and close the pipes."""
        self.drain()
        with self._lock:
            readers, self._readers = self._readers, {}  # first forgotten, so that nobody closes them twice
            for fd in readers:
                os.close(fd)


def readable(fd: int, timeout: float | None) -> bool:
    """Whether `fd` becomes readable within `timeout` seconds; for a pidfd, whether its process ends. None: wait."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))
