"""The tracer sees what strace sees, of all that a program starts, and leaves nobody stopped."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from labkit import procfs, ptrace
from labkit.errors import Unsupported
from labkit.process import run_in_child, spawn
from labkit.process.stdio import readable
from labkit.tracer import Call, Tracer
from tests.requirements import need_command

# Calls whose numbers depend on who is scheduled when.
UNSTEADY = {"futex", "restart_syscall", "sched_yield", "madvise", "munmap", "mprotect"}
BUSY = """
import os, signal, sys, threading
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
os.kill(os.getpid(), signal.SIGUSR1)
for _ in range(50): os.getppid()
if os.fork() == 0:
    for _ in range(70): os.getppid()
    os._exit(0)
os.wait()
thread = threading.Thread(target=lambda: [os.getppid() for _ in range(30)])
thread.start(); thread.join()
sys.exit(7 if told else 1)
"""


def calls(command: list[str]) -> list[Call]:
    with Tracer() as tracer:
        tracer.start(command)
        return list(tracer)


def straced(command: list[str], folder: Path) -> Counter[str]:
    """The same by strace; calls that never return are counted there neither."""
    out = folder / "strace"
    argv = [need_command("strace"), "-f", "-qq", "-c", "-U", "name,calls", "-o", str(out), *command]
    subprocess.run(argv, capture_output=True, timeout=60)
    rows = [line.split() for line in out.read_text().splitlines()]
    return Counter({row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit() and row[0] != "total"})


def test_it_counts_as_strace_does(busybox: Path, tmp_path: Path) -> None:
    cat = [str(busybox / "bin/busybox"), "cat", "/etc/passwd"]
    for command in (cat, [sys.executable, "-I", "-S", "-c", BUSY]):
        ours = Counter(call.name for call in run_in_child(calls, command) if call.result is not None)
        theirs = straced(command, tmp_path)
        for name in UNSTEADY:
            del ours[name], theirs[name]
        assert ours == theirs


def test_it_follows_forks_and_threads_and_passes_signals_on() -> None:
    found = run_in_child(calls, [sys.executable, "-I", "-S", "-c", BUSY])
    assert [call.name for call in found].count("getppid") == 150
    assert len({call.pid for call in found if call.name == "getppid"}) == 3
    [ended] = [call for call in found if call.name == "exit_group" and call.pid == found[0].pid]
    assert ended.arguments[0] == 7, "the handler of SIGUSR1 has run"
    assert ended.result is None and str(ended).endswith("= ?")


def test_results_and_errors(busybox: Path) -> None:
    found = run_in_child(calls, [str(busybox / "bin/busybox"), "cat", "/no/such/file"])
    failed = [call for call in found if call.name in ("open", "openat") and call.result == -2]
    assert failed and str(failed[-1]).endswith("= -1 (No such file or directory)")


def look(pid: int, *wanted: str) -> bool:
    """Trace a running process until it has made these calls."""
    missing = set(wanted)
    with Tracer() as tracer:
        tracer.attach(pid)
        for call in tracer:
            missing.discard(call.name)
            if not missing:
                return True
    return False


def count_down() -> None:
    while True:
        os.getppid()
        time.sleep(0.001)


def test_a_process_that_runs_is_attached_to_and_runs_on() -> None:
    with spawn(count_down, wait=False) as other:
        assert run_in_child(look, other.pid, "getppid", "clock_nanosleep")
        status = procfs.status(other.pid)
        assert status["TracerPid"] == "0" and status["State"][0] in "RS"
        assert run_in_child(look, other.pid, "getppid"), "and it can be attached to again"


def started_by_a_fork_that_has_ended() -> tuple[int, bool]:
    """The PID of what a fork of the caller has started, traced, and whether it ends with that fork. Nobody stops it."""
    reader, writer = os.pipe()
    if (fork := os.fork()) == 0:
        os.write(writer, str(Tracer().start(["/bin/sleep", "1000"])).encode())
        os._exit(0)
    left = int(os.read(reader, 20))
    pidfd = os.pidfd_open(left)
    os.waitpid(fork, 0)
    return left, readable(pidfd, 10)


def test_what_was_started_ends_with_the_tracer() -> None:
    left, ended = run_in_child(started_by_a_fork_that_has_ended)
    assert ended, "while its session lives on: the session's end would end it, too"
    assert not Path(f"/proc/{left}").exists()


def test_what_was_attached_to_runs_on_after_its_tracer() -> None:
    def leave(pid: int) -> None:
        Tracer().attach(pid)  # and ends, without a stop()

    with spawn(count_down, wait=False) as other:
        run_in_child(leave, other.pid)
        deadline = time.monotonic() + 10
        while procfs.status(other.pid)["TracerPid"] != "0":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert run_in_child(look, other.pid, "getppid")


def test_a_process_that_is_traced_already_may_not_be_traced() -> None:
    def hold(pid: int) -> None:
        ptrace.seize(pid)

    refused = pytest.raises(Unsupported, match="traced already")
    with spawn(count_down, wait=False) as other, spawn(hold, other.pid), refused:
        run_in_child(look, other.pid, "getppid")


def test_a_command_that_is_not_there() -> None:
    found: Any = run_in_child(calls, ["/no/such/program"])
    assert found[0].name == "execve" and found[0].result == -2
    assert found[-1].arguments[0] == 127
