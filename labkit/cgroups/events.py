"""What happens to a control group, waited for and not polled: an OOM kill, its last process gone, pressure.

The kernel wakes who polls a group's `*.events` file for POLLPRI when a line in it changes (cgroup-v2.rst), and a
`*.pressure` file that a threshold was written to when tasks were stalled for so long (PSI,
Documentation/accounting/psi.rst). That the group itself is gone is told by inotify(7), on the one above. One epoll
descriptor stands for all of them.
"""

import os
import select
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple, Self

from labkit import constants as c
from labkit import syscalls
from labkit.errors import InvalidConfig, Unsupported

# Of each file, its name in the events where the line's own would not say what it is.
_FILES = {"cgroup.events": "{}", "memory.events": "{}", "pids.events": "pids_{}"}
_STATES = ("populated", "frozen")  # lines that are 0 or 1; the others count
_RESOURCES = ("cpu", "memory", "io")
_ABOVE = "the group above"


class Event(NamedTuple):
    """One thing that happened.

    `name` is "populated" or "frozen", with `value` 0 or 1; a line of memory.events ("low", "high", "max", "oom",
    "oom_kill", "oom_group_kill") or "pids_max" (a fork was refused), with how often by now; "cpu_pressure",
    "memory_pressure" or "io_pressure", with 1; or "removed", with 1, the last one.
    """

    name: str
    value: int


@dataclass(frozen=True)
class Pressure:
    """A threshold: within `window_usec`, tasks were stalled for want of `resource` for `stall_usec` together.

    `every_task` counts only while all tasks are stalled at once ("full"), else while some are. A window is 500,000 to
    10,000,000 µs long; without CAP_SYS_RESOURCE on the machine, whole seconds of two or more (Linux 6.4).
    """

    resource: str
    stall_usec: int
    window_usec: int = 2_000_000
    every_task: bool = False

    def __post_init__(self) -> None:
        if self.resource not in _RESOURCES:
            raise InvalidConfig(f"there is pressure on {', '.join(_RESOURCES)}, not on {self.resource!r}")
        whole = all(type(number) is int for number in (self.stall_usec, self.window_usec))
        if not whole or not 500_000 <= self.window_usec <= 10_000_000 or not 0 < self.stall_usec <= self.window_usec:
            raise InvalidConfig(
                f"pressure is a stall of 1 µs up to the window, and a window of 500000 to 10000000 µs, not "
                f"{self.stall_usec!r} in {self.window_usec!r}"
            )


class Watch:
    """Events of one group and all below it, from the moment this is made; a context manager.

    `next(timeout)` waits for one; a loop over it ends when the group is removed. `fileno()` can itself be polled.
    """

    def __init__(self, path: str, pressure: Sequence[Pressure] = ()) -> None:
        """Watch the group `path`. `Unsupported`: this kernel does not tell of pressure."""
        self._epoll = select.epoll()
        self._files: dict[int, str] = {}  # by descriptor: the file's name
        self._seen: dict[str, dict[str, int]] = {}
        self._waiting: list[Event] = []
        self._removed = False
        self._path = path
        try:
            for name in _FILES:
                with suppress(FileNotFoundError):  # its controller is not to be had
                    self._add(os.open(f"{path}/{name}", os.O_RDONLY | os.O_CLOEXEC), name)
            if not self._files:
                raise FileNotFoundError(2, "there is no such control group", path)
            self._add(syscalls.watch_directory(os.path.dirname(path), c.IN_DELETE), _ABOVE)
            for threshold in pressure:
                self._add(_trigger(path, threshold), f"{threshold.resource}.pressure")
        except BaseException:
            self.close()
            raise

    def _add(self, fd: int, name: str) -> None:
        self._files[fd] = name
        if name in _FILES:
            self._seen[name] = _lines(fd)  # what a change is measured from
        self._epoll.register(fd, select.EPOLLIN if name == _ABOVE else select.EPOLLPRI)

    def fileno(self) -> int:
        """A descriptor that is readable when `next` has something to look at."""
        return self._epoll.fileno()

    def next(self, timeout: float | None = None) -> Event | None:
        """The next event; None after `timeout` seconds, or when the group has been removed and that has been told."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._waiting and not self._removed:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            for fd, happened in self._epoll.poll(left):
                self._look(fd, happened)
            if left == 0:
                break
        return self._waiting.pop(0) if self._waiting else None

    def wait_for(self, name: str, timeout: float | None = None) -> Event | None:
        """The next event called `name`, letting others go by; None as with `next`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while event := self.next(None if deadline is None else max(0.0, deadline - time.monotonic())):
            if event.name == name:
                return event
        return None

    def _look(self, fd: int, happened: int) -> None:
        name = self._files.get(fd)
        if name is None or self._removed:
            return
        if name == _ABOVE:
            os.read(fd, 65536)  # a group there has been removed: this one, or another
            if not os.path.exists(self._path):
                self._end()
            return
        if name not in _FILES:
            if happened & select.EPOLLERR:
                self._forget(fd)  # the group is going; the others tell
            else:
                self._waiting.append(Event(name.replace(".", "_"), 1))
            return
        try:
            now = _lines(fd)
        except OSError:  # ENODEV: the file is there no more
            self._end()
            return
        before, self._seen[name] = self._seen[name], now
        for line, value in now.items():
            if value != before.get(line, 0):
                self._waiting.append(Event(_FILES[name].format(line), value))

    def _end(self) -> None:
        self._removed = True
        if self._seen["cgroup.events"].get("populated"):
            self._waiting.append(Event("populated", 0))  # or it could not have been removed
        self._waiting.append(Event("removed", 1))

    def _forget(self, fd: int) -> None:
        self._epoll.unregister(fd)
        del self._files[fd]
        os.close(fd)

    def __iter__(self) -> Iterator[Event]:
        while event := self.next():
            yield event

    def close(self) -> None:
        """Stop watching. Twice is harmless."""
        for fd in tuple(self._files):
            self._forget(fd)
        self._epoll.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lines(fd: int) -> dict[str, int]:
    text = os.pread(fd, 4096, 0).decode()
    return {key: int(value) for key, _, value in (line.partition(" ") for line in text.splitlines())}


def _trigger(path: str, threshold: Pressure) -> int:
    file = f"{path}/{threshold.resource}.pressure"
    kind = "full" if threshold.every_task else "some"
    try:
        fd = os.open(file, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Unsupported(
            "this kernel does not measure pressure (PSI)", "boot it with psi=1, or use QEMU: ./lab vm --kind qemu"
        ) from None
    try:
        os.write(fd, f"{kind} {threshold.stall_usec} {threshold.window_usec}\0".encode())
    except OSError as error:
        os.close(fd)
        mend = "use a window of whole seconds, two or more"
        raise Unsupported(f"a threshold on {file} was refused ({error.strerror})", mend) from None
    return fd
