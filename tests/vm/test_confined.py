"""Root in the guest cannot change the host's files, and a machine whose keeper was killed is gone all the same."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.vm import guardian
from tests.vm.conftest import Traces, require
from tests.vm.test_command import CLI

pytestmark = pytest.mark.timeout(120)

# hostfs once more, writable, from the top and from the folder itself; then each way to change a file or its folder.
ATTACK = """
for from in / "$1"; do
    mkdir -p /run/again && mount -t hostfs none /run/again -o "$from" || exit 1
    test "$from" = / && there="/run/again$1" || there=/run/again
    mount -o remount,rw /run/again
    echo "from the guest" > "$there/victim"
    chmod 777 "$there/victim"
    rm -f "$there/victim"
    touch "$there/another"
    mv "$there/victim" "$there/moved"
    touch "/run/again/dev/shm/$2"
    umount /run/again
done
exit 0
"""

SHARED_MEMORY = Path(f"/dev/shm/labkit-test-{os.getpid()}")  # a mount of its own on the host

# A user namespace may forbid to make others of a kind: there, the machine's own program cannot be confined.
WITHOUT_NAMESPACES = ["unshare", "-r", "sh", "-c", 'echo 0 > /proc/sys/user/max_mnt_namespaces && exec "$@"', "sh"]


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "victim").write_text("the host's own")
    (tmp_path / "victim").chmod(0o640)
    yield tmp_path / "victim"
    SHARED_MEMORY.unlink(missing_ok=True)


def attack(victim: Path, *, prefix: list[str]) -> "subprocess.CompletedProcess[str]":
    inside = ["sh", "-c", ATTACK, "sh", str(victim.parent), SHARED_MEMORY.name]
    words = [*prefix, *CLI, "--kind", require("uml"), "--", *inside]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def need(words: list[str]) -> None:
    if subprocess.run([*words, "true"], capture_output=True).returncode:
        pytest.skip(f"this user cannot {' '.join(words[:3])}")


def need_confinement() -> None:
    need(["unshare", "-mp" if os.geteuid() == 0 else "-rmp"])


def test_root_in_the_guest_cannot_write_to_the_host(victim: Path, traces: Traces) -> None:
    need_confinement()
    done = attack(victim, prefix=[])
    assert victim.read_text() == "the host's own"
    assert victim.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in victim.parent.iterdir()) == ["scratch", "victim"]
    assert not SHARED_MEMORY.exists()
    assert done.stderr.count("Read-only file system") >= 8


def test_where_namespaces_are_forbidden_it_goes_on_without(victim: Path, traces: Traces) -> None:
    need(WITHOUT_NAMESPACES)
    attack(victim, prefix=WITHOUT_NAMESPACES)
    assert not victim.exists() and SHARED_MEMORY.exists()  # so what the test above does is an attack


@pytest.mark.parametrize("prefix", [[], WITHOUT_NAMESPACES], ids=["confined", "unconfined"])
def test_when_the_keeper_is_killed_all_ends(prefix: list[str], traces: Traces) -> None:
    need(prefix) if prefix else need_confinement()
    words = [*prefix, *CLI, "--kind", require("uml"), "--", "sh", "-c", "echo up; sleep 1000 & sleep 1000"]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as caller:
        assert caller.stdout is not None and caller.stderr is not None
        assert caller.stdout.readline() == "up\n"
        found = [int(entry.split()[0]) for entry in traces.processes() if "guardian.py" in entry]
        os.kill(found[0], signal.SIGKILL)
        assert caller.wait(20) == 125
        assert "signal 9 ended the process that kept it" in caller.stderr.read()
    traces.assert_none()


def test_when_caller_and_keeper_are_killed_all_ends(traces: Traces) -> None:
    need_confinement()
    words = [*CLI, "--kind", require("uml"), "--", "sh", "-c", "echo up; sleep 1000"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        caller.stdout.readline()
        found = [int(entry.split()[0]) for entry in traces.processes() if "guardian.py" in entry]
        for pid in (found[0], caller.pid):  # stopped first, so that neither sees the other end
            os.kill(pid, signal.SIGSTOP)
        for pid in (found[0], caller.pid):
            os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 10
    while traces.processes() and time.monotonic() < end:
        time.sleep(0.05)  # nothing to wait on: they are nobody's children
    assert not traces.processes()
    left = list(traces.folder.iterdir())
    assert len(left) == 1
    age(left[0])
    guardian.remove_abandoned(str(traces.folder))


# Leftovers, without a machine


def age(folder: Path) -> None:
    os.utime(folder, (0, time.time() - 3600))


def test_an_abandoned_machine_is_removed_at_the_next_start(tmp_path: Path) -> None:
    folders = {name: tmp_path / f"labvm-{name}" for name in ("abandoned", "locked", "young")}
    folders["other"] = tmp_path / "other"
    for folder in folders.values():
        folder.mkdir()
    for name in ("abandoned", "locked", "other"):
        (folders[name] / "init").write_text("")
        age(folders[name])
    held = guardian.lock(str(folders["locked"]))
    waiting = [sys.executable, "-I", "-S", "-c", "print(flush=True); input()"]
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(waiting, stdin=pipe, stdout=pipe, env={"HOME": str(folders[name])})
        for name in ("abandoned", "locked")
    ]
    try:
        for process in running:
            assert process.stdout is not None
            process.stdout.readline()
        guardian.remove_abandoned(str(tmp_path))
        assert running[0].wait(10) == -signal.SIGKILL
        assert running[1].poll() is None
    finally:
        os.close(held)
        for process in running:
            process.kill()
            process.communicate()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labvm-locked", "labvm-young", "other"]
