"""Many containers, and many at once: none fails, and nothing of them is left."""

import functools
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit import host, procfs
from labkit.container import run, start
from labkit.process import run_in_child, spawn

ROOT = Path(__file__).resolve().parents[2]
THREADS = 8


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Call `work(n)` in `count` threads at once; raise what the first of them raised."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def caller(program: str, busybox: Path, *, shell: str = "", **more: str) -> "subprocess.Popen[str]":
    """Another process that uses labkit; `shell` comes before it (`ulimit`, say)."""
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "LABKIT_STATE": str(busybox.parents[1])} | more
    argv = ["/bin/sh", "-c", f'{shell or ":"}; exec "$0" -c "$1"', sys.executable, program]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True)


def said(program: str, busybox: Path, shell: str = "") -> list[str]:
    """The lines that such a process prints; it must end well."""
    with caller(program, busybox, shell=shell) as process:
        printed, _ = process.communicate(timeout=100)
    assert process.returncode == 0, printed
    return printed.splitlines()


def lab_host_holds() -> tuple[int, int, int, int]:
    """What containers could leave on a lab host: descriptors of the zygote and the keeper, children, mounts."""
    zygote, keeper = host.pid(), host.current().keeper_pid
    return (
        len(os.listdir(f"/proc/{zygote}/fd")),
        len(os.listdir(f"/proc/{keeper}/fd")),
        len(procfs.children(zygote)),
        len(procfs.mountinfo(zygote)),
    )


@pytest.mark.timeout(300)
def test_a_thousand_eight_at_a_time(busybox: Path) -> None:
    run(["true"])
    before, descriptors = lab_host_holds(), len(os.listdir("/proc/self/fd"))

    def work(number: int) -> None:
        for turn in range(125):
            word = f"{number}-{turn}"
            assert run(["echo", word], capture=True)[:3] == (0, f"{word}\n", "")

    in_threads(THREADS, work)
    run(["true"])  # answered after all the others have been reaped
    assert len(os.listdir("/proc/self/fd")) == descriptors
    # A moment after an answer they may hold what belongs to that one child, and new networks that are on their way.
    assert all(now <= then + 5 for now, then in zip(lab_host_holds(), before, strict=True))


RUN_MANY = """
import threading
from labkit.container import run
codes = []
def work():
    for _ in range(40):
        codes.append(run(["sh", "-c", "exit 3"]).exit_code)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(codes), set(codes))
"""


@pytest.mark.timeout(300)
def test_several_callers_at_once(busybox: Path) -> None:
    """Each has a lab host of its own, and none is in another's way."""
    callers = [caller(RUN_MANY, busybox) for _ in range(4)]
    printed = [process.communicate(timeout=200)[0] for process in callers]
    assert printed == ["80 {3}\n"] * 4


FIVE_HUNDRED = """
import os, resource
from labkit import host, procfs
from labkit.container import run, start
print("soft", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
before = sorted(os.listdir("/proc/self/fd"))
idle = [start(["sleep", "1000000"]) for _ in range(500)]
print("alive", sum(container.alive for container in idle))
print("networks", len({procfs.namespace_inode(container.pid, "net") for container in idle}))
print("in a container", run(["sh", "-c", "ulimit -n; ulimit -Hn"], capture=True).stdout.split())
for container in idle: container.kill()
print("children", len(procfs.children(host.pid())))
host.reset()
print("leaked", sorted(set(os.listdir("/proc/self/fd")) - set(before)))
"""


@pytest.mark.timeout(300)
def test_five_hundred_at_once_where_a_process_may_open_1024_files(busybox: Path) -> None:
    lines = said(FIVE_HUNDRED, busybox, shell="ulimit -Sn 1024; ulimit -Hn 8192")
    assert lines == [
        "soft 1024",
        "alive 500",
        "networks 500",
        "in a container ['1024', '8192']",
        "children 0",
        "leaked []",
    ]


UNTIL_THE_LIMIT = """
import os, resource
from labkit import host
from labkit.container import run, start
from labkit.errors import LabkitError
host.current()
{after}
before = sorted(os.listdir("/proc/self/fd"))
idle = []
try:
    while True: idle.append(start(["sleep", "1000000"]))
except LabkitError as error:
    print(error)
print("enough", len(idle) > 30)
for container in idle: container.kill()
print("leaked", sorted(set(os.listdir("/proc/self/fd")) - set(before)))
print("again", run(["true"]).exit_code)
"""


def test_the_callers_limit_is_reached(busybox: Path) -> None:
    first, *rest = said(UNTIL_THE_LIMIT.format(after=""), busybox, shell="ulimit -n 512")
    assert first.startswith("nearly all of the 512 descriptors that a process may open here are in use (ulimit -Hn)")
    assert rest == ["enough True", "leaked []", "again 0"]


def test_the_zygotes_limit_is_reached(busybox: Path) -> None:
    after = "resource.prlimit(host.pid(), resource.RLIMIT_NOFILE, (512, 512))"
    first, *rest = said(UNTIL_THE_LIMIT.format(after=after), busybox, shell="ulimit -n 2048")
    assert "could not be started: nearly all of the 512 descriptors" in first
    assert rest == ["enough True", "leaked []", "again 0"]


def test_a_child_has_the_callers_limit(busybox: Path) -> None:
    program = (
        "import resource\nfrom labkit.process import run_in_child\n"
        "print(run_in_child(resource.getrlimit, resource.RLIMIT_NOFILE))\n"
    )
    assert said(program, busybox, shell="ulimit -Sn 777; ulimit -Hn 3000") == ["(777, 3000)"]


def test_one_thread_waits_and_another_kills(busybox: Path) -> None:
    """Whoever collects the end, both learn the same, and no descriptor is used that is somebody else's by now."""
    for _ in range(20):
        children = [spawn(os.getpid) for _ in range(2)]
        containers = [start(["sleep", "1000000"]) for _ in range(2)]
        codes: list[int] = []

        def work(number: int, several: "list[Any]", codes: list[int]) -> None:
            if number % 2:
                several[number // 2].kill()
            codes.append(several[number // 2].wait())

        in_threads(THREADS, functools.partial(work, several=[*children, *containers], codes=codes))
        assert codes == [137] * THREADS


def test_children_and_containers_from_eight_threads_while_the_lab_host_ends(busybox: Path) -> None:
    """Every call gives a result or a sentence; the next ones find a new lab host."""
    from labkit.errors import LabkitError

    rng = random.Random(5)
    stop = threading.Event()
    strange: list[BaseException] = []

    def work() -> None:
        while not stop.is_set():
            try:
                assert run_in_child(os.getppid) > 0
                assert run(["true"]).exit_code in (0, 137)
            except LabkitError:
                continue
            except BaseException as error:
                strange.append(error)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        with spawn(os.getpid) as witness:
            threading.Event().wait(rng.uniform(0, 0.05))  # the moment is the test's parameter
            host.reset()
            assert not Path(f"/proc/{witness.pid}").exists()
    stop.set()
    for thread in threads:
        thread.join()
    assert strange == []
    assert run(["true"]).exit_code == 0
