"""What a container's first process does before it is the command: the one list of system calls, in the only order.

::

    begin          session, output; from here on it dies with the zygote
    become root    only in a user namespace: wait until its maps are written, then be uid 0 in it
    namespaces     join those of others, make those that clone3(2) cannot
    root           mounts copied, propagation cut, root filesystem laid out, pivot_root
    host name
    terminal       from the container's own devpts, handed to the caller
    descriptors    closed
    directory      of the command
    powers         limits, groups, user, capabilities
    (created)      only if it is to wait: say so, and wait for the start
    seccomp        last, so that it need not allow any of the above
    execute

The network namespace comes before /sys, which shows the network of whoever mounts it. Mounts come before capabilities
are given up, since mounting takes them. Descriptors are closed before the working directory is chosen, or
/proc/self/fd/N could name one that leads outside (CVE-2024-21626).
"""

import os
import signal
import struct

from labkit import capabilities, mounts, rootfs, seccomp
from labkit import constants as c
from labkit.kernel import netns, nofile
from labkit.launch import parts, terminal
from labkit.launch.adapt import plan_of
from labkit.overlay import Overlay
from labkit.program import Block, Program, Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from labkit.launch.spec import ContainerSpec, JoinSpec, ProcessSpec

EXECUTING = "executing the command"
CHANGING_DIRECTORY = "changing to the working directory"
INIT = "/dev/init"
STATUS_FD, START_FD = 3, 4  # kept until execve, of a child that runs beside its parent
_LAST_DESCRIPTOR = 0xFFFFFFFF
_LONG_SEARCH = 16  # folders in which the command is looked for
FLAGS = {
    "uts": c.CLONE_NEWUTS,
    "ipc": c.CLONE_NEWIPC,
    "net": c.CLONE_NEWNET,
    "cgroup": c.CLONE_NEWCGROUP,
    "mnt": c.CLONE_NEWNS,
    "pid": c.CLONE_NEWPID,
    "user": c.CLONE_NEWUSER,
}


class InitProgram:
    """What a process does before it is the command: a program with its parameters, which differ from run to run.

    `names` says which descriptors are given; `flags` are the namespaces that clone3(2) makes for it; `sources` are
    mounts that the parent copies, and sends as its go-ahead: to root in a user namespace their paths may be closed.
    """

    def __init__(
        self, process: "ProcessSpec", names: "tuple[str, ...]", *, maps: "tuple[str, str] | None", waits: bool
    ) -> None:
        """`maps` are those of a user namespace of its own; `waits`: it waits for its parent whatever else it does."""
        self.program = Program()
        self.process = process
        self.maps = maps
        self.names = names
        self.parameters = {name: Value(name) for name in (*names, "sync", "status")}
        self.mapped = maps is not None
        self.busy = False  # while a child is under way by it
        self.creates = "start" in names
        #: the namespaces, of those given, that the parent has to be in when it is born; the others it joins itself
        self.born_in = tuple(kind for kind in FLAGS if kind in names and (kind == "pid" or self.mapped))
        # Then it cannot have its parent asleep; and a time namespace is joined with a memory of one's own alone.
        # The search of a long PATH, through links of the image's, may take as long as the image likes.
        self.waits = (
            self.mapped or self.creates or waits or (not self.born_in and len(_folders(process)) > _LONG_SEARCH)
        )
        self.sources: list[tuple[str, bool, bool]] = []  # (path, with all mounted below, with shifted owners)
        self.flags = 0

    def begin(self) -> None:
        """A session of its own, its input and output; should the zygote die, so does it."""
        call = self.program.call
        self.program.step("beginning a session")
        # As PID 1 it takes all processes of its namespace along.
        self._die_with_parent()
        call("setsid")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            if name in self.names:
                call("dup3", self.parameters[name], number, 0)  # 0 is the zygote's own otherwise: /dev/null

    def join(self) -> None:
        """Move into the namespaces of others that were given."""
        for kind in ("cgroup", "ipc", "uts", "net"):
            if kind in self.names and kind not in self.born_in:
                self.program.step(f"joining the {kind} namespace")
                self.program.call("setns", self.parameters[kind], FLAGS[kind])

    def become_root(self) -> None:
        """Be uid 0 in the user namespace: until then a process is nobody there, though it has all capabilities."""
        self.program.step("becoming root in the user namespace")
        self.program.call("setresgid", 0, 0, 0)
        self.program.call("setgroups", 0, None, may_fail=True)  # refused where setgroups is denied
        self.program.call("setresuid", 0, 0, 0)
        # Forgotten by the kernel when the user changes.
        self._die_with_parent()

    def _die_with_parent(self) -> None:
        if self.process.dies_with_parent:
            self.program.call("prctl", c.PR_SET_PDEATHSIG, signal.SIGKILL.value, 0, 0, 0)

    def finish(self) -> None:
        """From the terminal on: what is the same for a first process and for further ones."""
        call, process = self.program.call, self.process
        if process.terminal:
            console = self.parameters["console"]
            terminal.write(self.program, console, process.uid, process.console_node, process.terminal_size)
        self.program.step("closing descriptors")
        still_open = {"status": STATUS_FD} if self.waits else {}
        if self.creates:
            still_open["start"] = START_FD
        for name, number in still_open.items():
            call("dup3", self.parameters[name], number, os.O_CLOEXEC)
        call("close_range", STATUS_FD + len(still_open), _LAST_DESCRIPTOR, 0)
        self.program.step(CHANGING_DIRECTORY)
        call("chdir", process.cwd)
        # From here on it has a container's powers, and its memory may be the zygote's: whoever has these powers too and
        # sees its PID could write there. execve ends both. CVE-2016-9962; ptrace(2), "Ptrace access mode checking".
        call("prctl", c.PR_SET_DUMPABLE, 0, 0, 0, 0)
        self._limit()
        sealed = process.no_new_privileges
        if not sealed:
            self._filter()  # takes CAP_SYS_ADMIN then, which is about to go
        capabilities.write_bounding(self.program, process.bounding)
        self._become_user()
        capabilities.write_sets(
            self.program,
            effective=process.effective,
            permitted=process.permitted,
            inheritable=process.inheritable,
            ambient=process.ambient,
        )
        if sealed:
            call("prctl", c.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        candidates = [INIT] if process.init else _candidates(process)
        results = [Value("result") for _ in candidates]
        if self.creates:
            self.program.step("waiting to be started")
            call("write", STATUS_FD, "c", 1)
            call("read", START_FD, Block(0), 1)
        if sealed:
            self._filter()
        self.program.step(EXECUTING)
        args = (INIT, "--", *process.args) if process.init else process.args
        # execve(2) does not search; where a candidate is not there, or may not be executed, the next one is tried.
        for number, candidate in enumerate(candidates):
            last = number == len(candidates) - 1
            self.program.call(
                "execve", candidate, args, process.env, may_fail=self.creates or not last, result=results[number]
            )
        if self.creates:  # the parent does not wait for this one any more: tell whoever started it
            call("write", STATUS_FD, Block(*results), 8 * len(results))
            call("exit_group", 127)

    def _become_user(self) -> None:
        call, process = self.program.call, self.process
        uid, gid, groups = process.uid, process.gid, process.groups
        self.program.step(f"becoming user {uid}:{gid}")
        call("umask", process.umask)
        # Refused where setgroups is denied: then there is nothing to be given up but what no file can be opened by.
        packed = struct.pack(f"={len(groups)}I", *groups)
        call("setgroups", len(groups), packed if groups else None, may_fail=not groups)
        if uid or gid:
            call("prctl", c.PR_SET_KEEPCAPS, 1, 0, 0, 0)
            call("setresgid", gid, gid, gid)
            call("setresuid", uid, uid, uid)
            self._die_with_parent()

    def _limit(self) -> None:
        self.program.step("setting resource limits")
        # The zygote has raised its own limit on descriptors; this process shall have the caller's. (Only where somebody
        # has lowered the zygote's meanwhile is that refused.)
        own = struct.pack("=2Q", *nofile.limit())
        self.program.call("prlimit64", 0, nofile.RLIMIT_NOFILE, own, None, may_fail=True)
        for number, soft, hard in self.process.rlimits:
            self.program.call("prlimit64", 0, number, struct.pack("=2Q", soft, hard), None)

    def _filter(self) -> None:
        if self.process.seccomp:
            seccomp.write(self.program, self.process.seccomp)


def first_process(spec: "ContainerSpec", names: "tuple[str, ...]") -> InitProgram:
    """The program of a container's first process, which is given the descriptors `names`."""
    maps = (spec.uid_map, spec.gid_map) if spec.uid_map else None
    written = InitProgram(spec.process, names, maps=maps, waits=bool(spec.time_offsets))
    program, parameters = written.program, written.parameters
    shared = (*spec.shared, *(("net",) if spec.network == "host" else ()))
    own = [kind for kind in ("mnt", "uts", "ipc", "pid", "net", "cgroup") if kind not in (*shared, *names)]
    if "cgroup_fd" in names and "cgroup" in own:
        own.remove("cgroup")  # made below: clone3(2) would make its root the parent's group
    written.flags = sum(FLAGS[kind] for kind in own) | (c.CLONE_NEWUSER if written.mapped else 0)
    plan = plan_of(spec, owns_network="net" in own, mapped=written.mapped, has_group="cgroup_fd" in names)
    written.begin()
    trees: list[Value] = []
    if written.mapped:
        below = isinstance(spec.root, str)
        for folder in (spec.root,) if isinstance(spec.root, str) else Overlay.of(spec.root).lower:
            written.sources.append((folder, below, spec.idmap_root))
        for source, _, attributes in (mounts.bind_of(step) for step in plan if step[0] == "bind"):
            written.sources.append((source, "bind" not in attributes, "idmap" in attributes))
    if written.waits:
        program.step("waiting for the parent")
        trees = parts.receive(program, parameters["sync"], len(written.sources))
    if written.mapped:
        written.become_root()
    if spec.process.oom_score_adj is not None:
        parts.write_file(program, "/proc/self/oom_score_adj", str(spec.process.oom_score_adj))
    written.join()
    if "cgroup_fd" in names and "cgroup" not in (*shared, *names):
        program.call("unshare", c.CLONE_NEWCGROUP)
    if spec.time_offsets:
        parts.write_time(program, spec.time_offsets)
    if "net" in own:
        parts.write_network(program, spec.gid_map)
    root = spec.root
    # In a network /etc/hosts is the network's, and in other roots than one in memory it is whose the root is.
    own_hosts = spec.network != "endpoint" and not isinstance(root, str) and Overlay.of(root).scratch_bytes > 0
    rootfs.write_entry(
        program,
        root if isinstance(root, str) else Overlay.of(root),
        plan,
        spec.readonly,
        trees,
        {"etc/hosts": f"{netns.HOSTS}127.0.1.1\t{spec.hostname}\n"} if own_hosts else None,
    )
    if "uts" in own:
        program.step("setting the host name")
        program.call("sethostname", spec.hostname, len(os.fsencode(spec.hostname)))
        if spec.domainname:
            program.call("setdomainname", spec.domainname, len(os.fsencode(spec.domainname)))
    written.finish()
    return written


def further_process(spec: "JoinSpec", names: "tuple[str, ...]") -> InitProgram:
    """The program of a process that joins a running container, whose first process is the descriptor "container"."""
    written = InitProgram(spec.process, names, maps=None, waits=False)
    written.begin()
    written.program.step("joining the container")
    written.program.call("setns", written.parameters["container"], spec.namespaces)
    if spec.uid_map:
        written.become_root()
    written.finish()
    return written


def _folders(process: "ProcessSpec") -> list[str]:
    """Where a command without a slash is looked for: the container's own PATH, the first where there are several."""
    named = (entry.removeprefix("PATH=") for entry in process.env if entry.startswith("PATH="))
    return next(named, os.defpath).split(":")


def _candidates(process: "ProcessSpec") -> list[str]:
    """Where the command may be: itself, if it has a slash, else in each folder of PATH."""
    command = process.args[0]
    if "/" in command:
        return [command]
    return [f"{folder or '.'}/{command}" for folder in _folders(process)]
