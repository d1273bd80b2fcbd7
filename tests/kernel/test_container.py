"""A container: its own namespaces and root, its command's output and end, and every refusal in a sentence."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labkit import constants as c
from labkit import namespaces, procfs, rootfs, syscalls
from labkit.container import checks, run, start
from labkit.errors import CommandNotFound, CommandNotRunnable, InvalidConfig, StartError, Unsupported
from labkit.files import manifest
from labkit.host import lab_host
from labkit.process import run_in_child
from labkit.process.stdio import readable

ROOT = Path(__file__).resolve().parents[2]


def sh(script: str, **config: Any) -> str:
    """What a shell in a container prints."""
    completed = run(["sh", "-c", script], capture=True, **config)
    assert completed.exit_code == 0, completed.stderr
    return completed.stdout


def test_output_and_exit_code(busybox: Path) -> None:
    completed = run(["sh", "-c", "echo out; echo err >&2; exit 7"], capture=True)
    assert completed[:3] == (7, "out\n", "err\n")


def test_output_appears_live_unless_captured(busybox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["echo", "hello"])
    assert capsys.readouterr().out == "hello\n"


def test_killed_by_a_signal(busybox: Path) -> None:
    assert run(["sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]).exit_code == 128 + signal.SIGTERM


def test_six_namespaces_are_new_and_it_is_process_1(busybox: Path) -> None:
    with start(["sleep", "1000"]) as container:
        inside, outside = namespaces.of(container.pid), lab_host.namespaces()
        different = {kind for kind in inside if inside[kind] != outside[kind]}
        assert different == {"mnt", "uts", "ipc", "pid", "net", "cgroup"}
        assert procfs.nspid(container.pid) == [container.pid, 1]
        assert namespaces.members("pid", inside["pid"]) == [container.pid]
    assert not container.alive


def test_it_sees_its_own_processes_and_nothing_of_the_machine(busybox: Path) -> None:
    assert sh("set -- /proc/[0-9]*; echo $#") == "1\n"  # the shell itself
    assert sh("hostname", hostname="box-1") == "box-1\n"
    assert sh("ls /") == run(["ls"], capture=True).stdout
    assert "labkit" not in sh("ls /")
    assert "127.0.0.1" in sh("ip -4 addr show lo | grep -w UP -A2; ip -4 addr show lo")


def test_what_one_does_to_its_root_no_other_sees(busybox: Path) -> None:
    """The default root is one image for all: each container has a view of its own."""
    assert manifest.changes(busybox) == []
    mapped = {"uid_mappings": [(0, 0, 1)], "gid_mappings": [(0, 0, 1)]}
    for config in ({}, mapped):
        assert sh("rm -rf /bin /etc /b1; echo gone > /b1; echo $(echo /*)", **config).split()[0] == "/b1"
        assert sh("test ! -e /b1; cat /etc/passwd", **config).startswith("root:")
    assert manifest.changes(busybox) == []


def test_the_old_root_is_gone(busybox: Path) -> None:
    with start(["sleep", "1000"]) as container:
        mounts = procfs.mountinfo(container.pid)
        assert [m.mount_point for m in mounts if m.mount_point == "/"] == ["/"]
        covered = {f"/{path}" for path in (*rootfs.READONLY, *rootfs.MASKED) if Path(f"/{path}").exists()}
        below = {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", *covered}
        assert {m.mount_point for m in mounts} == {"/", *below, *(f"/dev/{name}" for name in _DEVICES)}
        assert not any(m.propagation for m in mounts), "a mount still travels to or from the lab host"


_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def test_devices_work(busybox: Path) -> None:
    assert sh("head -c 3 /dev/zero | wc -c; echo x > /dev/null; head -c 5 /dev/urandom | wc -c").split() == ["3", "5"]
    assert run(["sh", "-c", "echo x > /dev/full"], capture=True).exit_code == 1
    assert sh("for d in null zero full random urandom tty; do test -c /dev/$d && echo ok; done").count("ok") == 6
    assert sh("readlink /dev/fd; readlink /dev/stdin") == "/proc/self/fd\n/proc/self/fd/0\n"
    assert sh("stat -c %a /dev/null /dev/shm /dev") == "666\n1777\n755\n"


def test_a_file_written_in_the_root_is_written_and_not_when_readonly(busybox: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    _copy(busybox, root)
    sh("echo data > /file", root=root)
    assert (root / "file").read_text() == "data\n"
    refused = run(["sh", "-c", "echo more > /file"], root=root, readonly=True, capture=True)
    assert refused.exit_code == 1
    assert "Read-only" in refused.stderr
    sh("echo x > /dev/shm/x", root=root, readonly=True)
    assert (root / "file").read_text() == "data\n"


def test_bind_mounts(busybox: Path, tmp_path: Path) -> None:
    root, data = tmp_path / "root", tmp_path / "data"
    _copy(busybox, root)
    data.mkdir()
    (data / "file").write_text("outside\n")
    plan = (*rootfs.DEFAULT_PLAN, ("bind", str(data), "data", ("ro",)), ("bind", str(data / "file"), "etc/one", ()))
    assert sh("cat /data/file /etc/one", root=root, plan=plan) == "outside\noutside\n"
    refused = run(["sh", "-c", "echo more > /data/file"], root=root, plan=plan, capture=True)
    assert "Read-only" in refused.stderr
    assert list((root / "data").iterdir()) == []


def test_environment_and_working_directory(busybox: Path) -> None:
    env = {"PATH": "/bin", "A": "täst", "EMPTY": ""}
    assert sh("pwd; env | sort", env=env, cwd="/tmp").startswith("/tmp\nA=täst\nEMPTY=\nPATH=/bin\n")
    os.environ["LABKIT_SECRET"] = "x"
    try:
        assert "SECRET" not in sh("env")
    finally:
        del os.environ["LABKIT_SECRET"]


@pytest.mark.parametrize(
    ("args", "kind", "code", "words"),
    [
        (["nope"], CommandNotFound, 127, "'nope' was not found"),
        (["/bin/nope"], CommandNotFound, 127, "'/bin/nope' was not found"),
        (["/etc/passwd/x"], CommandNotFound, 127, "was not found"),
        (["/etc/passwd"], CommandNotRunnable, 126, "may not or cannot be executed"),
        (["/etc"], CommandNotRunnable, 126, "may not or cannot be executed"),
    ],
)
def test_commands_that_cannot_be_executed(
    busybox: Path, args: list[str], kind: type[StartError], code: int, words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        run(args)
    assert caught.value.exit_code == code


def test_a_command_that_is_there_and_may_not_run_is_not_called_missing(busybox: Path) -> None:
    with pytest.raises(CommandNotRunnable):
        run(["passwd"], env={"PATH": "/etc:/nowhere"})


def test_a_broken_program_file(busybox: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    _copy(busybox, root)
    (root / "bin" / "broken").write_bytes(b"\x7fELFgarbage")
    (root / "bin" / "noloader").write_text("#!/nowhere/interpreter\n")
    for name in ("broken", "noloader"):
        (root / "bin" / name).chmod(0o755)
    with pytest.raises(CommandNotRunnable, match="Exec format"):
        run(["/bin/broken"], root=root)
    with pytest.raises(CommandNotFound) as caught:
        run(["/bin/noloader"], root=root)
    assert "interpreter or loader" in caught.value.__notes__[0]


def test_a_working_directory_that_is_not_there(busybox: Path) -> None:
    with pytest.raises(StartError, match="working directory /nope cannot be entered"):
        run(["true"], cwd="/nope")


def test_a_root_that_vanishes_between_look_and_use(busybox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "root", lambda path: None)
    with pytest.raises(StartError, match="No such file or directory, at: mount --rbind /nowhere"):
        run(["true"], root="/nowhere")


def test_no_root_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    with pytest.raises(Unsupported, match=r"run \./lab setup"):
        run(["true"])


def test_nonsense_starts_nothing() -> None:
    with pytest.raises(InvalidConfig):
        run([], root="/usr")
    assert lab_host._current is None


def test_time_limit(busybox: Path) -> None:
    with pytest.raises(TimeoutError, match="was killed"):
        run(["sleep", "1000"], timeout=0.05)
    container = start(["sleep", "1000"])
    with pytest.raises(TimeoutError):
        container.finish(timeout=0.05)
    assert container.exit


def test_process_1_ignores_sigterm_and_not_sigkill(busybox: Path) -> None:
    with start(["sleep", "1000"]) as container:
        container.signal(signal.SIGTERM)
        with pytest.raises(TimeoutError):
            container.wait(timeout=0.05)
        container.signal(signal.SIGKILL)
        assert container.wait(timeout=10) == 128 + signal.SIGKILL


def test_killing_process_1_takes_the_others_along(busybox: Path) -> None:
    with start(["sh", "-c", "sleep 1000 & sleep 1000 & echo ready; wait"], capture=True) as container:
        container.output.pass_on_until(*container.output._readers, timeout=10)
        inside = namespaces.members("pid", namespaces.inode(container.pid, "pid"))
        pidfds = [os.pidfd_open(pid) for pid in inside]
        assert len(pidfds) == 3
    for pidfd in pidfds:
        assert readable(pidfd, 10)
        os.close(pidfd)


def test_resources_used_are_told(busybox: Path) -> None:
    with start(["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]) as container:
        container.wait()
    assert container.exit
    assert container.exit.cpu_usec > 1000
    assert container.exit.peak_memory_kib > 100


def test_same_config_again_sees_a_root_that_has_changed(busybox: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    _copy(busybox, root)
    with pytest.raises(CommandNotFound):
        run(["late"], root=root)
    (root / "bin" / "late").symlink_to("busybox")
    (root / "bin" / "late").unlink()
    (root / "bin" / "late").write_text("#!/bin/sh\nexit 5\n")
    (root / "bin" / "late").chmod(0o755)
    assert run(["late"], root=root).exit_code == 5


def _copy(busybox: Path, root: Path) -> None:
    shutil.copytree(busybox, root, symlinks=True)


@pytest.mark.parametrize("count", [1000])
@pytest.mark.timeout(300)
def test_a_thousand_runs_leave_nothing(busybox: Path, count: int) -> None:
    def held() -> tuple[int, int, int]:
        zygote = lab_host.pid()
        return (
            len(os.listdir(f"/proc/{zygote}/fd")),
            len(os.listdir("/proc/self/fd")),
            len(procfs.children(zygote)),
        )

    run(["true"])
    before, mounts = held(), len(procfs.mountinfo(lab_host.pid()))
    for _ in range(count):
        assert run(["true"]).exit_code == 0
    # A moment after an answer it may still hold what belongs to that one child, never to a thousand.
    assert all(now <= then + 5 for now, then in zip(held(), before, strict=True))
    assert len(procfs.mountinfo(lab_host.pid())) == mounts


def test_many_at_once(busybox: Path) -> None:
    containers = [start(["sleep", "1000"]) for _ in range(20)]
    try:
        assert len({namespaces.inode(one.pid, "net") for one in containers}) == 20
        assert all(one.alive for one in containers)
    finally:
        for one in containers:
            one.kill()


@pytest.mark.parametrize("victim", ["caller", "zygote", "keeper"])
@pytest.mark.timeout(180)
def test_killed_in_the_middle_of_starting_nothing_is_left(busybox: Path, victim: str) -> None:
    """A process starts containers without end, two at a time; somebody is killed at another moment each round."""
    program = (
        "import threading\nfrom labkit.host import lab_host as host\nfrom labkit.container import run\nhost.current()\n"
        "def loop():\n    while True: run(['sh', '-c', 'sleep 1000 & sleep 0.01'])\n"
        "threads = [threading.Thread(target=loop) for _ in range(2)]\n"
        "print(host.current().keeper_pid, host.pid(), flush=True)\n"
        "for thread in threads: thread.start()\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "LABKIT_STATE": str(busybox.parents[1])}
    rng = random.Random(7)
    for _ in range(10):
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        ) as caller:
            try:
                assert caller.stdout
                keeper, zygote = map(int, caller.stdout.readline().split())
                time.sleep(rng.uniform(0, 0.1))  # the moment is the test's parameter, not something waited for
                pidfds = _pidfds([keeper, *procfs.descendants(keeper)])
                os.kill({"caller": caller.pid, "zygote": zygote, "keeper": keeper}[victim], signal.SIGKILL)
                left = [pid for pid, pidfd in pidfds.items() if not readable(pidfd, 10)]
                for pidfd in pidfds.values():
                    os.close(pidfd)
                assert left == []
            finally:
                caller.kill()
        assert [pid for pid in lab_host.running() if pid == keeper] == []


def _pidfds(pids: list[int]) -> dict[int, int]:
    """A pidfd of each that has not ended meanwhile."""
    found = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found[pid] = os.pidfd_open(pid)
    return found


def become_root_of_a_new_user_namespace() -> None:
    syscalls.unshare(c.CLONE_NEWUSER | c.CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text("0 0 1")
    Path("/proc/self/gid_map").write_text("0 0 1")


def test_a_masked_proc_is_explained(busybox: Path) -> None:
    """As in an ordinary Docker container: with something mounted over part of /proc, there is no new one to be had."""

    def masked() -> str:
        become_root_of_a_new_user_namespace()
        syscalls.mount("none", "/proc/bus", "tmpfs")
        become_root_of_a_new_user_namespace()  # in which the mounts of the one before are locked
        done = subprocess.run(
            [sys.executable, "-c", "from labkit.container import run; run(['true'])"],
            env={"PYTHONPATH": str(ROOT), "LABKIT_STATE": str(busybox.parents[1])},
            capture_output=True,
            text=True,
        )
        return done.stderr

    said = run_in_child(masked)
    assert "at: mount -t proc" in said
    assert "an outer container often masks" in said
