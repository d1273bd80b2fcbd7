"""Errors that a learner meets when they do it by hand: each says which of the many rules it was."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit import cgroups, host
from labkit.process import run_in_child, spawn
from tests.requirements import need_root

ROOT = Path("/sys/fs/cgroup")


def the_note_on(fn: Callable[[], object], number: int) -> str:
    """What is noted on the error that `fn` meets in a child on the lab host."""
    with pytest.raises(OSError) as met:
        run_in_child(fn)
    assert met.value.errno == number
    notes: list[str] = [note for note in met.value.__notes__ if not note.startswith("In the child")]
    assert len(notes) == 1, notes
    return notes[0]


def enter(name: str) -> Path:
    group = ROOT / name
    group.mkdir()
    (group / "cgroup.procs").write_text(str(os.getpid()))
    return group


def handing_on_while_holding_processes() -> None:
    with open(enter("m") / "cgroup.subtree_control", "w") as file:
        file.write("+memory")


def handing_on_what_is_not_there() -> None:
    (ROOT / "m/n").mkdir(parents=True)
    (ROOT / "m/n/cgroup.subtree_control").write_text("+memory")


def handing_on_what_is_none() -> None:
    (ROOT / "m").mkdir()
    (ROOT / "m/cgroup.subtree_control").write_text("+magic")


def without_a_sign() -> None:
    (ROOT / "m").mkdir()
    (ROOT / "m/cgroup.subtree_control").write_text("memory")


def taking_away_what_is_used_below() -> None:
    (ROOT / "m/n/o").mkdir(parents=True)
    (ROOT / "m/cgroup.subtree_control").write_text("+memory")
    (ROOT / "m/n/cgroup.subtree_control").write_text("+memory")
    (ROOT / "m/cgroup.subtree_control").write_text("-memory")


def entering_a_group_that_hands_on() -> None:
    (ROOT / "cgroup.procs").write_text(str(os.getpid()))


def a_limit_without_the_controller() -> None:
    (ROOT / "m/n").mkdir(parents=True)
    (ROOT / "m/n/memory.max").write_text("1M")


def a_limit_that_is_no_number() -> None:
    (ROOT / "m").mkdir()
    (ROOT / "m/cpu.max").write_text("20%")


def a_limit_of_the_lab_host_itself() -> None:
    (ROOT / "memory.max").write_text("1G")


def a_process_that_is_not_there() -> None:
    (ROOT / "m").mkdir()
    (ROOT / "m/cgroup.procs").write_text("4194303")


def a_group_that_is_not_there() -> None:
    (ROOT / "m/cgroup.procs").write_text("0")


def removing_one_that_is_in_use() -> None:
    os.rmdir(enter("m"))


def removing_one_with_groups_below() -> None:
    (ROOT / "m/n").mkdir(parents=True)
    (ROOT / "m").rmdir()


def a_tree_of_threads() -> None:
    (enter("m") / "cgroup.subtree_control").write_text("+cpu")  # the kernel lets that pass
    (ROOT / "m/cgroup.subtree_control").write_text("+memory")


def below_a_tree_of_threads() -> None:
    (enter("m") / "cgroup.subtree_control").write_text("+pids")
    (ROOT / "m/n").mkdir()
    (ROOT / "m/n/cgroup.procs").write_text(str(os.getpid()))


@pytest.mark.parametrize(
    ("mistake", "number", "words"),
    [
        (handing_on_while_holding_processes, errno.EBUSY, "This group still holds process"),
        (handing_on_what_is_not_there, errno.ENOENT, f"must be in {ROOT}/m/cgroup.subtree_control first"),
        (handing_on_what_is_none, errno.EINVAL, "no magic to hand on"),
        (without_a_sign, errno.EINVAL, "a sign in front"),
        (taking_away_what_is_used_below, errno.EBUSY, "(n) still hands the controller on"),
        (entering_a_group_that_hands_on, errno.EBUSY, "may hold no processes itself"),
        (a_limit_without_the_controller, errno.EACCES, f'write "+memory" to {ROOT}/m/cgroup.subtree_control'),
        (a_limit_that_is_no_number, errno.EINVAL, "microseconds in each period"),
        (a_limit_of_the_lab_host_itself, errno.EPERM, "root of this cgroup namespace"),
        (a_process_that_is_not_there, errno.ESRCH, "no process 4194303"),
        (a_group_that_is_not_there, errno.ENOENT, f"no group {ROOT}/m: mkdir"),
        (removing_one_that_is_in_use, errno.EBUSY, "kill or move them first"),
        (removing_one_with_groups_below, errno.EBUSY, "groups below it: n"),
        (a_tree_of_threads, errno.EOPNOTSUPP, '"domain threaded"'),
        (below_a_tree_of_threads, errno.EOPNOTSUPP, "cgroup.type"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_error_says_which_rule_it_was(mistake: Callable[[], None], number: int, words: str) -> None:
    assert words in the_note_on(mistake, number)


def test_what_has_not_been_delegated_is_said_to_be_another_users() -> None:
    need_root()

    def as_another_user() -> None:
        os.setresuid(65534, 65534, 65534)
        (ROOT / "mine").mkdir()

    assert f"{ROOT} has not been delegated to uid 65534" in the_note_on(as_another_user, errno.EACCES)


def test_moving_another_users_process_takes_three_permissions() -> None:
    need_root()

    def as_another_user() -> None:
        (ROOT / "theirs").mkdir()
        for name in ("", "/cgroup.procs"):
            os.chown(f"{ROOT}/theirs{name}", 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        (ROOT / "theirs/cgroup.procs").write_text(str(os.getpid()))

    assert "cgroup.procs of three groups" in the_note_on(as_another_user, errno.EACCES)


def test_an_error_elsewhere_has_no_such_note() -> None:
    with pytest.raises(FileNotFoundError) as met:
        run_in_child(Path("/nowhere/cgroup.procs").read_text)
    assert [note for note in met.value.__notes__ if "group" in note.splitlines()[0]] == []


def test_the_note_reaches_who_uses_labkits_own_write() -> None:
    with spawn(os.getpid) as child, cgroups.create("m") as group:
        group.add(child.pid)
        with pytest.raises(OSError, match=r"writing '\+memory' to") as met:
            cgroups.write(f"{group.path}/cgroup.subtree_control", "+memory")
        assert f"process {child.pid}" in met.value.__notes__[0]
        assert host.current().group in str(met.value)
