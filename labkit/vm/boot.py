"""One virtual machine from the host's side: start it, give it its command, pass bytes on, end it.

A kind of machine (`labkit.vm.uml`, `labkit.vm.qemu`) is a module with NAME, CHANNEL, BOOT_TIMEOUT_S and four
functions: `check()`, `image()`, `prepare(boot)` and `share(path, number)`. All the rest is the same for every kind,
and is here.
"""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from labkit.errors import LabkitError
from labkit.vm import guardian, guest_init, streams
from labkit.vm.sandbox import Confinement


class TimedOut(LabkitError):
    """The machine did not come up, or its command did not end, in the time it was given. Nothing of it is left."""


class MachineDied(LabkitError):
    """The machine ended, and its command had not."""


@dataclass(frozen=True)
class Share:
    """A mount the guest makes: mount(2)'s source, target, type and data."""

    path: str
    source: str
    type: str
    data: str


@dataclass
class Boot:
    """What a kind needs to know to boot a machine, and what it answers for the guest to know."""

    folder: Path  # of this machine alone; removed at its end
    init: Path  # the guest's first program
    memory_mib: int
    writable: Sequence[Path]
    channel_fd: int  # the machine's end of the line
    modules: list[str] = field(default_factory=list)  # kernel modules for the guest to load
    module_tree: str = ""  # where all of them are
    confinement: Confinement | None = None  # for the machine's program


class Kind(Protocol):
    NAME: str
    CHANNEL: str  # the device of the line in the guest
    UNREAD_LIMIT: int | None  # how many bytes the line holds before it fails, if it does
    BOOT_TIMEOUT_S: float

    def check(self) -> None: ...
    def image(self, *, fetch: bool = False) -> Path | None: ...
    def prepare(self, boot: Boot) -> list[str]: ...
    def share(self, path: Path, number: int) -> Share: ...


class Machine:
    """A virtual machine from its start to its end; a context manager, at whose end nothing of it is left."""

    def __init__(self, kind: Kind, memory_mib: int, writable: Sequence[Path]) -> None:
        self.kind = kind
        self.exit_code: int | None = None
        self.ready = self.started = False
        self._error: str | None = None
        self._listeners: dict[int, tuple[socket.socket, int]] = {}
        self._connections = streams.FIRST_CONNECTION

        try:
            guardian.remove_abandoned(tempfile.gettempdir())
            self._folder = Path(tempfile.mkdtemp(prefix=guardian.PREFIX))
            self._lock = guardian.lock(str(self._folder))
        except OSError as error:
            raise LabkitError(f"the virtual machine has no folder for temporary files: {error}; set TMPDIR") from error
        try:
            self._boot(memory_mib, writable)
        except OSError as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise LabkitError(f"the virtual machine could not be started: {error}") from error
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def _boot(self, memory_mib: int, writable: Sequence[Path]) -> None:
        init = self._folder / "init"
        if re.search(r"\s", str(init)):
            raise LabkitError(
                f"the folder for temporary files, {init.parent.parent}, has a space in its name; set TMPDIR"
            )
        init.write_text(guest_init.init_script(self.kind.CHANNEL))
        init.chmod(0o755)
        ours, theirs = socket.socketpair()
        self._line_socket = ours
        with theirs:
            self.boot = Boot(self._folder, init, memory_mib, writable, theirs.fileno())
            program = self.kind.prepare(self.boot)
            argv = guardian.command(str(self._folder), program, self.boot.confinement)
            self._console = (self._folder / "console").open("w+b")  # read even when the folder is gone
            self._keeper = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=self._console,
                stderr=self._console,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the caller, who then ends the machine in order
                cwd="/",
            )
        self.line = streams.Streams(ours.fileno(), self._on_message, unread_limit=self.kind.UNREAD_LIMIT)

    def __enter__(self) -> "Machine":
        return self

    def __exit__(self, *_: object) -> None:
        for listener, _port in self._listeners.values():
            listener.close()
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()  # the keeper reads end of file, kills the machine, and removes the folder
        self._keeper.wait()
        if self._keeper.returncode < 0:
            guardian.remove(str(self._folder))
        self._line_socket.close()
        self._console.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def listen(self, listener: socket.socket, guest_port: int) -> None:
        """Carry each connection that `listener` gets to the guest's 127.0.0.1:guest_port."""
        self._listeners[listener.fileno()] = (listener, guest_port)

    def step(self, timeout_s: float) -> None:
        """Move bytes; raise MachineDied if there is no machine any more."""
        for fd in self.line.step(timeout_s, tuple(self._listeners)):
            self._accept(*self._listeners[fd])
        if self._error:
            raise LabkitError(f"the virtual machine could not be set up: {self._error}")
        if self.exit_code is None and (self.line.closed or self._keeper.poll() is not None):
            why = self.last_words()
            if (self._keeper.returncode or 0) < 0:
                why = f": signal {-self._keeper.returncode} ended the process that kept it"
            raise MachineDied(f"the virtual machine ended before its command did{why}")

    def _accept(self, listener: socket.socket, guest_port: int) -> None:
        connection, _address = listener.accept()
        connection.setblocking(False)
        number, self._connections = self._connections, self._connections + 1
        fd = connection.fileno()
        self.line.attach(
            number,
            source=fd,
            sink=fd,
            on_end=lambda: connection.shutdown(socket.SHUT_WR),
            on_done=connection.close,
        )
        self.line.send({"connect": number, "port": guest_port})

    def _on_message(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self.ready = True
        elif "started" in message:
            self.started = True
        elif "exit" in message:
            self.exit_code = message["exit"]
        elif "error" in message:
            self._error = message["error"]

    def last_words(self) -> str:
        """The reason, from the kernel's messages and the machine program's own."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(1)
        lines = [line.strip() for line in self.console().splitlines() if line.strip()]
        panic = next((at for at, line in enumerate(lines) if "Kernel panic - not syncing" in line), None)
        if panic is None:
            return f": {lines[-1]}" if lines else ""
        # What a program said before, or the kernel as an error, tells more than the panic. The kernel's own lines begin
        # with a time in brackets, or with a level: printk, KERN_EMERG to KERN_ERR.
        kernels = re.compile(r"\[ *\d+\.\d+\]|<[4-7]>|kmsg_dump:$")
        said = [re.sub(r"^<[0-3]>", "", line) for line in lines[:panic] if not kernels.match(line)]
        reason = lines[panic].partition("not syncing: ")[2]
        return f": the kernel stopped ({reason})" + (f" after it said: {said[-1]}" if said else "")

    def console(self) -> str:
        """What the kernel wrote to its console so far."""
        size = os.fstat(self._console.fileno()).st_size
        return os.pread(self._console.fileno(), size, 0).decode(errors="replace")
