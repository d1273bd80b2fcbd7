"""A container as its caller holds it: created, started, joined, paused, killed."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from labkit import cgroups, namespaces
from labkit import constants as c
from labkit.cgroups import Cgroup
from labkit.cgroups.limits import Limits
from labkit.container import tini
from labkit.container.config import Config, Process
from labkit.container.process import Running
from labkit.container.start_errors import most_telling, start_error
from labkit.container.state import State
from labkit.errors import ChildNotStarted, LabkitError
from labkit.idmap import IdMap
from labkit.kernel import interrupts
from labkit.kernel.nofile import plainly
from labkit.launch import launcher
from labkit.launch.spec import JoinSpec
from labkit.launch.steps import EXECUTING
from labkit.overlay import Overlay
from labkit.overlay import checks as overlay_checks

#: What a further process joins, as flags of setns(2): all but the PID namespace, in which it is born.
_JOINED = {
    "mnt": c.CLONE_NEWNS,
    "uts": c.CLONE_NEWUTS,
    "ipc": c.CLONE_NEWIPC,
    "net": c.CLONE_NEWNET,
    "cgroup": c.CLONE_NEWCGROUP,
}


PIDS_MAX = 512  # unless another limit is asked for: a fork bomb ends there


class Container(Running):
    """A container. As a context manager it is killed, with all its processes, on leaving."""

    what = "container"

    def __init__(
        self, config: Config, *, capture: bool | int = False, stdin: int | bytes | None = None, create: bool = False
    ) -> None:
        """Start it, or with `create` have all set up and the command wait for `start`.

        Raises a `StartError` where that fails; nothing is left then.
        """
        with interrupts.Deferred(), plainly("starting the container"):
            self._make(config, capture, stdin, create)

    def _make(self, config: Config, capture: bool | int, stdin: int | bytes | None, create: bool) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.config = config
        self._start: int | None = None
        self._upper: int | None = None  # held for as long as the container keeps its changes there
        self._named = contextlib.ExitStack()  # its host name is known in its network
        spec = config.spec(init=tini.find() if config.init else "")
        self.group = _group(self.id, config.limits)  #: its control group; None where the machine has none to give
        self._oom_kills = 0
        try:
            with contextlib.ExitStack() as stack:
                descriptors = dict(stack.enter_context(_namespaces(config)))
                descriptors |= stack.enter_context(self._born_in())
                if create:
                    start, self._start = os.pipe2(os.O_CLOEXEC)
                    stack.callback(os.close, start)
                    descriptors["start"] = start
                if isinstance(config.root, Overlay) and config.root.upper is not None:
                    self._upper = overlay_checks.hold(config.root.upper)
                if not isinstance(config.network, str):
                    self._named.enter_context(config.network.host_name(config.host_name))
                Running.__init__(self, config, launcher.start, spec, descriptors, capture=capture, stdin=stdin)
        except BaseException:
            self._end()
            raise

    @property
    def state(self) -> State:
        """What it is doing."""
        if not self.alive:
            return State.STOPPED
        if self._start is not None:
            return State.CREATED
        return State.PAUSED if self.group and self.group.frozen else State.RUNNING

    def start(self) -> None:
        """Have a created container execute its command. `StartError`: it cannot, and the container has ended."""
        if not self.state.can_start or self._start is None:
            raise LabkitError(f"a container that is {self.state} cannot be started; only one that was created can")
        with contextlib.suppress(BrokenPipeError):  # it was killed at this moment, which the status tells
            os.write(self._start, b"s")
        self._close_start()
        (status,) = self._descriptors
        said = b""
        with plainly("starting the container"):
            while chunk := os.read(status, 4096):
                said += chunk
        if said:
            number = most_telling(launcher.errnos(said))
            self.wait()
            failed = ChildNotStarted(EXECUTING, number, os.strerror(number), [])
            raise start_error(self.config, failed) from None

    def exec(
        self, args: list[str], *, capture: bool | int = False, stdin: int | bytes | None = None, **process: Any
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
        spec = JoinSpec(
            process=further.process_spec(self.config.root),
            namespaces=joined | (c.CLONE_NEWUSER if mapped else 0),
            uid_map=str(IdMap(self.config.uid_mappings)) if mapped else "",
        )
        with plainly("starting a process in the container"), self._born_in() as group:
            descriptors = {"container": self.pidfd} | group
            return Running(further, launcher.join, spec, descriptors, capture=capture, stdin=stdin)

    def pause(self) -> None:
        """Freeze every process of it; return when none gets the processor any more. `Unsupported`: it has no group."""
        if not self.state.can_pause:
            raise LabkitError(f"a container that is {self.state} cannot be paused")
        self._groups().freeze()

    def resume(self) -> None:
        """Let the processes of a paused container go on."""
        if not self.state.can_resume:
            raise LabkitError(f"a container that is {self.state} cannot be resumed; only a paused one can")
        self._groups().thaw()

    def kill(self) -> None:
        """Kill it, every process of it, and wait for its end. Twice is as good as once."""
        if self.exit is None and self.group:
            self.group.kill()  # also what shares another PID namespace, or is frozen
        super().kill()

    @property
    def oom_killed(self) -> bool:
        """Whether the kernel has killed a process of it because its memory's limit was reached."""
        return self._oom_kills > 0 or (self.exit is None and self.group is not None and self._count_oom_kills() > 0)

    def _count_oom_kills(self) -> int:
        return (self.group.stats().oom_kills or 0) if self.group else 0

    def _groups(self) -> Cgroup:
        if self.group is None:
            raise cgroups.unsupported() or LabkitError("this container has no control group")
        return self.group

    @contextlib.contextmanager
    def _born_in(self) -> Iterator[dict[str, int]]:
        """A descriptor of its group for a process to be born in, so that nothing runs uncounted; closed on leaving."""
        if self.group is None:
            yield {}
            return
        fd = self.group.open()
        try:
            yield {"cgroup_fd": fd}
        finally:
            os.close(fd)

    def _end_group(self) -> None:
        if self.group is None:
            return
        with contextlib.suppress(FileNotFoundError):  # the lab host was ended, and its groups with it
            self._oom_kills = self._count_oom_kills()
            self.group.kill()
            self.group.remove()
        self.group = None

    def _close_start(self) -> None:
        start, self._start = self._start, None  # first forgotten, so that an interrupt has nobody close it twice
        if start is not None:
            os.close(start)

    def _close_upper(self) -> None:
        upper, self._upper = self._upper, None
        if upper is not None:
            os.close(upper)

    def _end(self) -> None:
        """Undo what was made for it."""
        self._close_start()
        self._close_upper()
        self._end_group()
        self._named.close()

    def _let_go(self) -> None:
        self._end()
        super()._let_go()


_INHERITED = (
    *("env", "cwd", "user", "groups", "umask", "capabilities", "ambient", "no_new_privileges", "rlimits", "seccomp"),
)


def _group(name: str, limits: Limits | None) -> Cgroup | None:
    """The control group of a container. `Unsupported`: limits were asked for, and there are no groups here."""
    if lack := cgroups.unsupported():
        if limits is not None:
            raise lack
        return None
    limits = limits or Limits()
    return cgroups.create(name, replace(limits, pids_max=PIDS_MAX) if limits.pids_max is None else limits)


@contextlib.contextmanager
def _namespaces(config: Config) -> Iterator[dict[str, int]]:
    """Descriptors of the namespaces that `config` joins; closed on leaving."""
    with contextlib.ExitStack() as stack:
        found = {}
        for kind, how in config.namespaces.items():
            if how != "host":
                found[kind] = stack.enter_context(namespaces.opened(kind, how))
        endpoint = getattr(config.network, "netns_fd", None)
        if endpoint is not None:
            found["net"] = endpoint
        yield found
