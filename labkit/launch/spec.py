"""What the launcher is asked to start: every value as the kernel takes it, checked by whoever made the record.

Names are those of the OCI runtime specification, config.md, where it has them. Capability sets are bit masks
(`labkit.capabilities.mask`), `env` are texts "NAME=value" in their order, duplicates included.
"""

from labkit.kernel.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from labkit.mounts.plan import Step


class ProcessSpec(Record):
    """A command and the powers that it has."""

    args: "tuple[str, ...]"
    env: "tuple[str, ...]" = ()
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: "tuple[int, ...]" = ()
    umask: int = 0o022
    bounding: int = 0
    effective: int = 0
    permitted: int = 0
    inheritable: int = 0
    ambient: int = 0
    no_new_privileges: bool = True
    rlimits: "tuple[tuple[int, int, int], ...]" = ()  #: number, soft and hard limit; setrlimit(2)
    oom_score_adj: "int | None" = None
    seccomp: bytes = b""  #: a filter as a program in BPF; empty for none
    terminal: bool = False
    terminal_size: "tuple[int, int] | None" = None  #: columns, lines
    console_node: str = ""  #: where the terminal is bound to
    init: str = ""  #: a program of the machine that becomes PID 1 in the command's place, and starts it
    dies_with_parent: bool = True  #: whether it is killed when its parent ends; PR_SET_PDEATHSIG


class ContainerSpec(Record):
    """A container: its first process, its root, its namespaces."""

    process: ProcessSpec
    root: "str | tuple[object, ...]"  #: a folder, or `Overlay.message()`
    readonly: bool = False
    hostname: str = ""
    domainname: str = ""
    plan: "tuple[Step, ...]" = ()
    sysctl: "tuple[tuple[str, str], ...]" = ()
    shared: "tuple[str, ...]" = ()  #: the kinds of namespaces that it shares with its parent
    uid_map: str = ""  #: as in /proc/PID/uid_map; empty: no user namespace of its own
    gid_map: str = ""
    idmap_root: bool = False
    time_offsets: "tuple[tuple[str, int], ...]" = ()
    network: str = "none"  #: "none", "host", or "endpoint"


class JoinSpec(Record):
    """A further process in a container that runs."""

    process: ProcessSpec
    namespaces: int  #: that it joins, as CLONE_NEW* flags; in the PID namespace it is born
    uid_map: str = ""  #: of the container's user namespace; empty: it has none
