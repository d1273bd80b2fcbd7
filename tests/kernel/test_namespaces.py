import os
import socket
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
