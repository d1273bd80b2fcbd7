"""However a lab host ends, its control groups end with it; where nobody is left to do it, a reset does."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from labkit import cgroups, host, procfs
from labkit.course.experiments import stressors
from labkit.host import cgroup
from labkit.process import run_in_child, stdio

ROOT = Path(__file__).resolve().parents[2]

# A process with a lab host with groups in it: deep, frozen, and with a process that keeps forking.
BUSY = """
import os, sys
from labkit import cgroups, host
from labkit.cgroups import Limits
from labkit.process import spawn

def forks():
    if os.fork():
        return
    while True:
        try:
            pid = os.fork()
        except OSError:
            continue
        if pid:
            os._exit(0)

a, b, c = spawn(os.getpid), spawn(os.getpid), spawn(os.getpid)
deep = cgroups.create("a").child("b").child("c")
deep.add(a.pid)
frozen = cgroups.create("frozen")
frozen.add(b.pid)
frozen.freeze()
busy = cgroups.create("busy", Limits(pids_max=10))
busy.add(c.pid)
c.call(forks)
print(host.current().keeper_pid, host.pid(), host.current().group, host.current().guard_pid, a.pid, b.pid, flush=True)
sys.stdin.read()
"""


@contextmanager
def busy() -> Iterator[tuple[int, int, int, str, list[int]]]:
    """The PIDs of such a process, its keeper and zygote, the folder of its lab host's group, and all pidfds."""
    program = [sys.executable, "-c", BUSY]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as caller:
        try:
            assert caller.stdout
            keeper, zygote, group, *children = caller.stdout.readline().split()
            assert (Path(group) / "a/b/c").is_dir()
            pidfds = [os.pidfd_open(int(pid)) for pid in (keeper, zygote, *children)]
            yield caller.pid, int(keeper), int(zygote), group, pidfds
            for pidfd in pidfds:
                os.close(pidfd)
        finally:
            caller.kill()


def parent_of(pid: int) -> int:
    return int(procfs.stat(pid)[3])


def _kill_caller(caller: int, keeper: int, zygote: int) -> None:
    os.kill(caller, signal.SIGKILL)


def _kill_zygote(caller: int, keeper: int, zygote: int) -> None:
    os.kill(zygote, signal.SIGKILL)


def _kill_keeper(caller: int, keeper: int, zygote: int) -> None:
    os.kill(keeper, signal.SIGKILL)


def _reset_all(caller: int, keeper: int, zygote: int) -> None:
    assert keeper in host.reset_all()


@pytest.mark.parametrize("kill", [_kill_caller, _kill_zygote, _kill_keeper, _reset_all])
def test_no_group_is_left_whoever_is_killed(kill: Callable[[int, int, int], None]) -> None:
    with busy() as (caller, keeper, zygote, group, pidfds):
        kill(caller, keeper, zygote)
        assert [pidfd for pidfd in pidfds if not stdio.readable(pidfd, 30)] == [], "processes were left behind"
        assert not os.path.exists(group), "its group was left behind"


def test_a_reset_removes_what_nobody_was_left_to_remove() -> None:
    with busy() as (caller, keeper, zygote, group, pidfds):
        guard = parent_of(keeper)
        for pid in (keeper, guard):
            os.kill(pid, signal.SIGSTOP)  # so that none sees the other end
        for pid in (zygote, keeper, guard, caller):
            os.kill(pid, signal.SIGKILL)
        assert all(stdio.readable(pidfd, 30) for pidfd in pidfds[:3])
        assert os.path.isdir(group)
        host.reset_all()
        assert not os.path.exists(group)
        assert cgroup.left_over() == []


def test_the_group_of_a_lab_host_that_lives_is_not_left_over() -> None:
    with busy() as (_, keeper, _, group, _):
        assert group not in cgroup.left_over()
        assert cgroup.remove_left_over() == []
        assert os.path.isdir(group)
        host.reset_all()
        assert not os.path.exists(group)
    assert keeper not in host.running()


def test_a_group_that_only_looks_like_one_is_left_alone() -> None:
    place = cgroup.find()
    folder = Path(place.folder, "labkit-box")
    folder.mkdir()
    try:
        assert cgroup.left_over() == []
    finally:
        folder.rmdir()


def test_a_lab_host_on_the_lab_host_has_its_own_below() -> None:
    def nested() -> tuple[str, str]:
        inner = run_in_child(lambda: Path("/proc/self/cgroup").read_text())
        group = host.current().group
        host.reset()
        return inner, group

    # A fresh interpreter, as a child of the lab host is: it has no lab host of its own yet.
    inner, group = run_in_child(nested)
    assert "0::/host" in inner
    assert group.startswith("/sys/fs/cgroup/labkit-")


def test_neighbours_that_are_frozen_have_ended_when_they_are_ended() -> None:
    for _ in range(20):
        with cgroups.create("shop") as shop:
            neighbours = stressors.Neighbours(stressors.cpu(2), stressors.fork_bomb(6), group=shop)
            shop.freeze()
            neighbours.end()
            assert not shop.populated
            shop.remove()
