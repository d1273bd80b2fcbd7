"""Children that call functions: values, output, exceptions, signals, and that nothing of them is left."""

import json
import linecache
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit import constants as c
from labkit import host, procfs, syscalls
from labkit.course.grading.sandbox import Allowance
from labkit.errors import ChildDied, LabkitError
from labkit.network import proxy
from labkit.process import child as process
from labkit.process import run_in_child, spawn, stdio


def test_value_arguments_and_closure() -> None:
    local = {"a": 1}

    def add(x: int, *, y: int) -> tuple[dict[str, int], int]:
        return local, x + y

    assert run_in_child(add, 2, y=3) == ({"a": 1}, 5)
    assert run_in_child(os.getpid) != os.getpid()


def test_a_function_defined_in_a_cell_travels_by_value() -> None:
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec("import os\nK = 7\ndef helper(): return K\ndef f(): return helper(), os.getppid()", cell)
    value, parent = run_in_child(cell["f"])
    assert value == 7
    assert parent == host.pid()


def test_large_values_and_arguments() -> None:
    blob = os.urandom(3_000_000)
    assert run_in_child(lambda data: data[::-1], blob) == blob[::-1]


def test_output_is_passed_on_live_and_before_the_value(capsys: pytest.CaptureFixture[str]) -> None:
    def talk() -> None:
        print("häl" + "lo")
        print("oops", file=sys.stderr)
        os.system("echo from a program")
        os.write(1, "é".encode()[:1])
        os.write(1, "é".encode()[1:])

    run_in_child(talk)
    out, err = capsys.readouterr()
    assert out == "hällo\nfrom a program\né"
    assert err == "oops\n"


def test_more_output_than_a_pipe_holds(capsys: pytest.CaptureFixture[str]) -> None:
    run_in_child(lambda: print("x" * 1_000_000))
    assert len(capsys.readouterr().out) == 1_000_001


def test_exception_comes_back_with_its_type_notes_and_the_childs_lines() -> None:
    def fail() -> None:
        syscalls.pivot_root("/usr/bin", "/usr/bin")

    with pytest.raises(OSError, match="pivot_root") as caught:
        run_in_child(fail)
    assert caught.value.errno == 22
    cause, where = caught.value.__notes__
    assert "not a mount point" in cause
    assert "of fail()" in where
    assert 'syscalls.pivot_root("/usr/bin", "/usr/bin")' in where
    assert "syscalls.py" not in where


def test_exception_that_cannot_be_pickled() -> None:
    class Odd(Exception):
        def __init__(self) -> None:
            super().__init__("odd", threading.Lock())

    def fail() -> None:
        raise Odd

    with pytest.raises(RuntimeError, match="Odd"):
        run_in_child(fail)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda: os._exit(3), "exit code 3"),
        (lambda: sys.exit(4), "exit code 4"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
        (lambda: os.execv("/bin/false", ["false"]), "exit code 1"),
    ],
)
def test_a_child_that_ends_before_it_answers(end: Callable[[], Any], words: str) -> None:
    with pytest.raises(ChildDied, match=words):
        run_in_child(end)


def test_a_function_that_forks_answers_once() -> None:
    assert run_in_child(lambda: os.fork() and "parent") == "parent"


def test_spawned_child_stays_and_takes_more_calls() -> None:
    def isolate(name: str) -> str:
        syscalls.unshare(c.CLONE_NEWUTS)
        syscalls.sethostname(name)
        return socket.gethostname()

    with spawn(isolate, "box") as child:
        assert child.value == "box"
        assert child.call(socket.gethostname) == "box"
        assert procfs.namespace_inode(child.pid, "uts") != host.namespaces()["uts"]
        with pytest.raises(ZeroDivisionError):
            child.call(lambda: 1 // 0)
        assert child.call(os.getpid) == child.pid
    assert not child.alive
    assert child.wait() == 128 + signal.SIGKILL
    child.kill()
    assert run_in_child(socket.gethostname) == "labhost"


def test_a_spawned_child_may_become_a_program() -> None:
    with spawn(os.execv, "/bin/sleep", ["sleep", "1000"]) as child:
        assert child.value is None
        assert procfs.cmdline(child.pid) == ["sleep", "1000"]
        child.signal(signal.SIGTERM)
        assert child.wait(timeout=10) == 128 + signal.SIGTERM


def test_spawn_without_waiting_and_wait_with_a_limit() -> None:
    with spawn(time.sleep, 1000, wait=False) as child, pytest.raises(TimeoutError):
        child.wait(timeout=0.01)


def test_a_spawned_child_whose_function_fails_is_gone() -> None:
    with pytest.raises(ValueError, match="no"):
        spawn(int, "no")
    assert procfs.children(host.pid()) == []


def join_threads() -> None:
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            thread.join()


def test_output_of_a_parked_child_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    def start_talking() -> None:
        threading.Timer(0.01, lambda: print("later")).start()

    with spawn(start_talking) as child:
        child.call(join_threads)
    assert capfd.readouterr().out == "later\n"


def test_signals_and_descriptors_are_reset() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    leaked, other = os.pipe()
    os.set_inheritable(leaked, True)
    try:
        status, fds = run_in_child(lambda: (procfs.status("self"), sorted(map(int, os.listdir("/proc/self/fd")))))
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        os.close(leaked)
        os.close(other)
    assert int(status["SigBlk"], 16) == 0
    assert int(status["SigIgn"], 16) == 0
    assert fds[:4] == [0, 1, 2, 3]
    assert len(fds) == 5  # the last is the listing's own


def test_what_a_child_leaves_in_its_session_ends_with_it() -> None:
    def leave_some() -> list[int]:
        return [subprocess.Popen(["sleep", "1000"]).pid, subprocess.Popen(["sh", "-c", "sleep 1000 & wait"]).pid]

    with spawn(leave_some) as child:
        assert all(pid in procfs.descendants(child.pid) for pid in child.value)
        pidfds = [os.pidfd_open(pid) for pid in procfs.descendants(child.pid)]
    try:
        for pidfd in pidfds:
            assert stdio.readable(pidfd, 10), "a process was left behind"
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def test_interrupted_call_kills_the_child() -> None:
    with process.Child() as child:
        timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            child.call(time.sleep, 1000)
        assert not child.alive


def test_answered_tells_of_a_function_one_does_not_wait_for() -> None:
    with spawn(time.sleep, 1000, wait=False) as child:
        assert not child.answered(0.01)
    assert child.answered()
    with spawn(lambda: 7, wait=False) as child:
        assert child.answered(10)
        assert child.value == 7
    with spawn(divmod, 1, 0, wait=False) as child, pytest.raises(ZeroDivisionError):
        child.answered(10)


@pytest.mark.parametrize("arguments", [(os.getpid,), (os.execv, "/bin/sleep", ["sleep", "1000"])])
def test_dropping_a_child_kills_it(arguments: tuple[Any, ...]) -> None:
    child = spawn(*arguments)
    pidfd = os.pidfd_open(child.pid)
    del child
    try:
        assert stdio.readable(pidfd, 10)
    finally:
        os.close(pidfd)


def test_many_threads_at_once() -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: results.extend(run_in_child(lambda: n * n) for _ in range(5)))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(n * n for n in range(8) for _ in range(5))


def test_a_fork_of_the_caller_has_a_host_of_its_own() -> None:
    mine = host.pid()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, str(run_in_child(os.getppid)).encode())
            host.reset()
        finally:
            os._exit(0)
    os.close(writer)
    assert int(os.read(reader, 32)) != mine
    os.close(reader)
    os.waitpid(pid, 0)
    assert run_in_child(os.getppid) == mine


def test_child_of_an_ended_host_says_so() -> None:
    child = spawn(os.getpid)
    host.reset()
    with pytest.raises(ChildDied, match=f"process {child.pid} "):
        child.call(os.getpid)
    with pytest.raises(ChildDied, match=f"the lab host has ended, and the process {child.pid} with it"):
        child.wait(timeout=10)
    child.kill()


def test_a_request_that_is_too_large_is_refused() -> None:
    with pytest.raises(LabkitError, match="too large"):
        host.current().request(proxy.start, proxy.ProxySpec(targets=[("x" * 200_000, 1)]), {})


def test_pidfd_is_readable_when_the_child_has_ended() -> None:
    with spawn(os.getpid) as child:
        poll = select.poll()
        poll.register(child.pidfd, select.POLLIN)
        assert poll.poll(0) == []
        child.signal(signal.SIGKILL)
        assert poll.poll(10_000)


def test_a_descriptor_of_a_process_that_is_gone_is_refused_as_such() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        syscalls.pidfd_open(pid)
    with pytest.raises(OSError, match="Invalid argument"):
        syscalls.pidfd_open(-1)


@pytest.mark.parametrize("place", ["file", "/proc/self/environ", "/etc/passwd"])
def test_a_forged_frame_makes_nobody_read_a_file(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "untrusted", True)
    (tmp_path / "file").write_text("only the judge may read this\n")
    file = str(tmp_path / place)
    first_line = Path(file).read_bytes().split(b"\n")[0].decode(errors="replace")
    linecache.getline(file, 1)  # also where it has been read before, for a frame of the judge's own

    def forge() -> None:
        said = json.dumps(["error", ["error", "builtins:ValueError", ["x"], {}], [[file, 1, "f"]]]).encode()
        os.write(3, len(said).to_bytes(8, "little") + said)
        os._exit(0)

    with pytest.raises(ValueError, match="x") as caught:
        run_in_child(forge)
    assert first_line not in "\n".join(caught.value.__notes__)
    assert f"line 1 of f() in {Path(file).name}" in "\n".join(caught.value.__notes__)


def test_the_text_that_the_judge_has_put_there_is_shown_for_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "untrusted", True)
    text = "def f():\n    raise ValueError('of mine')\n"
    monkeypatch.setitem(linecache.cache, "<answer>", (len(text), None, text.splitlines(keepends=True), "<answer>"))
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "<answer>", "exec"), cell)
    with pytest.raises(ValueError, match="of mine") as caught:
        run_in_child(cell["f"])
    assert "raise ValueError('of mine')" in "\n".join(caught.value.__notes__)


def test_an_answer_that_says_it_is_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither kept in memory nor waited for: the judge would be killed for what the answer sends it."""
    monkeypatch.setattr(process, "untrusted", True)
    monkeypatch.setattr(process, "PLAIN_BYTES_MAX", 1000)

    def answer(size: int) -> str:
        return "x" * size

    assert len(run_in_child(answer, 900)) == 900

    def forge() -> None:
        os.write(3, (1001).to_bytes(8, "little"))
        while True:
            os.write(3, b"x" * 1000)

    for function in (forge, lambda: answer(1001)):
        with pytest.raises(ChildDied, match="had returned"):
            run_in_child(function)


def test_what_answers_may_be_at_most_is_far_less_than_a_judge_may_use() -> None:
    assert Allowance().memory_bytes >= process.PLAIN_BYTES_MAX * 8
