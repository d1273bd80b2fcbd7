"""The walls of a room: what code in it can see, reach, and use up. Each test is code that tries."""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labkit import host, paths, procfs
from labkit.lab.grading import room
from labkit.lab.grading.room import Allowance, Ended

pytestmark = pytest.mark.usefixtures("rooms")


def enclosed(code: str, *, root: bool = True, **allowed: Any) -> Ended:
    allowance = replace(Allowance(wall_seconds=60), **allowed)
    return room.run([room.interpreter(), "-I", "-c", code], allowance=allowance, root=root)


def seen(code: str, root: bool = True) -> Any:
    """What the expression `code` is in a room."""
    ended = enclosed(f"import json, os, sys; print(json.dumps({code}))", root=root)
    assert ended.exit_code == 0, ended
    return json.loads(ended.stdout)


def test_the_environment_and_the_descriptors_are_the_rooms_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the grader")
    assert set(seen("dict(os.environ)")) <= {"PATH", "HOME", "LANG", "PYTHONDONTWRITEBYTECODE", "LC_CTYPE"}
    assert seen("sorted(os.listdir('/proc/self/fd'))")[:3] == ["0", "1", "2"]
    assert len(seen("os.listdir('/proc/self/fd')")) == 4  # and the folder itself


def test_it_is_nobody_outside() -> None:
    assert seen("[os.getuid(), os.getpid()]") == [0, 1]
    assert seen("[os.getuid(), os.getgid(), os.getgroups()]", root=False) == [room.LEARNER, room.LEARNER, []]
    with room._skeleton() as folder:
        running = room.start(["sleep", "100"], folder, stdin=b"", allowance=Allowance(), root=True)
        with running:
            uid = int(procfs.status(running.pid)["Uid"].split()[0])
            assert uid not in (0, os.getuid())
            assert procfs.namespace_inode(running.pid, "user") != procfs.namespace_inode(os.getpid(), "user")
            kinds = ("mnt", "pid", "net", "ipc", "uts")
            assert all(
                procfs.namespace_inode(running.pid, kind) != procfs.namespace_inode(host.pid(), kind) for kind in kinds
            )


def test_files_of_the_machine_are_not_there() -> None:
    checkout = paths.checkout()
    hidden = ["/etc/shadow", "/root", "/home", "/var/lib", f"{checkout}/labs", f"{checkout}/tests", f"{checkout}/.git"]
    assert seen(f"{{path: os.listdir(path) for path in {hidden} if os.path.exists(path)}}") == {}
    assert not seen(f"os.path.exists('{checkout}')")
    assert seen(f"sorted(os.listdir('{room.COURSE}'))") == [".lab", "labkit", "rootfs"]


@pytest.mark.parametrize("root", [True, False], ids=["root", "learner"])
@pytest.mark.parametrize("place", ["/", "/usr", "/etc", "package", "/proc/sys/kernel/hostname", "/sys/x"])
def test_nothing_but_tmp_can_be_written_to(place: str, root: bool) -> None:
    path = f"{room.COURSE}/labkit" if place == "package" else place
    target = path if "hostname" in path or path == "/sys/x" else f"{path}/planted"
    assert enclosed(f"open({target!r}, 'w').write('planted')", root=root).exit_code == 1
    assert not Path(target).exists() or "hostname" in target


def test_a_read_only_mount_cannot_be_made_writable() -> None:
    code = f"""
import shutil
import sys
sys.path.insert(0, {room.COURSE!r})
from labkit import constants as c, syscalls
syscalls.unshare(c.CLONE_NEWUSER | c.CLONE_NEWNS)
syscalls.mount(None, "/usr", None, c.MS_BIND | c.MS_REMOUNT)
"""
    ended = enclosed(code)
    assert ended.exit_code == 1
    assert "PermissionError" in ended.stderr


def test_what_is_left_in_tmp_is_gone() -> None:
    assert enclosed("open('/tmp/planted', 'w').write('for the next'); print(1)").exit_code == 0
    assert seen("os.listdir('/tmp')") == []


def test_there_is_no_network() -> None:
    assert seen("os.listdir('/sys/class/net')") == ["lo"]
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    assert "Network is unreachable" in enclosed(code).stderr


def test_output_is_cut_and_costs_no_memory() -> None:
    ended = enclosed("import sys\nfor _ in range(300): sys.stdout.write('x' * 1000000)", output_bytes=1000)
    assert (ended.exit_code, len(ended.stdout)) == (0, 1000)


def test_too_much_memory_ends_it() -> None:
    ended = enclosed("kept = []\nwhile True: kept.append(bytearray(b'x' * (1 << 24)))", memory_bytes=256 << 20)
    assert "256 MiB of memory" in ended.trouble
    assert ended.exit_code == 137


def test_memory_of_all_its_processes_counts_together() -> None:
    code = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        kept = b"x" * (100 << 20)
        time.sleep(60)
time.sleep(60)
"""
    assert "256 MiB of memory" in enclosed(code, memory_bytes=256 << 20).trouble


def test_what_processes_share_counts_once() -> None:
    code = """
import os, time
kept = b"x" * (100 << 20)
children = [os.fork() for _ in range(1)] or 0
if children[0] == 0:
    time.sleep(1)
    os._exit(0)
os.wait()
"""
    assert enclosed(code, memory_bytes=180 << 20).trouble == ""


def test_a_fork_bomb_stays_small() -> None:
    code = """
import os
made = 0
try:
    while True:
        if os.fork() == 0:
            import signal
            signal.pause()
        made += 1
except BlockingIOError:
    print(made)
"""
    ended = enclosed(code, root=False)
    assert (ended.exit_code, int(ended.stdout) < 64) == (0, True)


def test_too_much_processor_time_ends_it() -> None:
    ended = enclosed("while True: pass", cpu_seconds=1.0)
    assert "1 s of processor time" in ended.trouble


def test_processor_time_of_many_that_end_counts_too() -> None:
    code = """
import os, time
while True:
    if os.fork() == 0:
        end = time.process_time() + 0.25
        while time.process_time() < end: pass
        os._exit(0)
    os.wait()
"""
    assert "processor time" in enclosed(code, cpu_seconds=1.5, wall_seconds=30).trouble


def test_time_ends_it_whatever_it_holds_on_to() -> None:
    code = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in range(1, 9)]; time.sleep(100)"
    ended = enclosed(code, wall_seconds=1.0)
    assert ended.trouble == "it had not ended after 1 s"


def test_files_and_tmp_have_an_end() -> None:
    code = "import errno\ntry:\n    open('/tmp/x', 'wb').write(bytes(64 << 20))\nexcept OSError as e: print(e.errno)"
    assert enclosed(code, tmp_bytes=16 << 20).stdout.strip() == "28"  # ENOSPC


def test_a_checkout_may_lie_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Below /tmp, which a room has its own of; with blanks in its path; in a folder that only its owner may enter."""
    place = tmp_path / "a course; of ours"
    place.mkdir(mode=0o700)
    for name in ("labkit", "rootfs"):
        shutil.copytree(paths.checkout() / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(paths, "checkout", lambda: place)
    assert room.unsupported() is None
    code = "from labkit import paths; print(paths.checkout())"
    ended = room.run([room.interpreter(), "-I", "-c", f"import sys; sys.path.insert(0, '{room.COURSE}'); {code}"])
    assert ended.stdout == f"{room.COURSE}\n", ended
    assert str(tmp_path) not in room.run(["cat", "/proc/self/cmdline", "/proc/self/environ"]).stdout


def test_a_python_below_tmp_is_told_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/tmp/python")
    lack = room.unsupported()
    assert lack
    assert "installed elsewhere" in str(lack)
