"""A room: a container of labkit's own in which code runs that nobody vouches for.

What holds the walls:

- user, PID, mount, network, IPC, UTS and cgroup namespaces of its own; root in it is nobody on the machine;
- a read-only root put together of a few bind mounts: the system's programs, this package with its Python, the root
  filesystems that the labs use. The course's sources, the learners' files and this machine's /etc, /home and /var are
  not there. /tmp alone can be written to, and is memory that goes with the room;
- no network but a loopback; an environment of four variables; no descriptor but its input and output;
- little of everything: see `Allowance`. Where there are control groups the kernel itself keeps to that; a watcher
  reads what the room uses, and kills it where that is too much: `labkit.course.grading.meter`;
- users that no other room has at the time, so that what the kernel counts by user is the room's own, and a share of
  what it counts by who has made the room: `labkit.course.grading.sandbox_ids`.
"""

import math
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from labkit import capabilities, cgroups, container, rootfs, temporary
from labkit.cgroups import Cgroup
from labkit.cgroups.limits import Limits
from labkit.container.container import Container
from labkit.course.grading import sandbox_ids
from labkit.course.grading.meter import Meter
from labkit.course.grading.sandbox_ids import LEARNER
from labkit.errors import LabkitError, Unsupported
from labkit.files import state_folder
from labkit.process import run_in_child

COURSE = "/opt/labkit"  #: where a room has this package
ENVIRONMENT = "/opt/environment"  #: and the virtual environment
_LOOK_SECONDS = 0.1
_SYSTEM = ("/etc/os-release", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
_LINKS = ("bin", "lib", "lib32", "lib64", "sbin")

# A procfs of which nothing is covered, or the kernel would not let anybody mount another one in here, as labs 06 and 07
# do. What of it the machine's root alone may write is closed to root in here in any case.
_PLAN = tuple(step for step in rootfs.DEFAULT_PLAN if step[0] not in ("readonly", "mask"))

# What the kernel counts for the user who has made a user namespace, the grader that is, and for all rooms together.
# namespaces(7), "The /proc/sys/user directory".
_SHARED = {
    "user.max_inotify_instances": "16",
    "user.max_inotify_watches": "4096",
    "user.max_fanotify_groups": "4",
    "user.max_fanotify_marks": "1024",
    **{f"user.max_{kind}_namespaces": "256" for kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")},
}

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
        sandbox_ids.ranges()
    except Unsupported as lack:
        return lack
    return None


def run(
    args: Sequence[str],
    *,
    stdin: bytes = b"",
    allowance: Allowance = Allowance(),
    root: bool = True,
    alone: bool = False,
) -> Ended:
    """Run `args` in a new room to its end. With `root` the command has all capabilities in there but CAP_SYS_ADMIN.

    Without `root` it is the user LEARNER, and may do what an ordinary user may: make a lab host, say. With `alone`
    there is no other room meanwhile. `Unsupported`: this machine cannot. `LabkitError`: the room could not be made.
    """
    with _skeleton() as folder, sandbox_ids.taken(alone) as ids:
        with started(args, folder, ids, stdin=stdin, allowance=allowance, root=root) as (running, watcher):
            try:
                code = running.finish(allowance.wall_seconds).exit_code
            except TimeoutError:
                code = running.wait()
                watcher.trouble = watcher.trouble or f"it had not ended after {allowance.wall_seconds:g} s"
        out, err = (running.output.kept(name) for name in ("stdout", "stderr"))
        return Ended(code, out, err, watcher.trouble)


@contextmanager
def started(
    args: Sequence[str], folder: str, ids: sandbox_ids.Maps, *, stdin: bytes, allowance: Allowance, root: bool
) -> "Iterator[tuple[Container, _Watcher]]":
    """Start `args` in a room on the skeleton `folder`, whose users are `ids`; while the body runs it is watched."""
    uids, gids = ids
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
            "cpu": (math.ceil(allowance.cpu_seconds) + 5,) * 2,  # of one process; the watcher has the word before
            "nproc": (allowance.pids, allowance.pids),
            "fsize": (allowance.file_bytes, allowance.file_bytes),
            "nofile": (1024, 1024),
        },
        sysctl=_SHARED,
        limits=limits,
        capture=allowance.output_bytes,
        stdin=stdin,
    )
    with room:
        watcher = _Watcher(room, allowance)
        try:
            if room.group:
                run_in_child(Cgroup.delegate, room.group, uids[0][1] + user, gids[0][1] + user)
            room.start()
            with watcher:
                yield room, watcher
        finally:
            room.kill()
            watcher.close()


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
    checkout = state_folder.checkout()
    wanted = ["/usr", *(f"/{name}" for name in _LINKS if not os.path.islink(f"/{name}")), *_SYSTEM, _python_itself()]
    binds = [(path, path) for path in dict.fromkeys(wanted) if os.path.exists(path)]
    binds += [(f"{checkout / name}", f"{COURSE}/{name}") for name in ("labkit", "rootfs")]
    if sys.prefix != sys.base_prefix:
        binds.append((sys.prefix, ENVIRONMENT))
    built = state_folder.state() / "rootfs"
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
        self._meter = Meter(room, allowance.memory_bytes, allowance.pids)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="labkit-room", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._look()  # what it has done in its last moments counts, too

    def close(self) -> None:
        """Let go of what it was watched by."""
        self._meter.close()

    def _watch(self) -> None:
        while not self._done.wait(_LOOK_SECONDS):
            self._look()
            if self.trouble:
                self._room.kill()
                return

    def _look(self) -> None:
        if self.trouble:
            return
        if self._meter.cpu_seconds() > self._allowance.cpu_seconds:
            self.trouble = f"it used more than {self._allowance.cpu_seconds:g} s of processor time"
        elif self._meter.too_much_memory():
            self.trouble = _too_much_memory(self._allowance)


def _too_much_memory(allowance: Allowance) -> str:
    return f"it used more than {allowance.memory_bytes >> 20} MiB of memory"


def check() -> None:
    """Raise `LabkitError` where no room can be made here: `Unsupported` where the machine lacks something."""
    ended = run(["true"])
    if ended.exit_code:
        raise LabkitError(f"a room for grading could not be used (exit code {ended.exit_code})")
