"""A container is limited, counted, paused and killed by its group, from its first moment to its last process."""

import os
import signal
from pathlib import Path

import pytest

from labkit import cgroups, host, procfs
from labkit.cgroups.limits import IoMax, Limits
from labkit.container import run, start
from labkit.errors import CommandNotFound, Unsupported
from labkit.process import stdio

pytestmark = pytest.mark.usefixtures("busybox")
MIB = 1 << 20
EAT_MEMORY = ["tail", "-c", "200000000", "/dev/zero"]  # tail(1) keeps as many bytes as it is to show at the end


def group_of(pid: int) -> str:
    """The folder of the group that process `pid` is in, by its name in the lab host's tree."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return os.path.basename(next(line for line in lines if line.startswith("0::")))


def test_out_of_memory_is_said_as_such() -> None:
    limits = Limits(memory_max_bytes=24 * MIB, memory_swap_max_bytes=0)
    done = run(EAT_MEMORY, limits=limits, capture=True, timeout=60)
    assert done.exit_code == 137
    assert done.oom_killed


def test_a_kill_by_somebody_else_is_not_called_so() -> None:
    with start(["sleep", "1000"], limits=Limits(memory_max_bytes=64 * MIB)) as container:
        container.signal(signal.SIGKILL)
        done = container.finish(30)
    assert done.exit_code == 137
    assert not done.oom_killed


def test_a_container_may_have_512_processes_and_no_more_unless_told_otherwise() -> None:
    with start(["sleep", "1000"]) as container:
        assert container.group
        assert Path(container.group.path, "pids.max").read_text() == "512\n"
    with start(["sleep", "1000"], limits=Limits(memory_max_bytes=64 * MIB)) as container:
        assert container.group
        assert Path(container.group.path, "pids.max").read_text() == "512\n"
        assert Path(container.group.path, "memory.max").read_text() == f"{64 * MIB}\n"
    done = run(
        ["sh", "-c", "sleep 1000 & sleep 1000 & sleep 1000"], limits=Limits(pids_max=2), capture=True, timeout=60
    )
    assert "fork" in done.stderr
    assert done.exit_code != 0


def test_it_is_born_in_its_group_and_sees_it_as_the_root() -> None:
    assert "0::/\n" in run(["cat", "/proc/self/cgroup"], capture=True, timeout=60).stdout
    with start(["sleep", "1000"]) as container:
        assert container.group
        assert group_of(container.pid) == container.group.name
        assert container.pid in container.group.processes()
        group = container.group.path
        container.kill()
        assert not os.path.exists(group)


def test_a_further_process_is_born_there_too() -> None:
    with start(["sleep", "1000"]) as container:
        assert container.group
        with container.exec(["sleep", "1000"]) as further:
            assert container.group.processes() == sorted([container.pid, further.pid])
        assert "0::/\n" in container.exec(["cat", "/proc/self/cgroup"], capture=True).finish(30).stdout


def test_it_reads_its_figures_and_does_not_set_its_limits() -> None:
    command = "cat /sys/fs/cgroup/pids.max; echo max > /sys/fs/cgroup/pids.max; mkdir /sys/fs/cgroup/more"
    done = run(["sh", "-c", command], limits=Limits(pids_max=77), capture=True, timeout=60)
    assert done.stdout == "77\n"
    assert done.stderr.count("Read-only") == 2


def test_it_cannot_mount_control_groups_of_its_own() -> None:
    command = "mkdir /tmp/g; unshare -m true; echo $?; mount -t cgroup2 none /tmp/g; echo $?"
    done = run(["sh", "-c", command], capture=True, timeout=60)
    assert "0" not in done.stdout.split()


def test_what_it_started_goes_with_it_and_so_does_its_group() -> None:
    with start(["sh", "-c", "setsid sleep 1000 & sleep 1000 & wait"]) as container:
        assert container.group
        path = container.group.path
        with container.group.watch() as watch:
            for _ in range(400):
                if len(container.group.processes()) == 3:
                    break
                watch.next(0.05)
        pidfds = [os.pidfd_open(pid) for pid in container.group.processes()]
        assert len(pidfds) == 3
    assert all(stdio.readable(pidfd, 10) for pidfd in pidfds)
    for pidfd in pidfds:
        os.close(pidfd)
    assert not os.path.exists(path)


def test_one_that_is_paused_can_be_resumed_or_killed() -> None:
    with start(["sh", "-c", "while read line; do echo $line; done"], stdin=b"", capture=True) as container:
        container.finish(30)
    with start(["sleep", "1000"]) as container:
        container.pause()
        assert str(container.state) == "paused"
        container.resume()
        assert str(container.state) == "running"
        container.pause()
    assert container.exit
    assert container.exit.code == 137


def test_one_that_cannot_be_started_leaves_no_group() -> None:
    host.current()
    before = sorted(os.listdir(host.current().group))
    with pytest.raises(CommandNotFound):
        run(["no-such-command"], limits=Limits(pids_max=10))
    with pytest.raises((Unsupported, ValueError), match=r"cpuset|io\.max"):
        run(["true"], limits=Limits(io_max={"250:7": IoMax(wbps=1000)}, pids_max=10))
    assert sorted(os.listdir(host.current().group)) == before


def test_hundreds_of_them_leave_no_group() -> None:
    top = host.current().group
    for _ in range(5):
        running = [start(["sleep", "1000"]) for _ in range(8)]
        assert len(os.listdir(top)) > 8
        for container in running:
            container.kill()
    assert [name for name in os.listdir(top) if os.path.isdir(os.path.join(top, name))] == ["host"]


def test_the_figures_of_one_that_runs_can_be_read() -> None:
    with start(["sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; sleep 1000"]) as container:
        assert container.group
        stats = container.group.stats()
        assert stats.pids_current
        assert stats.memory_current_bytes
        assert procfs.stat(container.pid)[2] in "RSD"
        with container.group.watch() as watch:
            container.kill()
            assert watch.wait_for("populated", 30) == ("populated", 0)
    assert cgroups.unsupported() is None
