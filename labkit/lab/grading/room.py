"""A room: a container of labkit's own in which code runs that nobody vouches for.

What holds the walls:

- user, PID, mount, network, IPC, UTS and cgroup namespaces of its own; root in it is nobody on the machine;
- a read-only root put together of a few bind mounts: the system's programs, this package with its Python, the root
  filesystems that the labs use. The course's sources, the learners' files and this machine's /etc, /home and /var are
  not there. /tmp alone can be written to, and is memory that goes with the room;
- no network but a loopback; an environment of four variables; no descriptor but its input and output;
- little of everything: see `Allowance`. Where this machine hands on control groups the kernel itself keeps to that; a
  watcher reads what the room's processes use all the same, and kills the room where they use too much.
"""

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit import capabilities, cgroups, container, host, idmap, paths, procfs, rootfs, temporary
from labkit.cgroups import Cgroup
from labkit.cgroups.limits import Limits
from labkit.container.container import Container
from labkit.errors import LabkitError, Unsupported
from labkit.process import run_in_child

IDS = 65536  #: how many users a room has
COURSE = "/opt/labkit"  #: where a room has this package
ENVIRONMENT = "/opt/environment"  #: and the virtual environment
LEARNER = 1000  #: who root of a lab host in a room is, as the room counts
_MACHINES_IDS = 0x70000000  # above what systemd and useradd hand out, where root has all ids to choose from
_LOOK_SECONDS = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_SYSTEM = ("/etc/os-release", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
_LINKS = ("bin", "lib", "lib32", "lib64", "sbin")

# A procfs of which nothing is covered, or the kernel would not let anybody mount another one in here, as labs 06 and 07
# do. What of it the machine's root alone may write is closed to root in here in any case.
_PLAN = tuple(step for step in rootfs.DEFAULT_PLAN if step[0] not in ("readonly", "mask"))

_GROUPS = ("filesystem", "cgroup2", "sys/fs/cgroup", ("nosuid", "nodev", "noexec"), ())


@dataclass(frozen=True)
class Allowance:
    """What a room may use of this machine until its end."""

    wall_seconds: float = 120.0
    cpu_seconds: float = 30.0  #: of all its processes together
    memory_bytes: int = 1 << 30  #: likewise
    pids: int = 64
    output_bytes: int = 1 << 20  #: what is kept of its output
    tmp_bytes: int = 256 << 20  #: what fits into /tmp
    file_bytes: int = 256 << 20  #: one file


@dataclass(frozen=True)
class Ended:
    """How a room's command ended, what it wrote, and, where it was ended for using too much, a sentence on that."""

    exit_code: int
    stdout: str
    stderr: str
    trouble: str = ""


def unsupported() -> Unsupported | None:
    """Why rooms cannot be made here, and how to mend it; None where they can."""
    if _below(_python_itself(), "/tmp"):
        what = f"this Python, {_python_itself()}, lies below /tmp, and a room has a /tmp of its own"
        return Unsupported(what, "use a Python that is installed elsewhere")
    try:
        room_ids()
    except Unsupported as lack:
        return lack
    return None


def room_ids() -> tuple[idmap.IdMap, idmap.IdMap]:
    """The maps of a room's users and groups, as the lab host counts. `Unsupported`: this user has no ids to give away.

    Root of a room is never somebody on the lab host whose files matter: root there, or the caller.
    """
    maps = []
    for map_ in idmap.of(host.pid()):
        ids = [(first, count) for first, _, count in map_ if first <= _MACHINES_IDS < first + count - IDS]
        start = _MACHINES_IDS if ids else 1
        if not ids and not all(map_.outside(inside) is not None for inside in (start, start + LEARNER + 1000)):
            raise Unsupported(
                "submissions are graded as users of their own, and no subordinate ids are set apart for you",
                "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 YOU, and install uidmap",
            )
        count = IDS if ids else max(n for n in (IDS - 1, 32768, 4096) if map_.outside(start + n - 1) is not None)
        maps.append(idmap.IdMap([(0, start, count)]))
    return maps[0], maps[1]


def run(
    args: Sequence[str],
    *,
    stdin: bytes = b"",
    allowance: Allowance = Allowance(),
    root: bool = True,
) -> Ended:
    """Run `args` in a new room to its end. With `root` the command has all capabilities in there but CAP_SYS_ADMIN.

    Without `root` it is the user LEARNER, and may do what an ordinary user may: make a lab host, say.
    `Unsupported`: this machine cannot. `LabkitError`: the room could not be made.
    """
    with _skeleton() as folder, start(args, folder, stdin=stdin, allowance=allowance, root=root) as running:
        watcher = _Watcher(running, allowance)
        with watcher:
            try:
                code = running.finish(allowance.wall_seconds).exit_code
            except TimeoutError:
                code = running.wait()
                watcher.trouble = watcher.trouble or f"it had not ended after {allowance.wall_seconds:g} s"
        if running.oom_killed:
            watcher.trouble = watcher.trouble or _too_much_memory(allowance)
        out, err = (running.output.kept(name) for name in ("stdout", "stderr"))
        return Ended(code, out, err, watcher.trouble)


def start(args: Sequence[str], folder: str, *, stdin: bytes, allowance: Allowance, root: bool) -> Container:
    """Start `args` in a room on the skeleton `folder`; return it while it runs."""
    uids, gids = room_ids()
    user = 0 if root else LEARNER
    kept = [name for name in capabilities.NAMES if name != "SYS_ADMIN"]
    limits = None
    if not cgroups.unsupported():
        limits = Limits(memory_max_bytes=allowance.memory_bytes, pids_max=allowance.pids)
    # Set up, and then held back until its group is its own: root of the room divides that among judge and lab hosts.
    room = container.create(
        list(args),
        root=folder,
        readonly=True,
        hostname="room",
        plan=_PLAN if limits is None else (*_PLAN, _GROUPS),
        mounts=(*_mounts(), _tmp(allowance)),
        uid_mappings=tuple(uids),
        gid_mappings=tuple(gids),
        user=f"{user}:{user}",
        capabilities=kept if root else list(capabilities.NAMES),
        no_new_privileges=False,
        seccomp=None,
        env=environment(),
        cwd="/tmp",
        rlimits={
            "core": (0, 0),
            "nproc": (allowance.pids, allowance.pids),
            "fsize": (allowance.file_bytes, allowance.file_bytes),
            "nofile": (1024, 1024),
        },
        limits=limits,
        capture=allowance.output_bytes,
        stdin=stdin,
    )
    try:
        if room.group:
            run_in_child(Cgroup.delegate, room.group, uids[0][1] + user, gids[0][1] + user)
        room.start()
    except BaseException:
        room.kill()
        raise
    return room


def environment() -> dict[str, str]:
    """All the environment that there is in a room."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def python(*args: str) -> list[str]:
    """The command line of this very Python, with this package and nothing of the place it runs in on its path."""
    return [interpreter(), "-I", "-c", _RUN_MODULE, COURSE, *args]


def interpreter() -> str:
    """Where this very Python is in a room."""
    if sys.prefix == sys.base_prefix:
        return sys.executable
    return f"{ENVIRONMENT}/{os.path.relpath(sys.executable, sys.prefix)}"


_RUN_MODULE = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module(sys.argv.pop(1), run_name='__main__')"
)


@contextmanager
def _skeleton() -> Iterator[str]:
    """The folder that a room's root is: empty but for a few texts and the places of its mounts."""
    with temporary.Folder() as folder:
        os.chmod(folder, 0o755)
        for name in ("dev", "etc", "proc", "run", "sys", "tmp", "usr", "var"):
            os.mkdir(f"{folder}/{name}")
        for name in _LINKS:
            if os.path.islink(f"/{name}"):
                os.symlink(os.readlink(f"/{name}"), f"{folder}/{name}")
        for name, text in _ETC.items():
            Path(folder, "etc", name).write_text(text)
        for _, source, target, _ in _mounts():
            if os.path.isdir(source):
                os.makedirs(f"{folder}/{target}", exist_ok=True)
            else:
                os.makedirs(os.path.dirname(f"{folder}/{target}"), exist_ok=True)
                Path(folder, target).touch()
        yield folder


_ETC = {
    "passwd": "root:x:0:0:root:/tmp:/bin/sh\nlearner:x:1000:1000:learner:/tmp:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nlearner:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost room\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "subuid": "",
    "subgid": "",
}


def _mounts() -> list[tuple[str, str, str, tuple[str, ...]]]:
    """What of the machine is to be seen in a room, read-only.

    The course and its Python environment may lie anywhere, below /tmp, say, or in a folder that is closed to others;
    in a room they have places of their own, and nothing tells where they were.
    """
    checkout = paths.checkout()
    wanted = ["/usr", *(f"/{name}" for name in _LINKS if not os.path.islink(f"/{name}")), *_SYSTEM, _python_itself()]
    binds = [(path, path) for path in dict.fromkeys(wanted) if os.path.exists(path)]
    binds += [(f"{checkout / name}", f"{COURSE}/{name}") for name in ("labkit", "rootfs")]
    if sys.prefix != sys.base_prefix:
        binds.append((sys.prefix, ENVIRONMENT))
    built = paths.state() / "rootfs"
    if built.is_dir():
        binds.append((f"{built.resolve()}", f"{COURSE}/.lab/rootfs"))
    # What lies below another one is there already.
    kept = [(source, target) for source, target in binds if not any(_below(target, other) for _, other in binds)]
    return [("bind", source, target.lstrip("/"), ("ro", "nosuid", "nodev")) for source, target in kept]


def _python_itself() -> str:
    """Where the Python is installed of which the environment is made, if it is one."""
    return os.path.realpath(sys.base_prefix)


def _below(path: str, folder: str) -> bool:
    return path != folder and path.startswith(f"{folder.rstrip('/')}/")


def _tmp(allowance: Allowance) -> tuple[object, ...]:
    return ("filesystem", "tmpfs", "tmp", ("nosuid", "nodev"), ("mode=1777", f"size={allowance.tmp_bytes}"))


class _Watcher:
    """A thread that looks what a room's processes use, and kills the room where that is too much."""

    def __init__(self, room: Container, allowance: Allowance) -> None:
        self.trouble = ""
        self._room, self._allowance = room, allowance
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="labkit-room", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        cpu_of_ended = 0.0
        last: dict[int, float] = {}
        while not self._done.wait(_LOOK_SECONDS):
            now, memory = _use(self._room.pid)
            # What has ended and was not waited for is in nobody's sum: it counts with what it had at the last look.
            cpu_of_ended += sum(seconds for pid, seconds in last.items() if pid not in now)
            last = now
            if sum(now.values()) + cpu_of_ended > self._allowance.cpu_seconds:
                self.trouble = f"it used more than {self._allowance.cpu_seconds:g} s of processor time"
            elif memory > self._allowance.memory_bytes and _shared_out(list(now)) > self._allowance.memory_bytes:
                self.trouble = _too_much_memory(self._allowance)
            if self.trouble:
                self._room.kill()
                return


def _use(pid: int) -> tuple[dict[int, float], int]:
    """(own processor time by PID, in seconds; resident memory in bytes, shared pages counted each time)."""
    cpu: dict[int, float] = {}
    memory = 0
    for one in (pid, *_descendants(pid)):
        try:
            fields = procfs.stat(one)
        except (OSError, ProcessLookupError, ValueError):
            continue
        cpu[one] = (int(fields[13]) + int(fields[14])) / _TICKS
        memory += int(fields[23]) * os.sysconf("SC_PAGE_SIZE")
    return cpu, memory


def _descendants(pid: int) -> list[int]:
    try:
        return procfs.descendants(pid)
    except (OSError, ProcessLookupError):
        return []


def _shared_out(pids: list[int]) -> int:
    """The memory of processes in bytes, a page that n share counted as 1/n for each. proc_pid_smaps(5): Pss."""
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup") as file:
                total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
        except (OSError, ProcessLookupError):
            continue
    return total


def _too_much_memory(allowance: Allowance) -> str:
    return f"it used more than {allowance.memory_bytes >> 20} MiB of memory"


def check() -> None:
    """Raise `LabkitError` where no room can be made here: `Unsupported` where the machine lacks something."""
    ended = run(["true"])
    if ended.exit_code:
        raise LabkitError(f"a room for grading could not be used (exit code {ended.exit_code})")
