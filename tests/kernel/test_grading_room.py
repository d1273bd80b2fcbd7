"""The walls of a room: what code in it can see, reach, and use up. Each test is code that tries."""

import ctypes
import fcntl
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from labkit import cgroups, host, procfs
from labkit.course.grading import sandbox, sandbox_ids
from labkit.course.grading.sandbox import Allowance, Ended
from labkit.files import state_folder
from tests.requirements import machine_cannot

pytestmark = pytest.mark.usefixtures("rooms")


def enclosed(code: str, *, root: bool = True, **allowed: Any) -> Ended:
    allowance = replace(Allowance(wall_seconds=60), **allowed)
    return sandbox.run([sandbox.interpreter(), "-I", "-c", code], allowance=allowance, root=root)


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
    assert seen("[os.getuid(), os.getgid(), os.getgroups()]", root=False) == [
        sandbox_ids.LEARNER,
        sandbox_ids.LEARNER,
        [],
    ]
    allowance = Allowance()
    with (
        sandbox._skeleton() as folder,
        sandbox_ids.taken() as ids,
        sandbox.started(["sleep", "100"], folder, ids, stdin=b"", allowance=allowance, root=True) as (running, _),
    ):
        uid = int(procfs.status(running.pid)["Uid"].split()[0])
        assert uid not in (0, os.getuid())
        assert procfs.namespace_inode(running.pid, "user") != procfs.namespace_inode(os.getpid(), "user")
        kinds = ("mnt", "pid", "net", "ipc", "uts")
        assert all(
            procfs.namespace_inode(running.pid, kind) != procfs.namespace_inode(host.pid(), kind) for kind in kinds
        )


def test_files_of_the_machine_are_not_there() -> None:
    checkout = state_folder.checkout()
    hidden = ["/etc/shadow", "/root", "/home", "/var/lib", f"{checkout}/labs", f"{checkout}/tests", f"{checkout}/.git"]
    assert seen(f"{{path: os.listdir(path) for path in {hidden} if os.path.exists(path)}}") == {}
    assert not seen(f"os.path.exists('{checkout}')")
    assert seen(f"sorted(os.listdir('{sandbox.COURSE}'))") == [".lab", "labkit", "rootfs"]


@pytest.mark.parametrize("root", [True, False], ids=["root", "learner"])
@pytest.mark.parametrize("place", ["/", "/usr", "/etc", "package", "/proc/sys/kernel/hostname", "/sys/x"])
def test_nothing_but_tmp_can_be_written_to(place: str, root: bool) -> None:
    path = f"{sandbox.COURSE}/labkit" if place == "package" else place
    target = path if "hostname" in path or path == "/sys/x" else f"{path}/planted"
    assert enclosed(f"open({target!r}, 'w').write('planted')", root=root).exit_code == 1
    assert not Path(target).exists() or "hostname" in target


def test_a_read_only_mount_cannot_be_made_writable() -> None:
    code = f"""
import shutil
import sys
sys.path.insert(0, {sandbox.COURSE!r})
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
        shutil.copytree(state_folder.checkout() / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(state_folder, "checkout", lambda: place)
    assert sandbox.unsupported() is None
    code = "from labkit.files import state_folder as paths; print(paths.checkout())"
    ended = sandbox.run(
        [sandbox.interpreter(), "-I", "-c", f"import sys; sys.path.insert(0, '{sandbox.COURSE}'); {code}"]
    )
    assert ended.stdout == f"{sandbox.COURSE}\n", ended
    assert str(tmp_path) not in sandbox.run(["cat", "/proc/self/cmdline", "/proc/self/environ"]).stdout


def test_a_python_below_tmp_is_told_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/tmp/python")
    lack = sandbox.unsupported()
    assert lack
    assert "installed elsewhere" in str(lack)


# What could be used up for others

NEIGHBOUR = """
import array, json, os, socket
mine, theirs = socket.socketpair()
mine.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
print(len(theirs.recvmsg(1, 100)[1]))
"""
HOLDS_DESCRIPTORS = """
import array, os, resource, socket, sys, time
kept = []
try:
    while True:
        pair = socket.socketpair()
        kept += pair
        for _ in range(20):
            pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 50))])
except OSError as error:
    print(len(kept), error, flush=True)
time.sleep(60)
"""
HOLDS_WATCHES = """
import ctypes, sys, time
sys.path.insert(0, {course!r})
from labkit import constants as c, syscalls
libc, count = ctypes.CDLL(None), 0
if {nested}:
    syscalls.unshare(c.CLONE_NEWUSER)
while libc.inotify_init1(0) >= 0:
    count += 1
print(count, flush=True)
time.sleep(60)
"""


@contextmanager
def beside(code: str) -> Iterator[str]:
    """A room that runs `code` while the body does; gives what it has printed first."""
    command = [sandbox.interpreter(), "-I", "-c", code]
    with (
        sandbox._skeleton() as folder,
        sandbox_ids.taken() as ids,
        sandbox.started(command, folder, ids, stdin=b"", allowance=Allowance(), root=False) as (running, _),
    ):
        deadline = time.monotonic() + 60
        while "\n" not in running.output.kept("stdout"):
            assert running.output.pass_on_until(timeout=0.1) or time.monotonic() < deadline
        yield running.output.kept("stdout")


def test_descriptors_in_flight_are_a_rooms_own() -> None:
    with beside(HOLDS_DESCRIPTORS) as said:
        assert "Too many references" in said
        if len(sandbox_ids.ranges()) == 1:
            machine_cannot("have two rooms at once: there are ids for one")
        assert enclosed(NEIGHBOUR, root=False).stdout == "1\n"


@pytest.mark.parametrize("nested", [False, True])
def test_what_watches_files_is_shared_out(nested: bool) -> None:
    libc = ctypes.CDLL(None)
    with beside(HOLDS_WATCHES.format(course=sandbox.COURSE, nested=nested)) as said:
        assert 0 < int(said) <= 16
        mine = [libc.inotify_init1(0) for _ in range(8)]
        try:
            assert -1 not in mine, "the machine's own user has none left"
        finally:
            for fd in mine:
                os.close(fd)


def test_no_two_rooms_have_the_same_users() -> None:
    if len(sandbox_ids.ranges()) == 1:
        machine_cannot("have two rooms at once: there are ids for one")
    with sandbox_ids.taken() as one, sandbox_ids.taken() as other:
        assert one[0][0][1] != other[0][0][1]


def test_who_wants_to_be_alone_waits_for_the_others_and_lets_nobody_pass() -> None:
    order: list[str] = []
    begun = threading.Event()

    def alone() -> None:
        begun.set()
        with sandbox_ids.taken(alone=True):
            order.append("alone")

    def another() -> None:
        with sandbox_ids.taken():
            order.append("another")

    with sandbox_ids.taken():
        threads = [threading.Thread(target=alone)]
        threads[0].start()
        begun.wait(10)
        until(_turn_is_taken)
        threads.append(threading.Thread(target=another))
        threads[1].start()
        order.append("first")
    for thread in threads:
        thread.join(30)
    assert order == ["first", "alone", "another"]


def _turn_is_taken() -> bool:
    try:
        with sandbox_ids._locked("turn", fcntl.LOCK_SH | fcntl.LOCK_NB):
            return False
    except BlockingIOError:
        return True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


HIDDEN_MEMORY = {
    "in files without a name": """
import os
while True:
    fd = os.memfd_create("x")
    for _ in range(4): os.write(fd, bytes(16 << 20))
""",
    "in a file system in memory": """
import os, sys, time
sys.path.insert(0, "/opt/labkit")
from labkit import constants as c, syscalls
uid = os.getuid()
syscalls.unshare(c.CLONE_NEWUSER | c.CLONE_NEWNS)
open("/proc/self/setgroups", "w").write("deny")
for kind in "uid", "gid":
    open(f"/proc/self/{kind}_map", "w").write(f"0 {uid} 1")
syscalls.mount("none", "/tmp", "tmpfs")
for number in range(40):
    with open(f"/tmp/{number}", "wb") as file: file.write(bytes(32 << 20))
time.sleep(30)
""",
    "in sockets": """
import os, socket, time
for _ in range(20):
    if os.fork() == 0: break
kept = []
for _ in range(400):
    pair = socket.socketpair()
    kept.append(pair)
    pair[0].setblocking(False)
    try:
        while True: pair[0].send(bytes(100000))
    except BlockingIOError: pass
time.sleep(30)
""",
}


@pytest.mark.parametrize("code", HIDDEN_MEMORY.values(), ids=HIDDEN_MEMORY)
def test_memory_that_is_no_processs_own_counts(code: str) -> None:
    need_groups()
    ended = enclosed(code, root=False, memory_bytes=256 << 20)
    assert "256 MiB of memory" in ended.trouble or "Cannot allocate memory" in ended.stderr, ended


def test_processor_time_of_short_lived_children_counts() -> None:
    need_groups()
    code = """
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    for _ in range(2):
        if os.fork() == 0:
            for _ in range(300000): pass
            os._exit(0)
    try: os.waitpid(-1, 0)
    except ChildProcessError: pass
"""
    assert "of processor time" in enclosed(code, root=False, cpu_seconds=4).trouble


def need_groups() -> None:
    """Of version 2 or 1; else it is not counted, which the instructor's page says."""
    if cgroups.unsupported() and not os.access("/sys/fs/cgroup/memory", os.W_OK):
        machine_cannot("make control groups")
