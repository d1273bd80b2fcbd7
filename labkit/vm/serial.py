"""The host's end of a serial console: all that the computer wrote, and a way to type.

A thread reads, so that the computer never waits for somebody to look; the last `KEPT_BYTES` are kept.
"""

import contextlib
import re
import select
import socket
import threading

KEPT_BYTES = 1 << 18

# Control sequences for a terminal's cursor and colours (ECMA-48: CSI and OSC), and other control characters.
_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\x00-\x07\x0b-\x1a\x1c-\x1f\x7f]"
)


class Serial:
    """One console. `socket` is this end of it; it ends with the other end, or with `close()`."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._kept = bytearray()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="labkit-vm-console", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """What was written so far, as lines of plain text."""
        with self._lock:
            return plain(self._kept.decode(errors="replace"))

    def type(self, text: str) -> None:
        """Send `text` as if it had been typed. What the computer has no room for within ten seconds is lost."""
        waiting = memoryview(text.encode())
        with contextlib.suppress(OSError):
            while waiting and select.select([], [self._line], [], 10)[1]:
                waiting = waiting[self._line.send(waiting, socket.MSG_DONTWAIT) :]

    def close(self) -> None:
        """End reading, and close this end. Twice is as good as once."""
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._line.close()

    def finish(self, seconds: float) -> None:
        """Wait until all is read, once the other end is closed."""
        self._thread.join(seconds)

    def _read(self) -> None:
        while True:
            try:
                data = self._line.recv(1 << 16)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self._kept += data
                del self._kept[:-KEPT_BYTES]


def plain(text: str) -> str:
    """Terminal output as plain text: without control sequences, with the characters taken back that were erased."""
    text = _SEQUENCE.sub("", text.replace("\r", ""))
    while "\b" in text:
        shorter = re.sub("[^\b\n]\b", "", text)
        text = shorter if shorter != text else text.replace("\b", "")
    return text
