import os
import socket
from pathlib import Path
from typing import Any

import pytest

from labkit import constants as c
from labkit import host, namespaces, procfs, syscalls
from labkit.errors import LabkitError
from labkit.process import run_in_child, spawn


def test_labels_and_inodes() -> None:
    label = namespaces.label("self", "uts")
    assert label == os.readlink("/proc/self/ns/uts") == f"uts:[{namespaces.inode('self', 'uts')}]"
    assert set(namespaces.of("self")) <= set(namespaces.KINDS)
    assert set(namespaces.FLAGS) == set(namespaces.KINDS)


@pytest.mark.parametrize("kind", [kind for kind in namespaces.KINDS if kind != "time"])
def test_each_kind_can_be_made_and_is_another(kind: str) -> None:
    with spawn(syscalls.unshare, namespaces.FLAGS[kind]) as child:
        name = "pid_for_children" if kind == "pid" else kind
        here, there = os.stat(f"/proc/{host.pid()}/ns/{kind}").st_ino, None
        if kind == "pid":  # has no inode before its first process
            child.call(_fork_one)
        there = os.stat(f"/proc/{child.pid}/ns/{name}").st_ino
        assert here != there


def _fork_one() -> None:
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", "1000"])


def test_members_lists_who_is_in_it() -> None:
    def isolate() -> None:
        syscalls.unshare(c.CLONE_NEWUTS)

    with spawn(isolate) as child:
        uts = namespaces.inode(child.pid, "uts")
        assert namespaces.members("uts", uts) == [child.pid]
        with spawn(namespaces.enter, child.pid, ("uts",)) as other:
            assert namespaces.members("uts", uts) == sorted([child.pid, other.pid])


def test_inside_sees_what_is_inside() -> None:
    def isolate() -> None:
        syscalls.unshare(c.CLONE_NEWUTS)
        syscalls.sethostname("box")

    with spawn(isolate) as child:
        assert namespaces.inside(child.pid, ("uts",), socket.gethostname) == "box"
        assert run_in_child(socket.gethostname) == "labhost"


def test_inside_a_pid_namespace() -> None:
    def isolate() -> int:
        syscalls.unshare(c.CLONE_NEWPID)
        if (pid := os.fork()) == 0:
            os.execv("/bin/sleep", ["sleep", "1000"])
        return pid

    with spawn(isolate) as child:
        assert procfs.nspid(child.value) == [child.value, 1]
        assert namespaces.inside(child.value, ("pid",), os.getpid) > 1
        with pytest.raises(ZeroDivisionError):
            namespaces.inside(child.value, ("pid",), lambda: 1 // 0)


def test_joining_what_one_is_in_already_does_nothing() -> None:
    assert run_in_child(lambda: namespaces.enter(os.getpid(), namespaces.KINDS[:6])) is None


@pytest.mark.parametrize("look", [namespaces.inode, namespaces.label])
def test_a_kind_that_does_not_exist(look: Any) -> None:
    with pytest.raises(LabkitError, match="there is no kind of namespace called 'host'"):
        look("self", "host")
    with pytest.raises(LabkitError, match="there are mnt, uts"):
        namespaces.members("host", 1)


def test_a_process_that_is_gone() -> None:
    with pytest.raises(ProcessLookupError):
        namespaces.of(2**22 - 1)


def test_errors_explain_themselves() -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        run_in_child(lambda: syscalls.setns(os.open("/", os.O_RDONLY)))
    assert "not of a namespace" in caught.value.__notes__[0]

    def not_a_mount() -> None:
        syscalls.unshare(c.CLONE_NEWNS)
        syscalls.umount2("/usr/bin")

    with pytest.raises(OSError, match="Invalid argument") as caught:
        run_in_child(not_a_mount)
    assert "not a mount point" in caught.value.__notes__[0]


def test_joining_by_process_path_and_a_mount_that_keeps_one_alive(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.touch()

    def isolate() -> None:
        syscalls.unshare(c.CLONE_NEWUTS)
        syscalls.sethostname("box")
        syscalls.mount("/proc/self/ns/uts", str(kept), None, c.MS_BIND)

    def joined(where: int | str) -> str:
        namespaces.join("uts", where)
        return socket.gethostname()

    def compared(where: int) -> tuple[bool, bool]:
        return namespaces.same("uts", where, str(kept)), namespaces.same("uts", os.getpid(), str(kept))

    with spawn(isolate) as child:
        assert run_in_child(joined, child.pid) == "box"
        assert run_in_child(joined, f"/proc/{child.pid}/ns/uts") == "box"
        assert run_in_child(compared, child.pid) == (True, False)
    assert run_in_child(joined, str(kept)) == "box"  # no process is in it any more


def test_what_is_no_namespace_of_the_kind_is_not_joined(tmp_path: Path) -> None:
    for where in ("/proc/self/ns/net", "/etc/passwd", str(tmp_path)):
        with pytest.raises(LabkitError, match="is not a uts namespace"):
            namespaces.join("uts", where)
    for nowhere in ("/nowhere", "a\0b", -1, 1 << 30):
        with pytest.raises(LabkitError, match="there is no uts namespace at"):
            namespaces.join("uts", nowhere)


def test_the_census_has_everybody_once() -> None:
    with spawn(syscalls.unshare, c.CLONE_NEWIPC) as child:
        found = namespaces.census("ipc")
        assert found[namespaces.inode(child.pid, "ipc")] == [child.pid]
        everybody = [pid for pids in found.values() for pid in pids]
        assert len(everybody) == len(set(everybody)) > 1
