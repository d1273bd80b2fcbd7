"""A server that runs on the lab host, as whoever started it holds it."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import NoReturn, Self

from labkit import procfs, temporary
from labkit.course.experiments.servers import clients, kinds, place, sockets, trees
from labkit.errors import ChildDied, InvalidConfig, LabkitError
from labkit.process import Child, run_in_child, spawn

PATIENCE_SECONDS = 120.0  # for one that starts: a slow machine takes long


class Server:
    """One running server. `stop()` it, or use it in a `with` statement; at the latest it ends with the lab host."""

    def __init__(self, kind: kinds.Kind, setting: kinds.Setting, data: str | None = None) -> None:
        """Start it and wait until it answers. `LabkitError`: it does not, and why; `Unsupported`: it is not built."""
        tree = trees.find(kind.name)
        self.name = kind.name  #: "file", "database", "web" or "application"
        self.port = setting.port  #: on 127.0.0.1 of the lab host
        self._kind, self._setting = kind, setting
        self._check_port()
        self._home = temporary.Folder()
        self.folder = Path(self._home.name, "folder")  #: all that it has written; to itself this is /srv
        self.log = self.folder / kind.log  #: the file in which it notes what it was asked
        self.errors = self.folder / kind.errors  #: the file in which it says what troubles it
        self._root = os.path.join(self._home.name, "root")
        self._process: Child | None = None
        self._new = True  # whether what it keeps must first be made
        try:
            os.mkdir(self._root)
            self.folder.mkdir()
            kinds.fill(kind, setting, self.folder)
            run_in_child(place.assemble, str(tree), self._root, str(self.folder))
            if data is not None:
                self._new = not run_in_child(place.keep_in, data, f"{self._root}/srv/{kind.data}")
            self._start()
        except BaseException:
            self.stop(at_once=True)
            raise

    @property
    def pid(self) -> int:
        """The PID of the first of its processes, which made the others."""
        assert self._process
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """The PIDs of all its processes at this moment, that of the first one first."""
        return [self.pid, *procfs.descendants(self.pid)]

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.alive

    @property
    def request(self) -> Callable[[], None]:
        """A function that asks it once, and raises where there is no good answer; for a child on the lab host."""
        return partial(clients.probe, self.name, self.port)

    def read_log(self) -> str:
        """What it has noted so far of what it was asked."""
        return self.log.read_text(errors="replace")

    def stop(self, at_once: bool = False) -> None:
        """End it in good order, or `at_once`, and remove its folder. Twice is as good as once."""
        if self._process:
            if not at_once:
                self._process.signal(self._kind.stop)
                with suppress(TimeoutError, ChildDied):
                    self._process.wait(20)
            left = procfs.descendants(self._process.pid) if self._process.alive else []
            self._process.kill()
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, SIGKILL)
        with suppress(LabkitError, OSError):
            run_in_child(place.dismantle, self._root)
        self._home.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "on" if self.alive else "ended; was on"
        return f"<{self.name} server ({self._kind.program}) {state} port {self.port}>"

    def _check_port(self) -> None:
        if not 1024 <= self.port <= 65535:
            raise InvalidConfig(f"a server's port here is from 1024 to 65535, not {self.port}")
        if owner := run_in_child(sockets.owner, self.port):
            raise LabkitError(
                f"the {self.name} server cannot have port {self.port} of the lab host: {owner} listens there. "
                "Stop that, or give another port"
            )

    def _start(self) -> None:
        in_name = os.geteuid() != 0
        if not in_name:
            run_in_child(place.give_to, kinds.UID, f"{self._root}/srv")  # what is mounted in it is seen there
        environment = kinds.environment(self._setting)
        become = partial(place.execute, self._root, environment=environment, errors=str(self.errors), uid=kinds.UID)
        for command in self._kind.before() if self._new else ():
            with self._begin(become, command, in_name) as first:
                if first.wait(PATIENCE_SECONDS):
                    self._failed(f"{os.path.basename(command[0])} ended with exit code {first.wait()}")
        self._process = self._begin(become, self._kind.command(self._setting), in_name)
        trouble = run_in_child(place.wait_until, self.request, self.pid, PATIENCE_SECONDS)
        if trouble:
            self._failed(trouble)
        if self.name == "database" and self._new:
            run_in_child(clients.furnish, self.port)

    def _begin(self, become: Callable[..., object], command: list[str], in_name: bool) -> Child:
        try:
            return spawn(become, command=command, in_name=in_name)
        except ChildDied:  # a program that ends at once cannot be told from a function that did
            self._failed("it has ended")

    def _failed(self, why: str) -> NoReturn:
        said = [line for line in self.errors.read_text(errors="replace").splitlines() if line.strip()]
        last = f"the last line of its log: {said[-1].strip()}" if said else "its log is empty"
        raise LabkitError(f"the {self.name} server ({self._kind.program}) did not come up: {why}; {last}")
