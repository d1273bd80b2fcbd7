"""A computer that stays: it boots once, and can then be asked, typed to, looked at and killed.

    with vm.start(memory_mib=256) as guest:
        guest.run("uname -r").output        # a command, its output and its exit code
        guest.pid                           # the whole computer is this one process
        guest.type("ls\\n")                  # as on its keyboard; what follows is in guest.console()

Unlike in the machines of `vm.run` there is nothing of the host's in it: a kernel, busybox, and memory
(`labkit.vm.initramfs`). It has no disk and no network. What ends it: leaving the block, `close()`, `kill()`, the end of
the calling process however that comes (`labkit.vm.guardian`), and `end_all`.
"""

import base64
import binascii
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from labkit import procfs
from labkit.errors import InvalidConfig, LabkitError
from labkit.vm import guardian, initramfs, kernels, qemu
from labkit.vm.boot import MachineDied, TimedOut
from labkit.vm.serial import Serial

PREFIX = guardian.PREFIX + "guest-"
SMALLEST_MIB = 128  # with less, this kernel does not even get as far as a message
LARGEST_MIB = 1 << 16
_END_S = 20.0  # for the keeper to do its work
_GRACE_S = 15.0  # for the answer of a command whose time is up


@dataclass(frozen=True)
class Finished:
    """What a command in the guest wrote (stdout and stderr together), and how it ended."""

    output: str
    exit_code: int


def start(
    kind: str = "qemu",
    *,
    memory_mib: int = 256,
    timeout: float = qemu.BOOT_TIMEOUT_S,
    watch: "Callable[[Computer], object] | None" = None,
) -> "Computer":
    """Boot a computer and return it once it runs its first program. A context manager that ends it.

    kind:        "qemu" is the only one
    memory_mib:  what it has; SMALLEST_MIB at least
    timeout:     seconds that it may take to boot; in software, on a busy machine, half a minute is not unusual
    watch:       is given the computer as soon as it is switched on, to look at its console while it boots

    Raises Unsupported where no such computer can run, TimedOut, MachineDied, InvalidConfig (nothing was started).
    """
    if kind != "qemu":
        raise InvalidConfig(f"there is no kind of computer called {kind!r} that stays, only qemu")
    if not SMALLEST_MIB <= memory_mib <= LARGEST_MIB:
        raise InvalidConfig(
            f"this computer needs {SMALLEST_MIB} MiB of memory at least, not {memory_mib}: its kernel would have no "
            "room to begin"
            if memory_mib < SMALLEST_MIB
            else f"{memory_mib} MiB of memory is more than a computer of the course may have ({LARGEST_MIB})"
        )
    qemu.check()
    return Computer(memory_mib, timeout, watch)


class Computer:
    """A running computer, seen from the host."""

    def __init__(self, memory_mib: int, timeout_s: float, watch: "Callable[[Computer], object] | None" = None) -> None:
        self.memory_mib = memory_mib
        self._asking = threading.Lock()
        self._asked = 0
        self._answers = bytearray()
        self._closed = False
        kernel = kernels.linux(fetch=True)
        assert kernel is not None
        self.kvm: bool = qemu.kvm_works(kernel)  #: whether the processor runs it, or QEMU imitates one
        begun = time.monotonic()
        with contextlib.ExitStack() as undo:
            self._make_folder(undo)
            self._start(kernel, undo)
            undo.callback(self.close)
            if watch is not None:
                watch(self)
            try:
                self._await_ready(begun + timeout_s, timeout_s)
            except OSError as error:
                raise LabkitError(f"the computer could not be started: {error}") from error
            undo.pop_all()
        self.boot_s: float = time.monotonic() - begun  #: from the start of QEMU to the guest's first program

    def _make_folder(self, undo: contextlib.ExitStack) -> None:
        try:
            guardian.remove_abandoned(tempfile.gettempdir())
            self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
            undo.callback(shutil.rmtree, self._folder, ignore_errors=True)
            self._lock = guardian.lock(str(self._folder))
        except OSError as error:
            raise LabkitError(f"the computer has no folder for temporary files: {error}; set TMPDIR") from error

    def _start(self, kernel: kernels.Kernel, undo: contextlib.ExitStack) -> None:
        console, their_console = socket.socketpair()
        self._channel, their_channel = socket.socketpair()
        with their_console, their_channel:
            fds = {"console_fd": their_console.fileno(), "channel_fd": their_channel.fileno()}
            try:
                argv = qemu.computer(kernel, self._folder, self.memory_mib, kvm=self.kvm, **fds)
                self._said = (self._folder / "said").open("w+b")  # by QEMU itself; read even when the folder is gone
                self._keeper = subprocess.Popen(
                    guardian.command(str(self._folder), argv),
                    stdin=subprocess.PIPE,
                    stdout=self._said,
                    stderr=self._said,
                    pass_fds=list(fds.values()),
                    start_new_session=True,  # Ctrl-C is for the caller, who then ends the computer in order
                    cwd="/",
                    env={**os.environ, "HOME": str(self._folder)},  # by which `keeper.remove` knows its processes
                )
            except OSError as error:
                raise LabkitError(f"the computer could not be started: {error}") from error
        self._keeper_fd = os.pidfd_open(self._keeper.pid)
        self._serial = Serial(console)

    def __enter__(self) -> "Computer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<computer of {self.memory_mib} MiB: {f'process {self.pid}' if self.alive else 'ended'}>"

    # Looking at it

    @property
    def pid(self) -> int:
        """QEMU's process on the host. `ProcessLookupError`: it has ended."""
        for child in procfs.children(self._keeper.pid) if self._keeper.poll() is None else []:
            return child
        raise ProcessLookupError("the computer has ended, and its process with it")

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return not self._closed and self._keeper.poll() is None

    def console(self) -> str:
        """What it wrote to its console so far: the kernel's messages, and what was typed and answered."""
        return self._serial.text()

    def type(self, text: str) -> None:
        """Type on its console; `\\n` is the Enter key. The answer appears in `console()`, when it is ready."""
        if not self.alive:
            raise MachineDied("the computer has ended: nobody reads what is typed")
        self._serial.type(text)

    def run(self, command: str, *, timeout: float = 60.0) -> Finished:
        """Run a shell command in the guest and wait for its end; `timeout` seconds, then it is killed.

        Raises TimedOut, and MachineDied where the computer has ended or ends meanwhile.
        """
        if not command.strip() or timeout <= 0:
            raise InvalidConfig("a command for the guest is a line of shell, and its time limit is above 0 seconds")
        with self._asking:
            if not self.alive:
                raise MachineDied("the computer has ended, and runs no commands any more")
            self._asked += 1
            number, seconds = f"g{self._asked}", max(1, round(timeout))
            text = base64.b64encode(command.encode()).decode()
            deadline = time.monotonic() + timeout + _GRACE_S
            self._send(f"{number} {seconds} {text}\n".encode(), deadline)
            while (line := self._line(deadline)) is not None:
                if line.startswith(f"{number} "):  # what stands before it is the answer to an earlier, late command
                    return self._finished(int(line.split()[1]), timeout, deadline)
        raise TimedOut(f"the guest has not answered {timeout + _GRACE_S:.0f} seconds after it was asked")

    def _finished(self, code: int, timeout: float, deadline: float) -> Finished:
        lines = []
        while (line := self._line(deadline)) != ".":
            if line is None:
                raise TimedOut("the guest has not sent all of a command's output")
            lines.append(line)
        try:
            output = base64.b64decode("".join(lines)).decode(errors="replace")
        except binascii.Error:
            raise LabkitError("something else wrote to the line on which the guest answers") from None
        if code == 128 + signal.SIGKILL and time.monotonic() > deadline - _GRACE_S:
            raise TimedOut(f"the command did not end within {timeout:g} seconds, and was killed in the guest")
        return Finished(output, code)

    # Ending it

    def kill(self) -> None:
        """Kill QEMU's process, as `kill -9` in a terminal would, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self, timeout: float = 30.0) -> bool:
        """Wait for the end of QEMU's process, whatever ends it; False: it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(timeout)
            self._serial.finish(5)
        return self._keeper.poll() is not None

    def close(self) -> None:
        """End it; nothing of it is left afterwards. Twice is as good as once."""
        if self._closed:
            return
        self._closed = True
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()  # the keeper reads end of file, kills QEMU, and removes the folder
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(_END_S)
        if self._keeper.returncode is None or self._keeper.returncode < 0:  # somebody has stopped it, or killed it
            guardian.remove(str(self._folder))
            self._keeper.wait()
        self._serial.close()
        self._channel.close()
        self._said.close()
        os.close(self._keeper_fd)
        os.close(self._lock)
        shutil.rmtree(self._folder, ignore_errors=True)

    # The channel

    def _await_ready(self, deadline: float, timeout_s: float) -> None:
        while (line := self._line(deadline)) != initramfs.READY:
            if line is None:
                raise TimedOut(f"the computer did not come up within {timeout_s:.0f} seconds{self._last_words()}")

    def _send(self, data: bytes, deadline: float) -> None:
        waiting = memoryview(data)
        while waiting:
            if not select.select([], [self._channel], [], max(0.0, deadline - time.monotonic()))[1]:
                raise TimedOut("the guest reads no commands any more")
            try:
                waiting = waiting[self._channel.send(waiting, socket.MSG_DONTWAIT) :]
            except (BrokenPipeError, ConnectionResetError):
                raise MachineDied(f"the computer ended before its command did{self._last_words()}") from None

    def _line(self, deadline: float) -> str | None:
        """The next line from the guest; None once it is too late. MachineDied: there is no guest any more."""
        while b"\n" not in self._answers:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._channel.fileno(), self._keeper_fd], [], [], left)[0]:
                return None
            data = b""
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                data = self._channel.recv(1 << 16, socket.MSG_DONTWAIT)
            if not data:
                raise MachineDied(f"the computer ended{self._last_words()}")
            self._answers += data
        line, _, self._answers = self._answers.partition(b"\n")
        return line.decode(errors="replace").strip()

    def _last_words(self) -> str:
        """The reason, from QEMU's own messages and from the console."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(1)
        said = os.pread(self._said.fileno(), 1 << 16, 0).decode(errors="replace").strip().splitlines()
        lines = [line.strip() for line in self.console().splitlines() if line.strip()]
        panic = [line.partition("not syncing: ")[2] for line in lines if "Kernel panic - not syncing" in line]
        if panic:
            return f": its kernel stopped ({panic[-1]})"
        if said:
            return f": {said[-1]}"
        return f"; the last line on its console: {lines[-1]}" if lines else "; its console stayed empty"


def end_all(parent: str) -> int:
    """End every computer of this user, whoever started it, with folders in `parent`; return how many."""
    ended = 0
    for entry in os.scandir(parent):
        with contextlib.suppress(OSError):
            if entry.name.startswith(PREFIX) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                guardian.remove(entry.path)
                ended += 1
    return ended
