"""What happens to a group is told, and not asked for again and again."""

import os
import select

import pytest

from labkit import cgroups
from labkit.cgroups import Cgroup, Limits
from labkit.cgroups.events import Pressure
from labkit.errors import ChildDied, Unsupported
from labkit.process import spawn
from tests.cgroups.test_limits import MIB, allocate, burn, fork_until_refused
from tests.requirements import machine_cannot

SECONDS = 30.0


def test_an_oom_kill_is_told() -> None:
    limits = Limits(memory_max_bytes=24 * MIB, memory_swap_max_bytes=0)
    with cgroups.create("small", limits) as group, group.watch() as watch, spawn(os.getpid) as child:
        group.add(child.pid)
        with pytest.raises(ChildDied):
            child.call(allocate, 64 * MIB)
        assert watch.wait_for("oom_kill", SECONDS) == ("oom_kill", 1)


def test_the_first_process_and_the_end_of_the_last_are_told(group: Cgroup) -> None:
    with group.watch() as watch:
        assert watch.next(0) is None
        with spawn(os.getpid) as child:
            group.add(child.pid)
            assert watch.next(SECONDS) == ("populated", 1)
        assert watch.next(SECONDS) == ("populated", 0)
        assert watch.next(0) is None


def test_freezing_and_refused_forks_are_told() -> None:
    with cgroups.create("few", Limits(pids_max=3)) as group, group.watch() as watch, spawn(os.getpid) as child:
        group.add(child.pid)
        child.call(fork_until_refused, 10)
        assert watch.wait_for("pids_max", SECONDS) == ("pids_max", 1)
        group.freeze()
        assert watch.wait_for("frozen", SECONDS) == ("frozen", 1)
        group.thaw()
        assert watch.wait_for("frozen", SECONDS) == ("frozen", 0)


def test_groups_below_count(group: Cgroup) -> None:
    inner = group.child("inner")
    with group.watch() as watch, spawn(os.getpid) as child:
        inner.add(child.pid)
        assert watch.next(SECONDS) == ("populated", 1)


def test_a_watch_can_be_polled_and_ends_with_the_group() -> None:
    with cgroups.create("short") as group:
        watch = group.watch()
    assert select.select([watch], [], [], SECONDS)[0]
    assert list(watch) == [("removed", 1)]
    assert watch.next(SECONDS) is None
    watch.close()
    watch.close()


def test_pressure_is_told(group: Cgroup) -> None:
    if not os.path.exists("/proc/pressure/cpu"):
        machine_cannot("measure pressure, which its kernel lacks")
    group.set(Limits(cpu_max=(20_000, 100_000)))  # a process that is throttled waits for a processor
    with group.watch(Pressure("cpu", stall_usec=50_000)) as watch, spawn(burn, 1000.0, wait=False) as child:
        group.add(child.pid)
        assert watch.wait_for("cpu_pressure", SECONDS) == ("cpu_pressure", 1)
        assert group.stats().cpu_pressure_usec


def test_without_pressure_it_is_refused(group: Cgroup) -> None:
    if os.path.exists("/proc/pressure/cpu"):
        with pytest.raises(Unsupported, match="refused"):
            run_unprivileged_window(group)
        return
    with pytest.raises(Unsupported, match="PSI"):
        group.watch(Pressure("cpu", stall_usec=50_000))


def run_unprivileged_window(group: Cgroup) -> None:
    if os.geteuid() == 0:
        raise Unsupported("is not refused to root", "")
    group.watch(Pressure("cpu", stall_usec=50_000, window_usec=700_000))


def test_a_group_that_is_gone_cannot_be_watched(group: Cgroup) -> None:
    gone = group.child("gone")
    gone.remove()
    with pytest.raises(FileNotFoundError):
        gone.watch()
    with pytest.raises(FileNotFoundError):
        gone.stats()
