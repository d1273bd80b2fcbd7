"""A container as its caller holds it: created, started, joined, paused, killed."""

import contextlib
import os
import uuid
from typing import Any

from labkit import constants as c
from labkit.container import checks, init, launch
from labkit.container.config import Config, Process
from labkit.container.failure import most_telling, start_error
from labkit.container.running import Running
from labkit.container.state import State
from labkit.container.steps import EXECUTING
from labkit.errors import ChildNotStarted, LabkitError

#: What a further process joins, as flags of setns(2): all but the PID namespace, in which it is born.
_JOINED = {
    "mnt": c.CLONE_NEWNS,
    "uts": c.CLONE_NEWUTS,
    "ipc": c.CLONE_NEWIPC,
    "net": c.CLONE_NEWNET,
    "cgroup": c.CLONE_NEWCGROUP,
}


class Container(Running):
    """A container. As a context manager it is killed, with all its processes, on leaving."""

    what = "container"

    def __init__(
        self, config: Config, *, capture: bool = False, stdin: int | bytes | None = None, create: bool = False
    ) -> None:
        """Start it, or with `create` have all set up and the command wait for `start`.

        Raises a `StartError` where that fails; nothing is left then.
        """
        self.id = uuid.uuid4().hex[:12]
        self.config = config
        self._start: int | None = None
        self._paused = False
        message = config.message()
        if config.init:
            message["init"] = init.find()
        if config.terminal:
            message["console_node"] = "/dev/console"
        with contextlib.ExitStack() as stack:
            descriptors = dict(stack.enter_context(_namespaces(config)))
            if create:
                start, self._start = os.pipe2(os.O_CLOEXEC)
                stack.callback(os.close, start)
                descriptors["start"] = start
            try:
                super().__init__(
                    config,
                    "labkit.container.launch:start",
                    message,
                    descriptors,
                    capture=capture,
                    stdin=stdin,
                )
            except BaseException:
                self._close_start()
                raise

    @property
    def state(self) -> State:
        """What it is doing."""
        if not self.alive:
            return State.STOPPED
        if self._start is not None:
            return State.CREATED
        return State.PAUSED if self._paused else State.RUNNING

    def start(self) -> None:
        """Have a created container execute its command. `StartError`: it cannot, and the container has ended."""
        if not self.state.can_start or self._start is None:
            raise LabkitError(f"a container that is {self.state} cannot be started; only one that was created can")
        os.write(self._start, b"s")
        self._close_start()
        (status,) = self._descriptors
        said = b""
        while chunk := os.read(status, 4096):
            said += chunk
        if said:
            number = most_telling(launch.errnos(said))
            self.wait()
            failed = ChildNotStarted(EXECUTING, number, os.strerror(number), [])
            raise start_error(self.config, failed) from None

    def exec(
        self, args: list[str], *, capture: bool = False, stdin: int | bytes | None = None, **process: Any
    ) -> Running:
        """Start a further process in it; return it once its command has been executed. `**process`: see `Process`.

        It has the environment and powers of the first process, unless told otherwise. `StartError`: it could not be
        started. `LabkitError`: the container does not run.
        """
        if not self.state.can_exec:
            raise LabkitError(f"no process can join a container that is {self.state}")
        inherited = {name: getattr(self.config, name) for name in _INHERITED}
        further = Process(args, **(inherited | process))
        shared = {kind for kind, how in self.config.namespaces.items() if how == "host"}
        if self.config.network == "host":
            shared.add("net")
        joined = sum(flag for kind, flag in _JOINED.items() if kind not in shared)
        mapped = bool(self.config.uid_mappings)
        message = further.process_message() | {
            "joined": joined | (c.CLONE_NEWUSER if mapped else 0),
            "mapped": mapped,
        }
        return Running(
            further,
            "labkit.container.launch:join",
            message,
            {"container": self.pidfd},
            capture=capture,
            stdin=stdin,
        )

    def _close_start(self) -> None:
        if self._start is not None:
            os.close(self._start)
            self._start = None

    def _let_go(self) -> None:
        self._close_start()
        super()._let_go()


_INHERITED = ("env", "cwd", "user", "groups", "umask", "capabilities", "ambient", "no_new_privileges", "rlimits")


@contextlib.contextmanager
def _namespaces(config: Config) -> Any:
    """Descriptors of the namespaces that `config` joins; closed on leaving."""
    with contextlib.ExitStack() as stack:
        found = {}
        for kind, how in config.namespaces.items():
            if how != "host":
                found[kind] = os.open(checks.namespace_path(kind, how), os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, found[kind])
        endpoint = getattr(config.network, "netns_fd", None)
        if endpoint is not None:
            found["net"] = endpoint
        yield found
