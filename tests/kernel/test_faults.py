"""Whatever is killed, stopped, full or interrupted, at whatever moment: a plain error, and nothing is left or lost."""

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import container, host, procfs
from labkit.errors import ChildDied, LabkitError, StartError
from labkit.files import state_folder
from labkit.network import Network
from labkit.process import run_in_child, spawn, stdio
from labkit.program import Program
from tests.kernel.conftest import descriptors


def ends(pid: int) -> int:
    """A descriptor that becomes readable when that process ends."""
    return os.pidfd_open(pid)


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


# --- the lab host is killed or stopped --------------------------------------------------------------------------------


def test_the_cell_can_be_run_again_at_once() -> None:
    for _ in range(10):
        before = host.pid()
        ended = ends(before)
        os.kill(before, signal.SIGKILL)
        assert stdio.readable(ended, 10)  # until then it may still take a request, and not live to answer it
        os.close(ended)
        assert run_in_child(os.getppid) == host.pid() != before


def test_what_ran_on_a_host_that_was_killed_says_so(busybox: Path) -> None:
    with container.start(["sleep", "1000"]) as box, spawn(os.getpid) as child:
        os.kill(host.pid(), signal.SIGKILL)
        for one, what in ((box, "container"), (child, "process")):
            with pytest.raises(ChildDied, match=f"the lab host has ended, and the {what} {one.pid} with it"):
                one.wait(timeout=10)
            assert not one.alive


def test_a_start_on_a_stopped_host_is_refused_and_not_waited_for() -> None:
    pid = host.pid()
    with stopped(pid), pytest.raises(LabkitError, match=f"the lab host is stopped: kill -CONT {pid}"):
        run_in_child(os.getpid)
    assert run_in_child(os.getppid) == pid


@pytest.mark.parametrize("which", ["zygote", "keeper", "both"])
def test_a_stopped_host_can_be_reset(which: str) -> None:
    with spawn(os.getpid) as child:
        pids = {"zygote": host.pid(), "keeper": host.current().keeper_pid}
        watched = [ends(pid) for pid in (*pids.values(), child.pid)]
        with stopped(*(pid for name, pid in pids.items() if which in (name, "both"))):
            host.reset()
            assert [fd for fd in watched if not stdio.readable(fd, 10)] == []
        for fd in watched:
            os.close(fd)


PUBLISHES = """
import sys
from labkit import host
from labkit.network import Network
web = Network("street").endpoint("web", publish={0: 80})
(relay,) = web._relays._started
print(host.current().keeper_pid, host.pid(), relay.pid, web.published[0].host_port, flush=True)
sys.stdin.read()
"""


def test_a_port_is_closed_though_all_its_guards_were_killed_at_once() -> None:
    argv = [sys.executable, "-c", PUBLISHES]
    environ = {**os.environ, "PYTHONPATH": str(state_folder.checkout())}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True) as caller:
        assert caller.stdout
        keeper, zygote, relay, port = map(int, caller.stdout.readline().split())
        watched = ends(relay)
        os.kill(keeper, signal.SIGSTOP)  # so that neither guard sees the other end
        for pid in (caller.pid, zygote, keeper):
            os.kill(pid, signal.SIGKILL)
        assert stdio.readable(watched, 10)
        os.close(watched)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


LEAVES = """
import os, sys
from labkit import container, host
from labkit.process import spawn

def leaves():
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            os.execv("/bin/sleep", ["sleep", "1000"])

box = container.start(["sh", "-c", "sleep 1000 & setsid sleep 1000 & exec sleep 1000"], namespaces={"pid": "host"})
child = spawn(leaves)
one = host.current()
print(one.guard_pid, one.keeper_pid, one.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    "killed",
    [("guard",), ("keeper",), ("zygote",), ("caller",), ("caller", "zygote", "keeper"), ("guard", "keeper"),
     ("guard", "zygote"), ("guard", "zygote", "caller"), ("guard", "keeper", "caller")],
)  # fmt: skip
def test_whoever_is_killed_nothing_stays(killed: tuple[str, ...], busybox: Path) -> None:
    """Neither what shares the machine's PIDs, nor grandchildren that lead sessions of their own."""
    environ = {**os.environ, "PYTHONPATH": str(state_folder.checkout()), "LABKIT_STATE": str(busybox.parents[1])}
    argv = [sys.executable, "-P", "-c", LEAVES]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True) as caller:
        assert caller.stdout
        guard, keeper, zygote = map(int, caller.stdout.readline().split())
        pids = {"guard": guard, "keeper": keeper, "zygote": zygote, "caller": caller.pid}
        left: set[int] = set()
        deadline = time.monotonic() + 20
        while len(left) < 5 and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                left = {pid for pid in below(zygote) if procfs.stat(pid)[1] == "sleep"}
        assert len(left) == 5
        watched = [ends(pid) for pid in left]
        with stopped(*(pids[name] for name in killed)):  # so that none sees the other end
            for name in killed:
                with contextlib.suppress(ProcessLookupError):  # another one of them has seen to it
                    os.kill(pids[name], signal.SIGKILL)
        assert [fd for fd in watched if not stdio.readable(fd, 10)] == []
        for fd in watched:
            os.close(fd)
        caller.kill()


def below(pid: int) -> list[int]:
    """The descendants of a process."""
    found = procfs.children(pid)
    return found + [further for child in found for further in below(child)]


# --- a child is killed while it starts --------------------------------------------------------------------------------


def killed_before_its_execve() -> str:
    """In a child: a program that waits in the middle, and is killed there; what `check` says."""
    reader, writer = os.pipe()
    program = Program()
    program.call("read", reader, b"\0", 1)
    program.call("execve", "/bin/true", ("true",), ())
    pid, pidfd = program.clone(0, (), None, asleep=False)
    os.kill(pid, signal.SIGKILL)
    select.select([pidfd], [], [], 10)
    try:
        program.check(pid, pidfd)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        os.close(reader)
        os.close(writer)
    return "it is said to have executed its command"


def test_an_end_is_not_taken_for_a_start() -> None:
    assert run_in_child(killed_before_its_execve) == "DiedBeforeExecve: it was killed by signal 9"


def newest_child_killed(stop: threading.Event, zygote: int) -> None:
    """Kill whatever the zygote has just started, again and again."""
    while not stop.is_set():
        with contextlib.suppress(OSError):
            for pid in procfs.children(zygote):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["run", "mapped", "created", "terminal", "function"])
def test_children_killed_at_any_moment_cost_nobody_else_anything(how: str, busybox: Path) -> None:
    if how == "mapped" and os.geteuid() != 0:
        pytest.skip("this machine cannot: map ids of other users in a test run of an ordinary user")
    zygote = host.pid()
    before = descriptors()
    stop = threading.Event()
    killer = threading.Thread(target=newest_child_killed, args=(stop, zygote))
    killer.start()
    seen: set[str] = set()
    try:
        for _ in range(60):
            try:
                started(how)
                seen.add("ended well")
            except (StartError, LabkitError) as error:
                seen.add(type(error).__name__)
    finally:
        stop.set()
        killer.join()
    gc.collect()
    assert host.pid() == zygote, "the lab host is the same"
    assert seen - {"ended well"}, "none was hit"
    assert descriptors() == before
    assert run_in_child(os.getppid) == zygote


def started(how: str) -> None:
    mapping = [(0, 100000, 1000)]
    if how == "run":
        if container.run(["true"]).exit_code:
            raise LabkitError("killed")
    elif how == "mapped":
        container.run(["true"], uid_mappings=mapping, gid_mappings=mapping)
    elif how == "created":
        with container.create(["true"]) as box:
            box.start()
            box.wait()
    elif how == "terminal":
        with container.start(["true"], terminal=True) as box:
            box.wait()
    else:
        run_in_child(os.getpid)


# --- the stop button --------------------------------------------------------------------------------------------------


# Starts one thing after another while another process interrupts it; then says how often it was, and what is open now
# that was not before.
INTERRUPTED = """
import faulthandler, gc, os, random, signal, sys, time
from tests.kernel.conftest import descriptors
from tests.kernel.test_faults import started
how, rounds = sys.argv[1], 300
faulthandler.dump_traceback_later(150, exit=True)

armed = False
def interrupt(*_):
    global armed
    if armed:  # else the script itself is at work, between one try and the next
        armed = False
        raise KeyboardInterrupt

started(how)
gc.collect()
before, me, draw, came = descriptors(), os.getpid(), random.Random(how), 0
signal.signal(signal.SIGINT, interrupt)
interrupter = os.fork()
while interrupter == 0:
    time.sleep(draw.uniform(0.001, 0.012))
    if os.getppid() != me:
        os._exit(0)
    os.kill(me, signal.SIGINT)
for _ in range(rounds):
    try:
        armed = True
        started(how)
        armed = False
    except KeyboardInterrupt:
        came += 1
os.kill(interrupter, signal.SIGKILL)
os.waitpid(interrupter, 0)
gc.collect()
print(came, {fd: what for fd, what in descriptors().items() if before.get(fd) != what})
"""


@pytest.mark.parametrize("how", ["run", "created", "terminal", "function"])
def test_interrupts_at_any_moment_leave_nothing_open(how: str, busybox: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(state_folder.checkout()), "LABKIT_STATE": str(busybox.parents[1])}
    argv = [sys.executable, "-c", INTERRUPTED, how]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=200)
    came, _, left = done.stdout.partition(" ")
    assert int(came or 0) > 50, done.stderr
    assert left == "{}\n"


# --- something is full ------------------------------------------------------------------------------------------------


def test_a_network_without_a_place_for_its_files_leaves_no_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("tempfile.tempdir", "/proc")
        with pytest.raises(LabkitError, match="making the network 'street' failed"):
            Network("street")
    with Network("street") as street:
        assert street.endpoint("a").address


@pytest.mark.parametrize("limit", range(4, 30, 3))
def test_with_few_descriptors_there_is_a_plain_error(limit: int) -> None:
    program = """
import resource, sys
from labkit import host
from labkit.errors import LabkitError
from labkit.process import run_in_child
import os
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2)
try:
    run_in_child(os.getpid)
    print("ran")
except LabkitError as error:
    print("LabkitError", error)
"""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > limit
    argv = [sys.executable, "-c", program, str(limit)]
    environ = {**os.environ, "PYTHONPATH": str(state_folder.checkout())}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(("ran", "LabkitError")), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
