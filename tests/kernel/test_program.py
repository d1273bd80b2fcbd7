"""System calls carried out from a list: by the machine's own loop, by Python in a forked child, and in the caller."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit import constants as c
from labkit.process import run_in_child
from labkit.program import Block, CallFailed, Program, Value, trampoline

# Programs are spawned by processes of a single thread; a child of the zygote is one.


def _without_loop() -> None:
    trampoline._loop, trampoline._tried = None, True


@pytest.fixture(params=["machine loop", "interpreter"])
def prepare(request: pytest.FixtureRequest) -> Callable[[], None]:
    if request.param == "interpreter":
        return _without_loop
    return lambda: None


def test_results_are_arguments_of_later_calls_and_parameters_differ_each_run(
    prepare: Callable[[], None], tmp_path: Path
) -> None:
    def body() -> list[tuple[int, str]]:
        prepare()
        output = Value("output")
        program = Program()
        program.call("dup3", output, 1, 0)
        folder = program.call("open_tree", c.AT_FDCWD, str(tmp_path), c.OPEN_TREE_CLOEXEC, returns="folder")
        program.call("mkdirat", folder, "made", 0o700, may_fail=True)
        program.call("fchdir", folder)
        program.call("execve", "/bin/sh", ("sh", "-c", 'pwd; echo "$1 $VALUE"', "sh", "x y"), ("VALUE=täst",))
        said = []
        for _ in range(3):
            reader, writer = os.pipe()
            pid, pidfd = program.spawn(0, [(output, writer)])
            os.close(writer)
            said.append((os.waitpid(pid, 0)[1], os.read(reader, 1000).decode()))
            os.close(reader)
            os.close(pidfd)
        return said

    assert run_in_child(body) == [(0, f"{tmp_path}\nx y täst\n")] * 3
    assert (tmp_path / "made").is_dir()


def test_the_call_that_fails_is_named_and_nothing_is_left(prepare: Callable[[], None]) -> None:
    def body() -> tuple[Any, ...]:
        prepare()
        program = Program()
        program.step("first")
        program.call("setsid")
        program.step("second")
        program.call("chdir", "/nowhere", may_fail=True)
        program.call("chdir", "/nowhere/else")
        program.step("third")
        program.call("execve", "/bin/true", ("true",), ())
        before = os.listdir("/proc/self/fd")
        try:
            program.spawn(0)
        except CallFailed as error:
            left = os.listdir("/proc/self/fd") != before
            try:
                os.waitpid(-1, os.WNOHANG)
                children = True
            except ChildProcessError:
                children = False
            return error.errno, error.call.step, str(error.call), left, children
        return ()

    assert run_in_child(body) == (2, "second", "chdir('/nowhere/else')", False, False)


def test_a_child_of_the_loop_leaves_the_callers_memory_whole(prepare: Callable[[], None]) -> None:
    def body() -> bool:
        prepare()
        data = {number: str(number) * 10 for number in range(10_000)}
        program = Program()
        program.call("execve", "/bin/true", ("true",), ())
        for _ in range(50):
            pid, pidfd = program.spawn(0)
            os.waitpid(pid, 0)
            os.close(pidfd)
        return data == {number: str(number) * 10 for number in range(10_000)}

    assert run_in_child(body)


def test_a_child_waits_for_its_parent_and_takes_a_descriptor_from_it(prepare: Callable[[], None]) -> None:
    def body() -> tuple[Any, ...]:
        prepare()
        sock, received, status = Value("socket"), Value("received"), Value("status")
        program = Program()
        # struct msghdr: name, its length, iov, how many, control, its length, flags. cmsg(3): a header of 16 bytes.
        message = Block(0, 0, Block(Block(0), 1), 1, Block(0, 0, received), 24, 0)
        program.call("recvmsg", sock, message, 0)
        program.call("dup3", received, 1, 0)
        program.call("write", status, "waited", 6)
        program.call("execve", "/bin/echo", ("echo", "hello"), ())
        seen = []
        for _ in range(2):
            ours, theirs = socket.socketpair()
            status_reader, status_writer = os.pipe()
            reader, writer = os.pipe()
            pid, pidfd = program.clone(0, [(sock, theirs.fileno()), (status, status_writer)], None, asleep=False)
            os.close(status_writer)
            socket.send_fds(ours, [b"x"], [writer])
            os.close(writer)
            said = os.read(status_reader, 100), os.read(status_reader, 100), os.read(reader, 100)
            seen.append((os.waitpid(pid, 0)[1], *said, program.failure()))
            for fd in (pidfd, status_reader, reader):
                os.close(fd)
            ours.close()
            theirs.close()
        return tuple(seen)

    assert run_in_child(body) == ((0, b"waited", b"", b"hello\n", None),) * 2


def test_a_failure_of_a_child_that_runs_beside_its_parent_is_found(prepare: Callable[[], None]) -> None:
    def body() -> tuple[Any, ...]:
        prepare()
        program = Program()
        program.call("chdir", "/nowhere")
        program.call("execve", "/bin/true", ("true",), ())
        pid, pidfd = program.clone(0, (), None, asleep=False)
        status = os.waitpid(pid, 0)[1]
        os.close(pidfd)
        failure = program.failure()
        return os.waitstatus_to_exitcode(status), failure and (failure.errno, str(failure.call))

    assert run_in_child(body) == (127, (2, "chdir('/nowhere')"))


def test_the_loop_is_used_where_there_is_one() -> None:
    assert run_in_child(lambda: trampoline.machine_loop() is not None) == (os.uname().machine in trampoline._LOOP)


def test_perform_raises_as_the_wrappers_do(tmp_path: Path) -> None:
    def body() -> None:
        program = Program()
        program.call("chdir", str(tmp_path))
        program.call("pivot_root", ".", ".")
        program.perform()

    with pytest.raises(OSError, match=r"pivot_root\('\.', '\.'\)"):
        run_in_child(body)
