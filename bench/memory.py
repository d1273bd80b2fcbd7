"""What an idle container costs in memory.

A number of containers that sleep are started; before and after, all memory that could be theirs is added up:

- the PSS of this process and of every process below it (proc_pid_smaps_rollup(5)): what each has for itself, and its
  share of what several have. Nothing escapes: this process is the subreaper of what detaches itself.
- the kernel's: Slab, KernelStack, PageTables and Percpu of /proc/meminfo (proc_meminfo(5)). They are the whole
  machine's, so do nothing else meanwhile; the median of several passes is taken.

The difference, divided by their number, is a row. Files in the page cache count only where a process has them mapped.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from bench.peers import Peer
from bench.sampling import REFERENCE, Row, quartiles
from bench.ways import FLOOR, LABKIT, SLEEP, Ways
from labkit import constants as c
from labkit import host, procfs, syscalls
from labkit.container import start

EXEC = "labkit, a process more in one"
_KERNEL = ("Slab", "KernelStack", "PageTables", "Percpu")
_SETTLED_KIB = 64
_SETTLE_S = 3.0

# Begins so many idle containers, and ends them on leaving.
Idle = Callable[[int], Iterator[None]]


def measure(rounds: int) -> list[Row]:
    """Rows of KiB for each idle container."""
    count, passes = min(max(20, rounds), 100), 3 if rounds >= 20 else 1
    syscalls.prctl(c.PR_SET_CHILD_SUBREAPER, 1)
    with Ways() as ways:
        idle = _ways(ways)
        found: dict[str, list[float]] = {}
        processes: dict[str, tuple[int, int]] = {}
        for _ in range(passes):
            for name, several in idle.items():
                try:
                    kib, processes[name] = _cost(several, count)
                    found.setdefault(name, []).append(kib)
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    ways.notes[name] = str(error)
        rows = []
        for name, values in found.items():
            low, median, high = quartiles(values, 0)
            compared = REFERENCE in found and name != EXEC
            ratio = round(median / quartiles(found[REFERENCE], 3)[1], 2) if compared else None
            note = _in_words(*processes[name])
            rows.append(Row("memory", name, "KiB", median, low, high, None, ratio, count, note))
    syscalls.prctl(c.PR_SET_CHILD_SUBREAPER, 0)
    rows.sort(key=lambda row: row.median or 0)
    return rows + [Row("memory", name, "KiB", note=note) for name, note in ways.notes.items() if name not in found]


def _in_words(each: int, pythons: int) -> str:
    return f"{each} process{'es' if each > 1 else ''} each, {pythons or 'none'} of them Python"


def _cost(several: Idle, count: int) -> tuple[float, tuple[int, int]]:
    """KiB for each of `count`, and how many processes each has, and how many of those are Python."""
    before, processes_before = _settled(), _processes()
    with contextmanager(several)(count):
        after, new = _settled(), _processes().items() - processes_before.items()
    pythons = sum("python" in executable for _, executable in new)
    return (after - before) / count, (round(len(new) / count), round(pythons / count))


def _processes() -> dict[int, str]:
    """The processes below this one and what they execute."""
    found = {}
    for pid in procfs.descendants(os.getpid()):
        with suppress(OSError):
            found[pid] = os.readlink(f"/proc/{pid}/exe")
    return found


def _settled() -> int:
    """KiB in use, once what ended a moment ago has been cleaned up: the kernel does part of that later."""
    deadline, last = time.monotonic() + _SETTLE_S, _used()
    while time.monotonic() < deadline:
        time.sleep(0.1)
        now = _used()
        if abs(now - last) < _SETTLED_KIB:
            return now
        last = now
    return last


def _used() -> int:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kernel = sum(int(words[1]) for words in lines if words[0].rstrip(":") in _KERNEL)
    return kernel + sum(_pss(pid) for pid in (os.getpid(), *procfs.descendants(os.getpid())))


def _pss(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _ways(ways: Ways) -> Mapping[str, Idle]:
    found: dict[str, Idle] = {LABKIT: partial(_labkit, ways), EXEC: partial(_execs, ways)}
    if FLOOR not in ways.notes:
        found[FLOOR] = partial(_by_floor, ways)
    for peer in ways.peers:
        if peer.reason is None:
            found[peer.name] = partial(_spawned, peer)
    return found


def _by_floor(ways: Ways, count: int) -> Iterator[None]:
    with ways.floor(SLEEP) as floor:
        for _ in range(count):
            floor.start()
        yield


def _labkit(ways: Ways, count: int) -> Iterator[None]:
    host.current()
    containers = [start(list(SLEEP), root=ways.root) for _ in range(count)]
    yield
    for container in containers:
        container.kill()


def _execs(ways: Ways, count: int) -> Iterator[None]:
    """Processes in one container, whose own cost is shared out among them."""
    with start(list(SLEEP), root=ways.root) as container:
        running = [container.exec(list(SLEEP)) for _ in range(count)]
        yield
        container.kill()
        for one in running:
            one.wait(60)


def _spawned(peer: Peer, count: int) -> Iterator[None]:
    running = []
    try:
        for number in range(count):
            with open(peer.stdin) as stdin:
                process = subprocess.Popen(peer.idle(number), stdin=stdin, stdout=subprocess.PIPE)
            running.append(process)
            assert process.stdout
            if not process.stdout.readline():  # its shell's greeting; it executes the sleep next
                raise RuntimeError(f"{peer.name} started no idle container here")
        yield
    finally:
        ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # half a clean-up would leave containers running
        for number, process in enumerate(running):
            if peer.end is None:
                process.kill()
            else:
                subprocess.run(peer.end(number), capture_output=True, check=False)
            assert process.stdout
            process.stdout.close()
            process.wait()
        _reap_orphans()
        signal.signal(signal.SIGINT, ctrl_c)


def _reap_orphans() -> None:
    """Wait for what detached itself, fell to this process and has been killed."""
    for pid in procfs.children(os.getpid()):
        if procfs.stat(pid)[2] == "Z":
            os.waitpid(pid, 0)
