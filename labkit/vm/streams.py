"""Many streams of bytes, both ways, over one line between the host and the guest.

A microVM made without privileges has no network card that leads anywhere. What every kind has is one serial line.
So the command's stdin, stdout and stderr and each forwarded TCP connection travel over that line side by side. Both
ends run this module, and it is the same at both ends.

The line carries frames: one byte of kind, four of stream number, four of length, then that many bytes::

    MESSAGE  a JSON object for the other end's program: "ready", "start", "connect", "exit", ...
    DATA     bytes of a stream
    END      this stream has no more bytes in this direction (end of file)
    STOP     nobody reads this stream any more; the sender may close its source (a pipe's SIGPIPE)
    CREDIT   the receiver has passed on that many bytes of this stream, and takes as many more
    READ     the receiver has read that many bytes of the line itself

CREDIT is what keeps the streams apart: a sender has at most WINDOW bytes of a stream under way, so that a reader who
stops reading (a pager, a browser tab asleep) holds up its own stream and no other. READ is for a line that loses its
way when the receiver is slow: `unread_limit` is how many bytes may be under way on it in all.
"""

import contextlib
import json
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

STDIN, STDOUT, STDERR = 0, 1, 2
FIRST_CONNECTION = 16

WINDOW = 1 << 18
_CHUNK = 1 << 15
_BACKLOG = 1 << 20  # no source is read while more than this waits for the line
_HEADER = struct.Struct("!BII")
_MESSAGE, _DATA, _END, _STOP, _CREDIT, _READ = range(6)
_COUNT = struct.Struct("!I")


class Stream:
    """One end of one stream. `source` is a descriptor to send from, `sink` one to write to, or a function."""

    def __init__(
        self,
        number: int,
        source: int | None,
        sink: "int | Callable[[bytes], object] | None",
        on_end: "Callable[[], object] | None",
        on_done: "Callable[[], object] | None",
    ) -> None:
        self.number = number
        self.source = source
        self.sink = sink
        self.on_end = on_end  # the other end sent its last byte, and it has been passed on
        self.on_done = on_done  # both directions are over
        self.credit = WINDOW
        self.pending = bytearray()
        self.ending = False  # END has come; it takes effect once `pending` is written


class Streams:
    """One end of the line `fd`. `on_message` gets each JSON object that the other end's program sends."""

    def __init__(
        self,
        fd: int,
        on_message: "Callable[[dict[str, Any]], None]",
        *,
        unread_limit: int | None = None,
        tell_read: bool = False,
    ) -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self._unread = 0  # bytes written to the line that the other end has not said to have read
        self._unread_limit = unread_limit
        self._tell_read = tell_read
        self.closed = False
        self._on_message = on_message
        self._streams: dict[int, Stream] = {}
        self._inbox = bytearray()
        self._outbox = bytearray()

    def attach(
        self,
        number: int,
        *,
        source: int | None = None,
        sink: "int | Callable[[bytes], object] | None" = None,
        on_end: "Callable[[], object] | None" = None,
        on_done: "Callable[[], object] | None" = None,
    ) -> None:
        """Tie stream `number` to a local descriptor to read from, one to write to (or a function), or both."""
        self._streams[number] = Stream(number, source, sink, on_end, on_done)

    def send(self, message: "dict[str, Any]") -> None:
        """Send a JSON object to the other end's program; it keeps its place among the streams' bytes."""
        self._frame(_MESSAGE, 0, json.dumps(message).encode())

    def reject(self, number: int) -> None:
        """Say that nothing is, or will be, attached to stream `number` here."""
        self._frame(_STOP, number)
        self._frame(_END, number)

    def sending(self, *numbers: int) -> bool:
        """Whether one of these streams still has a source here, or bytes wait for the line."""
        sources = any(n in self._streams and self._streams[n].source is not None for n in numbers)
        return not self.closed and (sources or bool(self._outbox))

    def step(self, timeout_s: float | None, watch: "tuple[int, ...]" = ()) -> list[int]:
        """Wait until something can move, and move it. Returns those of the descriptors `watch` that can be read."""
        poll = select.poll()
        wanted: dict[int, int] = dict.fromkeys(watch, select.POLLIN)

        def want(fd: int, event: int) -> None:
            wanted[fd] = wanted.get(fd, 0) | event

        want(self.fd, select.POLLIN | (select.POLLOUT if self._outbox and self._room() else 0))
        for stream in self._streams.values():
            if stream.source is not None and stream.credit and len(self._outbox) < _BACKLOG:
                want(stream.source, select.POLLIN)
            if isinstance(stream.sink, int) and stream.pending:
                want(stream.sink, select.POLLOUT)
        for fd, events in wanted.items():
            poll.register(fd, events)
        ready = dict(poll.poll(None if timeout_s is None else max(0, int(timeout_s * 1000))))

        readable, writable = (
            ~select.POLLOUT,
            ~select.POLLIN,
        )  # POLLHUP and POLLERR show at the next read or write
        for stream in list(self._streams.values()):
            if stream.pending and ready.get(stream.sink, 0) & writable:  # type: ignore[arg-type]
                self._write(stream)
            if stream.source is not None and stream.credit and ready.get(stream.source, 0) & readable:
                self._read(stream)
        if ready.get(self.fd, 0) & readable:
            self._receive()
        self._flush()
        return [fd for fd in watch if fd in ready]

    # Towards the line

    def _frame(self, kind: int, number: int, payload: bytes = b"") -> None:
        self._outbox += _HEADER.pack(kind, number, len(payload)) + payload

    def _read(self, stream: Stream) -> None:
        assert stream.source is not None
        try:
            data = os.read(stream.source, min(_CHUNK, stream.credit))
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a connection that was reset, a terminal whose last user left (EIO)
        if data:
            stream.credit -= len(data)
            self._frame(_DATA, stream.number, data)
        else:
            stream.source = None
            self._frame(_END, stream.number)
            self._finish(stream)

    def _room(self) -> int:
        return _CHUNK if self._unread_limit is None else self._unread_limit - self._unread

    def _flush(self) -> None:
        try:
            while self._outbox and (room := self._room()):
                written = os.write(self.fd, self._outbox[:room])
                del self._outbox[:written]
                if self._unread_limit is not None:
                    self._unread += written
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True
            self._outbox.clear()

    # From the line

    def _receive(self) -> None:
        try:
            data = os.read(self.fd, 1 << 17)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.closed = True
        self._inbox += data
        if self._tell_read:
            self._frame(_READ, 0, _COUNT.pack(len(data)))
        at = 0
        while len(self._inbox) - at >= _HEADER.size:
            kind, number, length = _HEADER.unpack_from(self._inbox, at)
            body = at + _HEADER.size
            if len(self._inbox) < body + length:
                break
            at = body + length
            self._dispatch(kind, number, bytes(self._inbox[body:at]))
        del self._inbox[:at]

    def _dispatch(self, kind: int, number: int, payload: bytes) -> None:
        if kind == _MESSAGE:
            self._on_message(json.loads(payload))
            return
        if kind == _READ:
            self._unread -= _COUNT.unpack(payload)[0]
            return
        stream = self._streams.get(number)
        if stream is None:  # it ended here while this was under way
            return
        if kind == _DATA:
            if callable(stream.sink):
                stream.sink(payload)
                self._frame(_CREDIT, number, _COUNT.pack(len(payload)))
            elif stream.sink is not None:
                stream.pending += payload
        elif kind == _CREDIT:
            stream.credit += _COUNT.unpack(payload)[0]
        elif kind == _STOP:
            stream.source = None
            self._finish(stream)
        elif kind == _END:
            stream.ending = True
            self._end(stream)

    def _write(self, stream: Stream) -> None:
        assert isinstance(stream.sink, int)
        try:
            # No more than PIPE_BUF at once: then a pipe that poll calls writable never blocks.
            written = os.write(stream.sink, stream.pending[: select.PIPE_BUF])
        except BlockingIOError:
            return
        except OSError:
            stream.sink, written = None, 0
            stream.pending.clear()
            stream.ending = True
            self._frame(_STOP, stream.number)
        if written:
            del stream.pending[:written]
            self._frame(_CREDIT, stream.number, _COUNT.pack(written))
        self._end(stream)

    def _end(self, stream: Stream) -> None:
        if stream.ending and not stream.pending:
            if stream.on_end:
                with contextlib.suppress(OSError):
                    stream.on_end()
                stream.on_end = None
            stream.sink = None
            self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        if stream.source is None and stream.sink is None and stream.number in self._streams:
            del self._streams[stream.number]
            if stream.on_done:
                stream.on_done()
