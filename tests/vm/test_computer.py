"""A computer that stays: what is asked of it, what it is, and that it ends whatever happens."""

import os
import platform
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit import procfs, vm
from labkit.course.commands import reset
from labkit.course.views.console_view import ConsoleView
from labkit.errors import InvalidConfig, LabkitError, Unsupported
from labkit.vm import initramfs, kernels, qemu
from labkit.vm import persistent as computers
from labkit.vm.serial import plain
from tests.vm.conftest import Traces, require

pytestmark = pytest.mark.timeout(400)


def eventually(question: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:
        select.select([], [], [], 0.05)
    return answer


# What it is


def test_a_command_comes_back_with_output_and_code(computer: vm.Computer) -> None:
    done = computer.run("echo out; echo err >&2; exit 3")
    assert (sorted(done.output.split()), done.exit_code) == (["err", "out"], 3)


def test_any_text_can_be_a_command(computer: vm.Computer) -> None:
    assert computer.run("printf '%s' \"a'b\"; echo 'ä\n$x'").output == "a'bä\n$x\n"
    assert computer.run("cat").output == "", "a command's stdin is empty"
    assert len(computer.run("seq 40000").output.split()) == 40000


def test_much_output_is_cut(computer: vm.Computer) -> None:
    assert len(computer.run("head -c 300000 /dev/zero | tr '\\0' x").output) == initramfs.OUTPUT_BYTES


def test_it_is_another_computer(computer: vm.Computer, tmp_path: Path) -> None:
    assert computer.run("hostname").output.strip() == initramfs.HOSTNAME
    assert computer.run("uname -v").output.strip() != platform.version()
    kib = int(re.findall(r"MemTotal: +(\d+)", computer.run("cat /proc/meminfo").output)[0])
    assert 0.7 * computer.memory_mib < kib / 1024 < computer.memory_mib
    pids = [int(name) for name in computer.run("cd /proc; ls -d [0-9]*").output.split()]
    assert 1 in pids
    assert len(pids) < 200
    assert computer.run(f"ls {tmp_path}").exit_code == 1, "nothing of the host's files is in it"


def test_on_the_host_it_is_one_process(computer: vm.Computer) -> None:
    assert os.path.basename(procfs.cmdline(computer.pid)[0]) == qemu._PROGRAM
    assert procfs.children(computer.pid) == []


def test_a_command_too_long_is_killed_and_the_next_runs(computer: vm.Computer) -> None:
    with pytest.raises(vm.TimedOut, match="within 1 seconds, and was killed"):
        computer.run("sleep 1000", timeout=1)
    assert computer.run("echo still here").output == "still here\n"


def test_a_command_may_kill_itself(computer: vm.Computer) -> None:
    assert computer.run("kill -9 $$").exit_code == 128 + signal.SIGKILL


def test_commands_from_two_threads_do_not_mix(computer: vm.Computer) -> None:
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        found[number] = computer.run(f"echo {number}").output

    threads = [threading.Thread(target=ask, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"{number}\n" for number in range(6)}


@pytest.mark.parametrize(("command", "timeout"), [("", 1), ("  \n", 1), ("true", 0)])
def test_bad_commands_are_refused(computer: vm.Computer, command: str, timeout: float) -> None:
    with pytest.raises(InvalidConfig):
        computer.run(command, timeout=timeout)


# Its console


def test_the_console_has_the_boot_messages_and_what_is_typed(computer: vm.Computer) -> None:
    assert "Linux version" in computer.console()
    computer.type("echo $((6 * 7))0\n")
    assert eventually(lambda: "\n420\n" in computer.console()), computer.console()[-500:]
    computer.type("sleep 4321\n")
    assert eventually(lambda: "4321" in computer.run("ps | grep [s]leep").output)
    computer.type("\x03")  # Ctrl-C
    assert eventually(lambda: "4321" not in computer.run("ps | grep [s]leep").output), computer.console()[-500:]


def test_a_shell_that_ends_is_started_anew(computer: vm.Computer) -> None:
    greetings = computer.console().count("built-in shell")
    computer.type("exit\n")
    assert eventually(lambda: computer.console().count("built-in shell") > greetings)
    computer.type("echo ag''ain\n")
    assert eventually(lambda: "\nagain\n" in computer.console()), computer.console()[-500:]


def test_the_view_shows_the_console_and_types(computer: vm.Computer) -> None:
    with ConsoleView(computer) as view:
        view.received({"kind": "type", "line": "echo $((3 * 11))0\nnot this"})
        assert eventually(lambda: view.refresh() and "\n330\n" in view.state["text"])
        assert "not this" not in view.state["text"]
        for strange in ({}, {"kind": "type"}, {"kind": "type", "line": 7}, {"kind": "rm"}):
            view.received(strange)
        assert view.state["status"] == "alive"
        assert "\n330\n" in view.as_text()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("a\r\nb", "a\nb"),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07x", "red x"),
        ("lq\b\bs\b \bok", "ok"),
        ("\b\n\ba", "\na"),
        ("bell\x07 tab\t", "bell tab\t"),
    ],
)
def test_a_terminals_output_as_plain_text(written: str, shown: str) -> None:
    assert plain(written) == shown


# Its end


def test_two_at_once_and_each_ends_alone(traces: Traces) -> None:
    require("qemu")
    with vm.start(memory_mib=computers.SMALLEST_MIB) as one, vm.start(memory_mib=computers.SMALLEST_MIB) as two:
        one.run("echo one > /tmp/name")
        assert two.run("cat /tmp/name").exit_code == 1
        with ConsoleView(one) as view:
            one.kill()
            assert not one.alive
            while view.refresh():
                pass
            assert view.state["status"] == "ended"
            assert "has ended" in view.state["ended_note"]
        with pytest.raises(vm.MachineDied, match="has ended"):
            one.run("true")
        with pytest.raises(vm.MachineDied, match="has ended"):
            one.type("true\n")
        with pytest.raises(ProcessLookupError):
            _ = one.pid
        assert two.run("echo alive").output == "alive\n"
        two.type("poweroff\n")
        assert two.wait(60), "it can switch itself off"
    one.close()
    traces.assert_none()


def test_a_panic_is_told_in_a_sentence(traces: Traces) -> None:
    require("qemu")
    with vm.start() as guest, pytest.raises(vm.MachineDied, match=r"its kernel stopped \(sysrq"):
        guest.run("echo c > /proc/sysrq-trigger; sleep 100")


def test_it_can_be_watched_while_it_boots(traces: Traces) -> None:
    require("qemu")
    seen = []

    def watch(guest: vm.Computer) -> None:
        seen.append(guest.alive and eventually(lambda: "Linux version" in guest.console()))
        raise RuntimeError("a look that fails")

    with pytest.raises(RuntimeError, match="a look that fails"):
        vm.start(watch=watch)
    assert seen == [True]
    traces.assert_none()


def test_a_boot_that_takes_too_long_is_ended(traces: Traces) -> None:
    require("qemu")
    with pytest.raises(vm.TimedOut, match="did not come up within 0 seconds"):
        vm.start(timeout=0.3)
    traces.assert_none()


def test_far_too_little_memory_ends_with_a_sentence(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    require("qemu")
    monkeypatch.setattr(computers, "SMALLEST_MIB", 16)
    with pytest.raises((vm.MachineDied, vm.TimedOut), match=r"the computer (ended|did not come up)"):
        vm.start(memory_mib=16, timeout=4)
    traces.assert_none()


def test_qemus_own_complaint_is_told(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    require("qemu")
    monkeypatch.setattr(qemu, "_PLAIN", ["-no-such-option"])
    with pytest.raises(vm.MachineDied, match="no-such-option"):
        vm.start()


CALLER = """
import sys
from labkit import vm
guest = vm.start(memory_mib=128)
print(guest.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_caller(number: int, traces: Traces) -> None:
    require("qemu")
    with subprocess.Popen([sys.executable, "-c", CALLER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        pid = int(caller.stdout.readline())
        assert any(str(pid) == line.split()[0] for line in traces.processes())
        caller.send_signal(number)
        caller.wait(30)
    traces.assert_none()


def test_it_ends_when_its_keeper_is_killed_and_leaves_nothing(traces: Traces) -> None:
    require("qemu")
    with vm.start(memory_mib=128) as guest:
        os.kill(guest._keeper.pid, signal.SIGKILL)
        assert guest.wait()
    traces.assert_none()


def test_it_ends_when_both_of_its_processes_are_stopped(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    require("qemu")
    monkeypatch.setattr(computers, "_END_S", 0.5)
    with vm.start(memory_mib=128) as guest:
        os.kill(guest.pid, signal.SIGSTOP)
        os.kill(guest._keeper.pid, signal.SIGSTOP)
    traces.assert_none()


def test_reset_ends_it(traces: Traces, capsys: pytest.CaptureFixture[str]) -> None:
    require("qemu")
    with vm.start(memory_mib=128) as guest:
        assert reset.main([]) == 0
        assert "Ended 1 computer that ran as a guest." in capsys.readouterr().out
        assert guest.wait()
        with pytest.raises(vm.MachineDied):
            guest.run("true")
    traces.assert_none()


def test_reset_leaves_what_is_no_guest(traces: Traces) -> None:
    (traces.folder / "labvm-other").mkdir()
    assert computers.end_all(tempfile.gettempdir()) == 0
    (traces.folder / "labvm-other").rmdir()


# Refusals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"memory_mib": 16}, "128 MiB of memory at least, not 16"),
        ({"memory_mib": 10**9}, "more than"),
        ({"kind": "vmware"}, "no kind of computer called 'vmware'"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        vm.start(**arguments)  # type: ignore[arg-type]


def test_what_is_missing_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernels, "linux", lambda fetch: None)
    monkeypatch.setattr(kernels, "can_fetch", lambda: False)
    if vm.kinds()["qemu"] and "not installed" not in str(vm.kinds()["qemu"]):
        with pytest.raises(Unsupported, match="no kernel for QEMU to boot: sudo apt install linux-image"):
            vm.start()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="QEMU is not installed: sudo apt install"):
        vm.start()


def test_no_place_for_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require("qemu")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no such"))
    with pytest.raises(LabkitError, match="set TMPDIR"):
        vm.start()
