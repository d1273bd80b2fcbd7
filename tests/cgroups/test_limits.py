"""Limits bite, and are counted; those that cannot be set are refused, and nothing is left of the attempt."""

import errno
import os
import resource
import signal
import time
from pathlib import Path

import pytest

from labkit import cgroups
from labkit.cgroups import MAX, Cgroup, IoMax, Limits
from labkit.errors import ChildDied, InvalidConfig, Unsupported
from labkit.process import run_in_child, spawn
from tests.cgroups.conftest import need_controller
from tests.requirements import need_root

MIB = 1 << 20


def allocate(size_bytes: int) -> int:
    return len(bytearray(size_bytes))


def burn(seconds: float) -> None:
    """Use up so much processor time, however long that takes."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def fork_until_refused(most: int) -> tuple[int, int]:
    """How many children could be had, and the errno of the next; they are gone when this returns."""
    children: list[int] = []
    number = 0
    try:
        while len(children) < most:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
    except OSError as error:
        number = error.errno or 0
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(children), number


def test_memory_beyond_the_limit_gets_the_process_killed_and_that_is_counted() -> None:
    limits = Limits(memory_max_bytes=32 * MIB, memory_swap_max_bytes=0)
    with cgroups.create("small", limits) as group, spawn(os.getpid) as child:
        group.add(child.pid)
        assert child.call(allocate, 4 * MIB) == 4 * MIB
        assert group.stats().oom_kills == 0
        with pytest.raises(ChildDied, match="SIGKILL"):
            child.call(allocate, 64 * MIB)
        assert child.wait() == 137
        stats = group.stats()
        assert stats.oom_kills == 1
        assert stats.oom_events
        assert stats.memory_peak_bytes is None or 16 * MIB < stats.memory_peak_bytes <= 32 * MIB


def test_without_the_limit_nothing_is_killed(group: Cgroup) -> None:
    with spawn(os.getpid) as child:
        group.add(child.pid)
        assert child.call(allocate, 64 * MIB) == 64 * MIB
    assert group.stats().oom_kills == 0


KEPT: list[bytearray] = []


def grow() -> None:
    KEPT.append(bytearray(MIB // 2))


def test_memory_high_slows_down_and_does_not_kill() -> None:
    with cgroups.create("slow", Limits(memory_high_bytes=16 * MIB)) as group, spawn(os.getpid) as child:
        group.add(child.pid)
        steps = 0
        while not group.stats().memory_high_events and steps < 64:  # beyond the mark, every step takes longer
            child.call(grow)
            steps += 1
        stats = group.stats()
        assert 0 < steps < 64
        assert stats.memory_high_events
        assert stats.oom_kills == 0


def test_forks_beyond_the_limit_are_refused_and_counted() -> None:
    with cgroups.create("few", Limits(pids_max=5)) as group, spawn(os.getpid) as child:
        group.add(child.pid)
        assert child.call(fork_until_refused, 50) == (4, errno.EAGAIN)
        assert group.stats().pids_refused == 1
        group.set(Limits(pids_max=MAX))
        assert child.call(fork_until_refused, 20) == (20, 0)


def test_the_processor_is_taken_away_when_the_quota_is_used_up() -> None:
    with cgroups.create("slow", Limits(cpu_max=(5_000, 20_000))) as group, spawn(os.getpid) as child:
        group.add(child.pid)
        child.call(burn, 0.1)
        stats = group.stats()
        assert stats.cpu_usage_usec is not None
        assert stats.cpu_usage_usec >= 50_000
        assert stats.throttled_periods
        assert stats.throttled_usec
        assert stats.periods is not None
        assert stats.periods >= stats.throttled_periods
    with cgroups.create("free") as group, spawn(os.getpid) as child:
        group.add(child.pid)
        child.call(burn, 0.1)
        assert not group.stats().throttled_periods


def test_what_is_set_stands_in_the_files() -> None:
    limits = Limits(cpus=0.25, cpu_weight=50, memory_low_bytes=4 * MIB, memory_high_bytes=MAX, pids_max=9)
    with cgroups.create("set", limits) as group:
        files = {name: Path(group.path, name).read_text().strip() for name in limits.files()}
        assert files == limits.files()
        group.set(Limits(pids_max=10))
        assert Path(group.path, "pids.max").read_text() == "10\n"
        assert Path(group.path, "cpu.weight").read_text() == "50\n", "what was not named has changed"


def test_a_group_may_not_exceed_the_one_it_lies_in() -> None:
    with cgroups.create("outer", Limits(pids_max=3)) as outer:
        inner = outer.child("inner", Limits(pids_max=100))
        with spawn(os.getpid) as child:
            inner.add(child.pid)
            assert child.call(fork_until_refused, 50) == (2, errno.EAGAIN)


def test_processors_can_be_chosen() -> None:
    need_controller("cpuset")
    with cgroups.create("pinned", Limits(cpuset_cpus="0")) as group, spawn(os.getpid) as child:
        group.add(child.pid)
        assert child.call(os.sched_getaffinity, 0) == {0}
    with pytest.raises(InvalidConfig, match=r"cpuset\.cpus"):
        cgroups.create("absent", Limits(cpuset_cpus="8000"))


def test_a_disk_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="no disk") as refused:
        cgroups.create("disk", Limits(io_max={"250:7": IoMax(wbps=1 * MIB)}))
    assert "io.max" in str(refused.value)


def test_a_controller_that_is_not_there_is_refused_and_nothing_is_left() -> None:
    if "cpuset" in cgroups.controllers():
        with cgroups.create("outer") as outer:
            os.mkdir(f"{outer.path}/inner")  # by hand, and so without controllers
            with pytest.raises(Unsupported, match=r"\+memory"):
                cgroups.find("outer/inner").set(Limits(memory_max_bytes=1 * MIB))
    else:
        with pytest.raises(Unsupported, match="cpuset controller"):
            cgroups.create("pinned", Limits(cpuset_cpus="0", memory_max_bytes=1 * MIB))
        with pytest.raises(InvalidConfig, match="no control group"):
            cgroups.find("pinned")


def test_a_delegated_group_can_be_divided_but_not_enlarged(group: Cgroup) -> None:
    need_root()
    group.set(Limits(memory_max_bytes=64 * MIB))
    group.delegate(65534, 65534)
    os.mkdir(f"{group.path}/start")
    os.chown(f"{group.path}/start/cgroup.procs", 65534, 65534)

    def as_the_user() -> list[str]:
        own, said = cgroups.find("box"), []
        cgroups.write(f"{own.path}/start/cgroup.procs", "0")
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        inner = own.child("inner", Limits(memory_max_bytes=8 * MIB))
        inner.add(os.getpid())
        for refused in (lambda: own.set(Limits(memory_max_bytes=MAX)), lambda: cgroups.create("another")):
            try:
                refused()
            except (Unsupported, OSError) as error:
                said.append(" ".join([type(error).__name__, str(error), *getattr(error, "__notes__", ())]))
        return said

    limit, beside = run_in_child(as_the_user)
    assert limit.startswith("Unsupported")
    assert "has not been delegated" in limit
    assert beside.startswith("PermissionError")
    assert "belongs to uid 0" in beside


def test_what_is_counted_has_begun_with_the_group(group: Cgroup) -> None:
    stats = group.stats()
    assert (stats.oom_kills, stats.pids_current, stats.throttled_periods) == (0, 0, 0)
    with spawn(os.getpid) as child:
        group.add(child.pid)
        assert group.stats().pids_current == 1
        used = child.call(resource.getrusage, resource.RUSAGE_SELF)
        assert group.stats().cpu_usage_usec is not None
        assert used.ru_utime >= 0
