"""What a container is to be: one frozen, validated description."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any

from labkit import capabilities, rootfs, seccomp
from labkit.cgroups.limits import Limits
from labkit.container import checks, passwd
from labkit.errors import InvalidConfig, Unsupported
from labkit.idmap import IdMap
from labkit.launch.spec import ContainerSpec, ProcessSpec
from labkit.overlay import Overlay
from labkit.overlay import checks as overlay_checks
from labkit.seccomp.profile import Profile

if TYPE_CHECKING:
    from labkit.mounts.plan import Step

DEFAULT_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM": "xterm",
}


@dataclass(frozen=True)
class Process:
    """A command and the powers it has: a container's first process, or a further one. OCI config.md, "Process".

    `args` is the command with its arguments; `env` replaces the default environment, in which HOME is the user's by the
    container's /etc/passwd. `user` is "uid" or "uid:gid" as seen inside, with `groups` besides; `capabilities` are what
    is kept of root's power (Docker's 14 by default) and `ambient` what another user than root keeps of those;
    `no_new_privileges` makes setuid programs powerless; `rlimits` are pairs (soft, hard) by getrlimit(2)'s names,
    "nofile" say, None for no limit. With `terminal` the process has a terminal of its own, of the size
    `terminal_size`: (columns, lines), None for the kernel's 0 x 0.

    `seccomp` is which system calls it may make: "default", as Docker decides for the capabilities that are kept; a
    `labkit.seccomp.Profile`; None for all. A kernel without filters goes without the default one.

    `InvalidConfig` for what makes no sense. `Unsupported`: there is no libseccomp, or no filters for a profile.
    """

    args: Sequence[str]
    _: KW_ONLY
    env: Mapping[str, str] | None = None
    cwd: str = "/"
    user: str | int = "0"
    groups: Sequence[int] = ()
    umask: int = 0o022
    capabilities: Sequence[str] = tuple(capabilities.DEFAULT)
    ambient: Sequence[str] = ()
    no_new_privileges: bool = True
    rlimits: Mapping[str, tuple[int | None, int | None]] = field(default_factory=lambda: {"core": (0, 0)})
    oom_score_adj: int | None = None
    seccomp: str | Profile | None = "default"
    terminal: bool = False
    terminal_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        checks.command(self.args)
        env = self.env or {}
        checks.texts([*self.args, self.cwd, *env, *env.values()])
        checks.environment(env)
        if not self.cwd.startswith("/"):
            raise InvalidConfig(f"the working directory {self.cwd!r} must be an absolute path in the container")
        checks.user(self.user, self.groups, self.umask)
        kept, ambient = capabilities.mask(tuple(self.capabilities)), capabilities.mask(tuple(self.ambient))
        if ambient & ~kept:
            raise InvalidConfig("an ambient capability must be among those that are kept")
        checks.rlimits(self.rlimits)
        checks.whole("oom_score_adj", self.oom_score_adj, -1000, 1000)
        checks.terminal_size(self.terminal_size, self.terminal)
        if self.seccomp not in ("default", None) and not isinstance(self.seccomp, Profile):
            raise InvalidConfig(f'seccomp is "default", a Profile, or None for no filter, not {self.seccomp!r}')

    def process_spec(self, root: str | os.PathLike[str] | Overlay) -> ProcessSpec:
        """This as the launcher takes it; `root` is the container's."""
        uid, gid, groups, umask = checks.user(self.user, self.groups, self.umask)
        bounding, ambient = capabilities.mask(tuple(self.capabilities)), capabilities.mask(tuple(self.ambient))
        held = ambient if uid else bounding  # who is not root has what is ambient, and no more
        return ProcessSpec(
            args=tuple(self.args),
            env=tuple(f"{name}={value}" for name, value in self._variables(root).items()),
            cwd=self.cwd,
            uid=uid,
            gid=gid,
            groups=tuple(groups),
            umask=umask,
            bounding=bounding,
            effective=held,
            permitted=held,
            inheritable=ambient,
            ambient=ambient,
            no_new_privileges=self.no_new_privileges,
            rlimits=tuple(checks.rlimits(self.rlimits)),
            oom_score_adj=self.oom_score_adj,
            seccomp=self._filter(),
            terminal=self.terminal,
            terminal_size=self.terminal_size,
        )

    def _variables(self, root: str | os.PathLike[str] | Overlay) -> dict[str, str]:
        if self.env is not None:
            return dict(self.env)
        uid, *_ = checks.user(self.user, (), 0)
        return DEFAULT_ENV | {"HOME": passwd.home(root, uid) if uid else "/root"}

    def _filter(self) -> bytes:
        """The filter as a program in BPF; empty for none."""
        if self.seccomp is None or not seccomp.available():
            if isinstance(self.seccomp, Profile):
                raise Unsupported("this kernel has no filters for system calls", "leave seccomp out")
            return b""
        if isinstance(self.seccomp, Profile):
            return seccomp.compile_profile(self.seccomp)
        return _default_filter(tuple(self.capabilities))


@functools.cache
def _default_filter(kept: tuple[str, ...]) -> bytes:
    return seccomp.compile_profile(seccomp.default_profile(kept))


@dataclass(frozen=True)
class Config(Process):
    """A container: its first process, the root it sees, and what it shares and does not share. Names are OCI's.

    `root` is a folder of the machine, which `readonly` protects, or an overlay of several: `Overlay.scratch(folder)` is
    one in which each container keeps its changes for itself, and forgets them. `mounts` are further steps after `plan`,
    see `labkit.mounts`; `sysctl` are kernel parameters of its own namespaces.

    A container has new namespaces of the kinds mnt, uts, ipc, pid, net and cgroup. `namespaces` says otherwise, by
    kind: "host" shares the lab host's, a PID or a path joins that one; time and user come on request: with
    `time_offsets` in seconds ("monotonic", "boottime"), and with `uid_mappings` and `gid_mappings`, ranges (inside,
    outside, count). `idmap_root` shows the root's files with their owners shifted alike, where the file system can.

    `network` is "none" (a loopback of its own), "host", or an endpoint of a `labkit.network.Network`. `hostname` is the
    endpoint's name, or "container", unless it is given; in an endpoint's network, and in a root whose changes are kept
    in memory, /etc/hosts has it.

    `limits` are those of its control group; unless they say otherwise it may have 512 processes. Where the machine has
    no groups to give, a container runs without, and limits are refused (`Unsupported`).

    With `init` its PID 1 is a small program that passes signals on and reaps orphans.
    """

    root: str | os.PathLike[str] | Overlay
    _: KW_ONLY
    readonly: bool = False
    hostname: str | None = None
    domainname: str = ""
    plan: tuple[Step, ...] = rootfs.DEFAULT_PLAN
    mounts: tuple[Step, ...] = ()
    sysctl: Mapping[str, str] = field(default_factory=dict)
    namespaces: Mapping[str, str | int] = field(default_factory=dict)
    uid_mappings: Sequence[tuple[int, int, int]] = ()
    gid_mappings: Sequence[tuple[int, int, int]] = ()
    idmap_root: bool = False
    time_offsets: Mapping[str, int] = field(default_factory=dict)
    network: Any = "none"
    limits: Limits | None = None
    init: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.texts([self.host_name, self.domainname])
        checks.hostname(self.host_name, self.domainname)
        # The default plan is known to be right, and is the longest.
        steps = self.mounts if self.plan is rootfs.DEFAULT_PLAN else (*self.plan, *self.mounts)
        checks.steps(steps, mapped=bool(self.uid_mappings))
        checks.namespaces(self.namespaces, self.network, self.uid_mappings)
        checks.sysctls(self.sysctl, self.namespaces, self.network, bool(self.uid_mappings))
        if bool(self.uid_mappings) != bool(self.gid_mappings):
            raise InvalidConfig("a user namespace needs both maps, uid_mappings and gid_mappings")
        if self.uid_mappings:
            checks.mapped_root(IdMap(self.uid_mappings), IdMap(self.gid_mappings), self.user)
        elif self.idmap_root:
            raise InvalidConfig("idmap_root shifts owners by the container's user namespace; give its mappings")
        checks.time_offsets(self.time_offsets)
        if not isinstance(self.limits, Limits | None):
            raise InvalidConfig(
                f"limits are Limits(...), such as Limits(memory_max_bytes=64 << 20), not {self.limits!r}"
            )
        if not isinstance(self.root, Overlay):
            checks.root(os.fspath(self.root))
        elif self.uid_mappings and not self.root.scratch_bytes:
            raise InvalidConfig(
                "in a user namespace of its own a container keeps its changes of an overlay in memory: use "
                "Overlay.scratch(...), a folder, or no uid_mappings"
            )
        else:
            overlay_checks.check(self.root)

    @property
    def host_name(self) -> str:
        """Its host name."""
        return getattr(self.network, "name", "container") if self.hostname is None else self.hostname

    def spec(self, init: str = "") -> ContainerSpec:
        """The same as the launcher takes it; `init` is the program that becomes PID 1, if one does."""
        files = getattr(self.network, "files", {})
        binds = tuple(("bind", source, target, ("ro", "over_link")) for target, source in files.items())
        process = self.process_spec(self.root)
        return ContainerSpec(
            process=process.replace(init=init, console_node="/dev/console" if self.terminal else ""),
            root=self.root.message() if isinstance(self.root, Overlay) else os.path.abspath(self.root),
            readonly=self.readonly,
            hostname=self.host_name,
            domainname=self.domainname,
            plan=(*self.plan, *binds, *self.mounts),
            sysctl=tuple(self.sysctl.items()),
            shared=tuple(kind for kind, how in self.namespaces.items() if how == "host"),
            uid_map=str(IdMap(self.uid_mappings)) if self.uid_mappings else "",
            gid_map=str(IdMap(self.gid_mappings)) if self.gid_mappings else "",
            idmap_root=self.idmap_root,
            time_offsets=tuple(self.time_offsets.items()),
            network=self.network if isinstance(self.network, str) else "endpoint",
        )
