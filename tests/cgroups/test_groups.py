"""Groups: made, found, entered, frozen, killed and removed, from the notebook's side and from the lab host's."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit import cgroups, host, procfs
from labkit.cgroups import Cgroup, Limits
from labkit.errors import ChildDied, InvalidConfig
from labkit.process import Child, run_in_child, spawn, stdio


def group_of(pid: int) -> str:
    """The v2 group of a process, as the caller's cgroup namespace names it."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def test_the_lab_hosts_group_is_the_root_of_what_it_sees() -> None:
    top = host.current().group
    assert os.path.basename(top) == f"labkit-{host.current().guard_pid}"
    assert run_in_child(lambda: group_of(os.getpid())) == "/host"
    mount = next(
        m for m in procfs.mountinfo(host.pid()) if m.mount_point == "/sys/fs/cgroup" and m.root.endswith(top[-8:])
    )
    assert mount.filesystem == "cgroup2"
    assert host.pid() in [int(line) for line in Path(top, "host/cgroup.procs").read_text().split()]
    assert Path(top, "cgroup.procs").read_text() == ""
    assert group_of(host.current().keeper_pid) == group_of(os.getpid()), "the keeper is not outside"


def test_a_learner_makes_one_by_hand() -> None:
    def by_hand() -> str:
        root = Path("/sys/fs/cgroup")
        (root / "mine").mkdir()
        (root / "mine/pids.max").write_text("7")
        (root / "mine/cgroup.procs").write_text(str(os.getpid()))
        return group_of(os.getpid())

    with spawn(by_hand) as child:
        assert child.value == "/mine"
        assert cgroups.find("mine").processes() == [child.pid]
        assert Path(host.current().group, "mine/pids.max").read_text() == "7\n"
    cgroups.find("mine").remove()


def test_what_lies_above_is_out_of_reach() -> None:
    keeper = host.current().keeper_pid

    def reach_out() -> list[str]:
        said = []
        for file, text in (("pids.max", "5"), ("host/cgroup.procs", str(keeper))):
            try:
                cgroups.write(f"/sys/fs/cgroup/{file}", text)
            except OSError as error:
                said.append(error.__notes__[0])
        return [*said, *sorted(os.listdir("/sys/fs/cgroup/.."))]

    own_limit, keeper_in, *names = run_in_child(reach_out)
    assert "root of this cgroup namespace" in own_limit
    assert "nothing can be moved over that border" in keeper_in or "three groups" in keeper_in
    assert os.path.basename(host.current().group) not in names


def test_a_group_is_the_same_from_both_sides(group: Cgroup) -> None:
    with spawn(os.getpid) as child:
        child.call(group.add, child.pid)
        assert group.processes() == [child.pid] == child.call(group.processes)
        assert child.call(lambda: group.path) == "/sys/fs/cgroup/box"
        assert child.call(lambda: cgroups.create("another").name) == "another"
    cgroups.find("another").remove()


def test_groups_below_have_every_controller(group: Cgroup) -> None:
    inner = group.child("a").child("b", Limits(pids_max=5))
    assert inner.name == "box/a/b"
    assert set(Path(inner.path, "cgroup.controllers").read_text().split()) == set(cgroups.controllers())
    assert [child.name for child in group.children()] == ["box/a"]
    assert cgroups.find("box/a/b").path == inner.path


def test_a_group_that_holds_processes_hands_nothing_on(group: Cgroup) -> None:
    with spawn(os.getpid) as child:
        group.add(child.pid)
        with pytest.raises(OSError, match="subtree_control") as refused:
            group.child("inner")
        assert f"still holds process {child.pid}" in refused.value.__notes__[0]
        assert group.children() == []
        assert Path(group.path, "cgroup.type").read_text() == "domain\n"


def test_a_name_that_is_taken_is_refused(group: Cgroup) -> None:
    for name in ("box", "host"):
        with pytest.raises(InvalidConfig, match="already"):
            cgroups.create(name)


def test_removal_says_who_is_in_the_way(group: Cgroup) -> None:
    inner = group.child("inner")
    with spawn(os.getpid) as child:
        inner.add(child.pid)
        with pytest.raises(OSError, match="busy") as refused:
            group.remove()
        assert f"inner below it still holds process {child.pid}" in refused.value.__notes__[0]
    inner.child("deep").child("deeper")
    group.remove()
    assert not os.path.exists(group.path)
    group.remove()


def test_frozen_processes_stand_still_and_go_on(group: Cgroup) -> None:
    with spawn(os.getpid) as child:
        group.add(child.pid)
        group.freeze()
        assert group.frozen
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(child.call(os.getpid)))
        asking.start()
        with spawn(os.getpid) as other:  # time goes by
            assert other.call(os.getpid) == other.pid
        assert answers == []
        group.thaw()
        asking.join(20)
        assert answers == [child.pid]
        assert not group.frozen


def test_killing_is_complete_frozen_or_not(group: Cgroup) -> None:
    def family() -> list[int]:
        return [subprocess.Popen(["sleep", "1000"]).pid for _ in range(3)]

    inner = group.child("inner")
    with spawn(os.getpid) as child:
        inner.add(child.pid)
        pidfds = [os.pidfd_open(pid) for pid in [child.pid, *child.call(family)]]
        group.freeze()
        group.kill()
        assert not group.populated
        assert all(stdio.readable(pidfd, 10) for pidfd in pidfds)
        for pidfd in pidfds:
            os.close(pidfd)
        assert child.wait() == 128 + signal.SIGKILL
    group.kill()  # nobody is left, and that is fine


def call_and_be_killed(child: Child, fn: Callable[[], None]) -> None:
    with pytest.raises(ChildDied):
        child.call(fn)


def test_a_fork_bomb_is_killed_whole() -> None:
    def bomb() -> None:
        while True:
            try:
                os.fork()
            except OSError:
                continue

    with cgroups.create("bomb", Limits(pids_max=30)) as group, spawn(os.getpid) as child:
        group.add(child.pid)
        with group.watch() as watch:
            bombing = threading.Thread(target=call_and_be_killed, args=(child, bomb))
            bombing.start()
            assert watch.wait_for("pids_max", 30)
            group.kill()
            assert not group.populated
            bombing.join(20)
    assert run_in_child(os.getuid) == 0, "the lab host did not survive"


def test_leaving_the_block_removes_processes_and_all() -> None:
    with spawn(os.getpid) as child, cgroups.create("held") as group:
        group.add(child.pid)
    assert not child.alive
    assert not os.path.exists(group.path)


def test_a_process_that_is_not_there_cannot_be_added(group: Cgroup) -> None:
    with pytest.raises(ProcessLookupError) as refused:
        group.add(4_194_303)
    assert "no process 4194303" in refused.value.__notes__[0]


def test_the_controllers_are_known_on_both_sides() -> None:
    assert cgroups.unsupported() is None
    assert {"cpu", "memory", "pids"} <= set(cgroups.controllers())
    assert run_in_child(cgroups.controllers) == cgroups.controllers()
    assert run_in_child(cgroups.unsupported) is None
