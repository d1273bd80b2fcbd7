"""The ways of running a container that are compared, ready to be gone: labkit, the floor in C, and the peers."""

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from bench import peers
from bench.floor import Floor, build
from bench.sampling import Sample, Way
from labkit import constants as c
from labkit import host, rootfs, syscalls
from labkit.container import start

LABKIT, FLOOR = "labkit", "C program"
#: How each is named in a table.
TRUE, SLEEP = ("/bin/true",), ("/bin/sleep", "1000000")


class Ways:
    """Everything that a benchmark needs, in a folder of its own; as a context manager all of it goes on leaving."""

    def __init__(self) -> None:
        private_mounts()
        self.root = rootfs.find("busybox")
        self.work = Path(tempfile.mkdtemp(prefix="labkit-bench-"))
        self.notes: dict[str, str] = {}
        self.peers = peers.peers(self.root, self.work)
        self.notes |= {peer.name: peer.reason for peer in self.peers if peer.reason}
        self._floors: list[Floor] = []
        self._floor_program: Path | None = None
        self._labkit_cpu: float | None = None
        try:
            self._floor_program = build(self.work)
        except RuntimeError as error:
            self.notes[FLOOR] = str(error)

    def floor(self, command: Sequence[str] = TRUE) -> Floor:
        """The C program, running; only where `notes` does not say why it could not be compiled."""
        assert self._floor_program
        floor = Floor(self._floor_program, self.root, command, peers.filter_file(self.work))
        self._floors.append(floor)
        return floor

    def running_true(self) -> dict[str, Way]:
        """Each way of running `true` to its end, called from this process."""
        ways: dict[str, Way] = {LABKIT: self.labkit}
        if FLOOR not in self.notes:
            ways[FLOOR] = self.floor().run
        return ways | {peer.name: spawned(peer) for peer in self.peers if peer.reason is None}

    def labkit(self, _: int = 0) -> Sample:
        """Run `true` by labkit."""
        # The zygote and the keeper go on working after the answer, preparing what the next start takes: that is
        # counted too, with the next one.
        before, own = self._labkit_cpu, time.thread_time()
        self._labkit_cpu = _cpu_of(host.current().pid) + _cpu_of(host.current().keeper_pid)
        begun = time.perf_counter()
        with start(["true"], root=self.root) as container:
            completed = container.finish()
        wall = time.perf_counter() - begun
        if completed.exit_code or not container.exit:
            raise RuntimeError(f"labkit: exit code {completed.exit_code}")
        cpu = time.thread_time() - own + container.exit.cpu_usec / 1e6
        return Sample(wall, cpu + self._labkit_cpu - before if before is not None else None)

    def close(self) -> None:
        """End all that runs and remove the folder."""
        for floor in self._floors:
            floor.close()
        host.reset()
        shutil.rmtree(self.work, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def spawned(peer: peers.Peer) -> Way:
    """The way of running a peer and waiting for it."""
    silent = [
        (os.POSIX_SPAWN_OPEN, fd, os.devnull if fd else peer.stdin, os.O_RDWR if fd else os.O_RDONLY, 0)
        for fd in (0, 1, 2)
    ]

    def way(number: int) -> Sample:
        # posix_spawn: the cheapest way to start a program from a large process, so that peers are not charged for ours
        arguments = list(peer.run(number))
        before, begun = _children_cpu(), time.perf_counter()
        pid = os.posix_spawnp(arguments[0], arguments, os.environ, file_actions=silent)
        _, status = os.waitpid(pid, 0)
        wall = time.perf_counter() - begun
        if code := os.waitstatus_to_exitcode(status):
            raise RuntimeError(f"{arguments[0]} ended with exit code {code} here")
        return Sample(wall, _children_cpu() - before)

    return way


def _cpu_of(pid: int) -> float:
    """Seconds of CPU a process has had: /proc/PID/schedstat, in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def privately(argv: Sequence[str]) -> list[str]:
    """A command that runs `argv` where its mounts are nobody else's."""
    program = (
        "import os, sys; from bench.ways import private_mounts; private_mounts(); os.execvp(sys.argv[1], sys.argv[1:])"
    )
    return [sys.executable, "-c", program, *argv]


def private_mounts() -> None:
    """Give this process mounts of its own, in which crun and runc find a pure cgroup v2 tree even on a hybrid one."""
    if os.geteuid() != 0:
        return
    syscalls.unshare(c.CLONE_NEWNS)
    syscalls.mount(None, "/", None, c.MS_REC | c.MS_PRIVATE)
    unified = "/sys/fs/cgroup/unified"
    if os.path.exists(f"{unified}/cgroup.procs"):
        syscalls.mount(unified, "/sys/fs/cgroup", None, c.MS_BIND)
