"""The lab host: apart from the machine, and gone without a trace however it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit import constants as c
from labkit import host, procfs, syscalls
from labkit.process import run_in_child, spawn, stdio

ROOT = Path(__file__).resolve().parents[2]


def test_its_namespaces_are_its_own_but_for_the_pids() -> None:
    theirs = host.namespaces()
    ours = {kind: procfs.namespace_inode("self", kind) for kind in theirs}
    same = {kind for kind in theirs if theirs[kind] == ours[kind]}
    expected = {"pid", "user", "time"} if os.geteuid() == 0 else {"pid", "time"}
    assert same == expected & set(os.listdir("/proc/self/ns"))  # not every kernel has time namespaces
    assert run_in_child(socket.gethostname) == "labhost"


def test_one_is_root_there() -> None:
    assert run_in_child(os.geteuid) == 0
    assert int(run_in_child(procfs.status, "self")["CapEff"], 16) & 1 << 21  # CAP_SYS_ADMIN


def test_its_mounts_are_shared_among_themselves_and_slaves_of_the_machines() -> None:
    root = next(m for m in procfs.mountinfo(host.pid()) if m.mount_point == "/")
    assert root.is_shared


def test_what_is_mounted_there_stays_there(tmp_path: Path) -> None:
    with spawn(syscalls.mount, "none", str(tmp_path), "tmpfs"):
        assert str(tmp_path) in [m.mount_point for m in procfs.mountinfo(host.pid())]
        assert str(tmp_path) not in [m.mount_point for m in procfs.mountinfo()]
    host.reset()


def test_its_network_is_its_own_with_loopback_up() -> None:
    assert run_in_child(lambda: [name for _, name in socket.if_nameindex()])[0] == "lo"

    def listen() -> bool:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
        return True

    assert run_in_child(listen)


def test_a_host_that_died_is_replaced() -> None:
    first, keeper = host.pid(), os.pidfd_open(host.current().keeper_pid)
    os.kill(first, signal.SIGKILL)
    assert stdio.readable(keeper, 10)
    os.close(keeper)
    assert host.pid() != first
    assert run_in_child(socket.gethostname) == "labhost"


def test_a_proc_mounted_over_the_hosts_does_not_end_it() -> None:
    def leak() -> None:
        syscalls.unshare(c.CLONE_NEWPID)
        if os.fork() == 0:
            syscalls.mount("proc", "/proc", "proc")
            os._exit(0)
        os.wait()

    with spawn(os.getpid) as witness, spawn(leak):
        with spawn(lambda: subprocess.Popen(["sleep", "1000"]).pid) as other:
            pidfd = os.pidfd_open(other.value)
        assert stdio.readable(pidfd, 10), "what an ended child left was not ended"
        os.close(pidfd)
        assert witness.alive
        assert witness.call(os.getpid) == witness.pid
    host.reset()
    assert not witness.alive


def test_reset_is_complete_and_can_be_repeated() -> None:
    child = spawn(os.getpid)
    host.reset()
    host.reset()
    assert not Path(f"/proc/{child.pid}").exists()


# A process with a lab host, with children of every kind in it: parked, programs, orphans of an orphan's own session,
# and a container. It prints their PIDs and waits to be killed.
BUSY = """
import os, subprocess, sys
from labkit import host, rootfs
from labkit.process import spawn
from labkit.container import start

def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv('/bin/sleep', ['sleep', '1000'])
        os._exit(0)
    os.wait()  # so the sleeping process is an orphan by now, in a session of its own

children = [spawn(os.getpid), spawn(daemon), spawn(os.execv, '/bin/sleep', ['sleep', '1000'])]
try:
    children.append(start(['sh', '-c', 'sleep 1000 & sleep 1000']))
except Exception as error:
    print(error, file=sys.stderr)
print(host.current().keeper_pid, host.pid(), flush=True)
sys.stdin.read()
"""


def _kill_caller(caller: int, keeper: int, zygote: int) -> None:
    os.kill(caller, signal.SIGKILL)


def _kill_zygote(caller: int, keeper: int, zygote: int) -> None:
    os.kill(zygote, signal.SIGKILL)


def _kill_keeper(caller: int, keeper: int, zygote: int) -> None:
    os.kill(keeper, signal.SIGKILL)


def _reset_all(caller: int, keeper: int, zygote: int) -> None:
    assert keeper in host.running()
    assert keeper in host.reset_all()


@pytest.mark.parametrize("kill", [_kill_caller, _kill_zygote, _kill_keeper, _reset_all])
def test_nothing_is_left_whoever_is_killed(kill: Callable[[int, int, int], None], busybox: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "LABKIT_STATE": str(busybox.parents[1])}
    busy = [sys.executable, "-c", BUSY]
    with subprocess.Popen(busy, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as caller:
        try:
            assert caller.stdout
            keeper, zygote = map(int, caller.stdout.readline().split())
            everything = [keeper, *procfs.descendants(keeper)]
            assert len(everything) >= 7  # keeper, zygote, two parked, two sleeping, the container
            pidfds = [os.pidfd_open(pid) for pid in everything]
            kill(caller.pid, keeper, zygote)
            left = [pid for pid, pidfd in zip(everything, pidfds, strict=True) if not stdio.readable(pidfd, 10)]
            for pidfd in pidfds:
                os.close(pidfd)
            assert left == [], "processes were left behind"
        finally:
            caller.kill()


def test_a_machine_without_user_namespaces_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an ordinary user in a user namespace whose own limit is 0, no lab host can be made, and the error says why."""
    program = (
        "from labkit import host\ntry: host.current()\nexcept Exception as error: print(type(error).__name__, error)\n"
    )

    def limited() -> str:
        syscalls.unshare(c.CLONE_NEWUSER)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text("0 0 1")
        Path("/proc/sys/user/max_uts_namespaces").write_text("0")
        done = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT)}, capture_output=True)
        return done.stdout.decode() + done.stderr.decode()

    said = run_in_child(limited)
    assert said.startswith("Unsupported this machine does not let you make a lab host"), said
    assert "max_" in said
