"""How long a container takes to start, run `true` and be waited for, as called from a Jupyter kernel's kind of process.

The caller has 300 MB and 7 threads. Every round runs each way once, in turn, so that a machine that grows slower slows
them all. Printed: the median, the CPU time of all processes involved, and the ratio to crun, as the median of the
ratios round by round.
"""

import os
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.peers import peers
from labkit import constants as c
from labkit import host, rootfs, syscalls
from labkit.container import start

CALLER_MIB = 300
CALLER_THREADS = 7
BALLAST_MIB = 1200  # for the question whether time grows with the caller's memory


@dataclass(frozen=True)
class Row:
    """One way of starting a container, measured."""

    name: str
    median_ms: float | None
    cpu_ms: float | None
    ratio_to_crun: float | None
    note: str = ""


def measure(rounds: int = 100) -> list[Row]:
    """Run all ways `rounds` times, interleaved; the rows in order of their medians, what could not run last."""
    private_mounts()
    root = rootfs.find("busybox")
    work = Path(tempfile.mkdtemp(prefix="labkit-bench-"))
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait, daemon=True) for _ in range(CALLER_THREADS - 1)]
    for thread in threads:
        thread.start()
    ballast = [_filled(CALLER_MIB)]
    try:
        found = peers(root, work)
        ways: dict[str, Callable[[int], float]] = {"labkit": lambda _: _labkit(root)}
        ways |= {peer.name: _spawned(peer.argv) for peer in found if peer.reason is None}
        notes = {peer.name: peer.reason for peer in found if peer.reason}
        for name, way in list(ways.items()):
            try:
                way(-1)  # once, uncounted
            except RuntimeError as error:
                notes[name] = str(error)
                del ways[name]
        samples = _interleaved(ways, rounds)
        ballast.append(_filled(BALLAST_MIB))
        larger = f"labkit, caller of {CALLER_MIB + BALLAST_MIB} MB"
        again = _interleaved({name: ways[name] for name in ways if name in ("labkit", "crun")}, rounds)
    finally:
        stop.set()
        del ballast
        host.reset()
        shutil.rmtree(work, ignore_errors=True)
    rows = [_row(name, pairs, samples.get("crun")) for name, pairs in samples.items()]
    rows.append(_row(larger, again["labkit"], again.get("crun")))
    rows.sort(key=lambda row: row.median_ms or 0)
    return rows + [Row(name, None, None, None, note) for name, note in notes.items()]


def _row(name: str, pairs: list[tuple[float, float]], crun: list[tuple[float, float]] | None) -> Row:
    median_ms = statistics.median(wall for wall, _ in pairs) * 1e3
    cpu_ms = statistics.median(cpu for _, cpu in pairs) * 1e3
    ratio = None
    if crun:
        ratio = round(statistics.median(ours[0] / theirs[0] for ours, theirs in zip(pairs, crun, strict=True)), 3)
    return Row(name, round(median_ms, 2), round(cpu_ms, 2), ratio)


def _interleaved(ways: dict[str, Callable[[int], float]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            cpu = way(number)
            samples[name].append((time.perf_counter() - begun, cpu))
    return samples


def _labkit(root: Path) -> float:
    lab = host.current()
    before = time.thread_time() + _cpu_of(lab.pid) + _cpu_of(lab.keeper_pid)
    with start(["true"], root=root) as container:
        completed = container.finish()
    if completed.exit_code or not container.exit:
        raise RuntimeError(f"labkit: exit code {completed.exit_code}")
    own = time.thread_time() + _cpu_of(lab.pid) + _cpu_of(lab.keeper_pid) - before
    return own + container.exit.cpu_usec / 1e6


def _cpu_of(pid: int) -> float:
    """Seconds of CPU a process has had: /proc/PID/schedstat, in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _spawned(argv: Callable[[int], object]) -> Callable[[int], float]:
    def way(number: int) -> float:
        # posix_spawn: the cheapest way to start a program from a large process, so that peers are not charged for ours
        arguments = [str(argument) for argument in argv(number)]  # type: ignore[attr-defined]
        silent = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
        before = _children_cpu()
        pid = os.posix_spawnp(arguments[0], arguments, os.environ, file_actions=silent)
        _, status = os.waitpid(pid, 0)
        if code := os.waitstatus_to_exitcode(status):
            raise RuntimeError(f"{arguments[0]} ended with exit code {code} here")
        return _children_cpu() - before

    return way


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _filled(mebibytes: int) -> bytearray:
    memory = bytearray(mebibytes << 20)
    for page in range(0, len(memory), 4096):
        memory[page] = 1  # touched, so that it is really there
    return memory


def private_mounts() -> None:
    """Give this process mounts of its own, in which crun and runc find a pure cgroup v2 tree even on a hybrid one."""
    if os.geteuid() != 0:
        return
    syscalls.unshare(c.CLONE_NEWNS)
    syscalls.mount(None, "/", None, c.MS_REC | c.MS_PRIVATE)
    unified = "/sys/fs/cgroup/unified"
    if os.path.exists(f"{unified}/cgroup.procs"):
        syscalls.mount(unified, "/sys/fs/cgroup", None, c.MS_BIND)


def as_json(rows: list[Row]) -> list[dict[str, object]]:
    """The rows for a program."""
    return [asdict(row) for row in rows]
