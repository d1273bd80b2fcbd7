"""How a command's run begins and ends, and that nothing is left of it. On the kind that boots fastest."""

import os
import pwd
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labkit import vm
from labkit.errors import InvalidConfig, LabkitError, Unsupported
from labkit.vm import guest_init, kernels, qemu, run_command, uml
from tests.vm.conftest import Traces

pytestmark = pytest.mark.timeout(300)

CLI = [sys.executable, "-m", "labkit.vm"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


# Ends


def test_every_way_to_end_has_its_exit_code(quick: str, traces: Traces) -> None:
    # One machine: the shell in it starts each and reports what it saw; the last is the command's own end.
    script = "sh -c 'exit 0'; echo $?; kill -KILL $$"
    done = vm.run(["sh", "-c", script], kind=quick, capture=True)
    assert (done.exit_code, done.stdout) == (128 + signal.SIGKILL, "0\n")


@pytest.mark.parametrize(("words", "code"), [(["/no/such"], 127), (["/etc"], 126)])
def test_a_command_that_cannot_start_says_why(words: list[str], code: int, quick: str, traces: Traces) -> None:
    done = vm.run(words, kind=quick, capture=True)
    assert done.exit_code == code
    assert words[0] in done.stderr


def test_time_out_ends_the_machine(quick: str, traces: Traces) -> None:
    with pytest.raises(vm.TimedOut, match="did not end within 2 seconds"):
        vm.run(["sleep", "100"], kind=quick, timeout=2)
    traces.assert_none()


def test_a_kernel_panic_is_told_in_a_sentence(quick: str, traces: Traces) -> None:
    with pytest.raises(vm.MachineDied, match="the kernel stopped"):
        vm.run(["sh", "-c", "echo c > /proc/sysrq-trigger; sleep 100"], kind=quick, timeout=60)


def test_what_the_command_left_running_ends_with_it(quick: str, traces: Traces) -> None:
    done = vm.run(["sh", "-c", "sleep 1000 & echo gone"], kind=quick, capture=True, timeout=60)
    assert (done.exit_code, done.stdout) == (0, "gone\n")


def test_much_output_arrives_whole(quick: str, traces: Traces) -> None:
    done = vm.run(["sh", "-c", "head -c 5000000 /dev/zero; cat >&2"], kind=quick, capture=True, stdin=b"in" * 100000)
    assert (len(done.stdout), len(done.stderr)) == (5000000, 200000)


# The caller


def started(arguments: list[str]) -> "subprocess.Popen[bytes]":
    caller = subprocess.Popen(
        [*CLI, *arguments, "--", "sh", "-c", "echo up; sleep 1000"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert caller.stdout is not None
    assert caller.stdout.readline() == b"up\n"
    return caller


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 128 + 15), (signal.SIGINT, 128 + 2)]
)
def test_when_the_caller_ends_all_ends(number: int, code: int, quick: str, traces: Traces) -> None:
    with started(["--kind", quick]) as caller:
        assert traces.processes()
        caller.send_signal(number)
        assert caller.wait(20) == code
    traces.assert_none()


def test_qemu_ends_with_its_caller_too(traces: Traces) -> None:
    if vm.kinds()["qemu"] is not None:
        pytest.skip(f"no qemu machine here: {vm.kinds()['qemu']}")
    with subprocess.Popen([*CLI, "--kind", "qemu", "--", "true"], stdin=subprocess.DEVNULL) as caller:
        while not any("mount_tag" in process for process in traces.processes()):
            assert caller.poll() is None
        caller.kill()
    traces.assert_none()


def test_command_line(quick: str, traces: Traces) -> None:
    listed = subprocess.run([*CLI, "--list"], capture_output=True, text=True)
    assert listed.returncode == 0
    assert f"{quick:6} can run here" in listed.stdout
    late = subprocess.run([*CLI, "--timeout", "1", "sleep", "100"], capture_output=True, text=True)
    assert (late.returncode, late.stderr.count("\n")) == (124, 1)
    nobody = subprocess.run([*CLI, "--user", "no-such-user", "true"], capture_output=True, text=True)
    assert (nobody.returncode, nobody.stderr) == (125, "lab vm: this machine has no user 'no-such-user'\n")


# Users


def test_the_command_can_run_as_an_ordinary_user(quick: str, traces: Traces) -> None:
    user = pwd.getpwnam("nobody")
    script = (
        "id -u; cat /proc/self/cgroup; mkdir /sys/fs/cgroup/user/one; cat /sys/fs/cgroup/user/one/cgroup.controllers;"
        "echo $$ > /sys/fs/cgroup/user/one/cgroup.procs; cat /proc/self/cgroup; touch /etc/mine"
    )
    done = vm.run(["sh", "-c", script], kind=quick, user="nobody", cwd="/", capture=True)
    uid, before, controllers, after = done.stdout.splitlines()
    assert (int(uid), before, after) == (user.pw_uid, "0::/user/command", "0::/user/one")
    assert {"memory", "pids"} <= set(controllers.split())
    assert done.exit_code != 0
    assert "/etc/mine" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root; the whole lane may run as one instead")
def test_an_ordinary_user_can_start_one(quick: str) -> None:
    script = (
        "import sys; from labkit import vm; sys.exit(vm.run(['sh', '-c', 'id -u; touch /x ~/y && exit 3']).exit_code)"
    )
    checkout = Path(vm.__file__).parent.parent.parent
    readable = subprocess.run(
        [sys.executable, "-c", "import labkit.vm.run_command"],
        cwd=checkout,
        user="nobody",
        group="nogroup",
        extra_groups=[],
    )
    if readable.returncode:
        pytest.skip("the user nobody cannot read this Python or the checkout")
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=checkout,
        user="nobody",
        group="nogroup",
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "0\n", "")


# Ports


def test_a_forwarded_port_carries_connections_side_by_side(quick: str, traces: Traces) -> None:
    port = free_port()
    server = (
        "import socket, threading\n"
        "def echo(c):\n"
        "    while d := c.recv(65536): c.sendall(d)\n"
        "    c.shutdown(socket.SHUT_WR)\n"
        "s = socket.create_server(('127.0.0.1', 7000))\n"
        "print('up', flush=True)\n"
        "while True: threading.Thread(target=echo, args=s.accept()[:1]).start()\n"
    )
    arguments = ["--kind", quick, "--forward", f"{port}:7000", "--", sys.executable, "-I", "-S", "-c", server]
    received: dict[int, bytes] = {}

    def talk(number: int) -> None:
        data = bytes([number]) * 300000
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:

            def send() -> None:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)

            threading.Thread(target=send).start()
            received[number] = b""
            while part := connection.recv(65536):
                received[number] += part

    with subprocess.Popen([*CLI, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline() == b"up\n"
        # One that never reads must hold up no other.
        with socket.create_connection(("127.0.0.1", port)) as idle:
            idle.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    idle.send(b"." * 65536)
            threads = [threading.Thread(target=talk, args=(number,)) for number in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        caller.terminate()
    assert received == {number: bytes([number]) * 300000 for number in range(3)}


def test_a_port_where_nothing_listens_closes_the_connection(quick: str, traces: Traces) -> None:
    port = free_port()
    with started(["--kind", quick, "--forward", f"{port}:7000"]) as caller:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            assert connection.recv(1) == b""
        caller.terminate()


def test_a_port_in_use_is_refused(quick: str, traces: Traces) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LabkitError, match=f"port {port} of 127.0.0.1 cannot be forwarded"):
            vm.run(["true"], kind=quick, forward=[(port, 80)])


# Refusals, all before anything is started


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"argv": []}, "a command is a list"),
        ({"argv": "true"}, "a command is a list"),
        ({"argv": ["a\0b"]}, "NUL"),
        ({"memory_mib": 16}, "128 MiB"),
        ({"timeout": 0}, "above 0"),
        ({"kind": "vmware"}, "no kind of virtual machine called 'vmware'"),
        ({"cwd": "/no/such"}, "no folder /no/such"),
        ({"writable": ["/no/such"]}, "only an existing folder"),
        ({"writable": ["/"]}, "the whole file system"),
        ({"forward": [(0, 80)]}, "from 1 to 65535"),
        ({"user": "no-such-user"}, "no user 'no-such-user'"),
    ],
)
def test_bad_input_is_refused(
    arguments: dict[str, object], said: str, traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_machine(*_: object) -> None:
        raise AssertionError("a machine was started")

    monkeypatch.setattr(run_command, "Machine", no_machine)
    with pytest.raises(InvalidConfig, match=said):
        vm.run(**{"argv": ["true"], **arguments})  # type: ignore[arg-type]


def test_what_is_missing_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernels, "uml", lambda fetch: None)
    monkeypatch.setattr(kernels, "can_fetch", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    lacks = vm.kinds()
    assert str(lacks["qemu"]) == f"QEMU is not installed: sudo apt install {qemu._PACKAGE}"
    assert lacks["uml"] is not None and lacks["uml"].what.startswith("User Mode Linux")
    assert vm.offer() is None
    with pytest.raises(Unsupported, match="no kind of virtual machine can run here"):
        vm.run(["true"])


def test_no_room_for_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported, match="MiB free"):
        uml.memory_folder(1 << 40)


def test_the_guest_program_refuses_to_run_on_the_host() -> None:
    done = subprocess.run([sys.executable, "-I", "-S", guest_init.__file__, "ttyS0"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "first process of a virtual machine" in done.stderr
