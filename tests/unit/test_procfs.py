import os
import subprocess
import sys

import pytest

from labkit import procfs


def test_mountinfo_line_with_optional_fields_and_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    line = r"36 35 98:0 /a\040b /mnt\0112\134 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue"
    monkeypatch.setattr(procfs, "_read", lambda path: line + "\n")
    (mount,) = procfs.mountinfo()
    assert (mount.mount_id, mount.parent_id, mount.device) == (36, 35, "98:0")
    assert (mount.root, mount.mount_point) == ("/a b", "/mnt\t2\\")
    assert mount.propagation == ("master:1", "shared:7")
    assert mount.is_shared
    assert (mount.filesystem, mount.source) == ("ext3", "/dev/root")
    assert mount.super_options == ("rw", "errors=continue")
    assert not mount.is_readonly


def test_mountinfo_without_optional_fields_and_with_an_empty_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "_read", lambda path: "1 0 0:1 / / ro - tmpfs  rw")
    (mount,) = procfs.mountinfo()
    assert mount.propagation == ()
    assert not mount.is_shared
    assert mount.source == ""
    assert mount.is_readonly


def test_own_mounts_have_a_root() -> None:
    assert "/" in [mount.mount_point for mount in procfs.mountinfo()]


def test_stat_with_parentheses_and_spaces_in_the_name() -> None:
    program = "open('/proc/self/comm', 'w').write('a) b (c'); input()"
    with subprocess.Popen([sys.executable, "-c", f"{program}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            while procfs.stat(child.pid)[1] != "a) b (c":
                assert child.poll() is None
            assert int(procfs.stat(child.pid)[3]) == os.getpid()
            assert child.pid in procfs.children(os.getpid())
            # In the order of their PIDs, or of their births: PIDs begin anew some day.
            assert set(procfs._children_by_search(os.getpid())) == set(procfs.children(os.getpid()))
            assert child.pid in procfs.descendants(os.getpid())
            assert procfs.cmdline(child.pid)[0] == sys.executable
            assert procfs.nspid(child.pid)[0] == child.pid
        finally:
            child.kill()


def test_a_process_that_is_gone() -> None:
    pid = 2**22 - 1  # above any PID that is given out here
    for look in (procfs.stat, procfs.status, procfs.cmdline, procfs.children, procfs.mountinfo):
        with pytest.raises(ProcessLookupError):
            look(pid)
