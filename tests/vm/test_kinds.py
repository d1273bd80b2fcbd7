"""What holds in a machine of every kind. Each kind is booted once, and asked everything."""

import json
import os
import platform
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import labkit
from labkit import vm
from labkit.vm import qemu

PROBE = Path(__file__).with_name("probe.py")

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Not below /tmp, which is fresh in the guest: what lies here must show what becomes of the host's own files.
    folder = tmp_path_factory.mktemp(kind)
    (folder / "shared").mkdir()
    (folder / "shared" / "from the host").write_text("remove me")
    (folder / "secret").write_text("the host's own")
    return folder


@pytest.fixture(scope="module")
def completed(kind: str, folder: Path) -> vm.Completed:
    return vm.run(
        ["python", str(PROBE), str(folder / "shared"), str(folder / "secret")],
        kind=kind,
        cwd=folder,
        env={"GREETING": "a b\n'c'", "PYTHONPATH": str(Path(labkit.__file__).parent.parent)},
        stdin=b"typed",
        writable=[folder / "shared"],
        capture=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def seen(completed: vm.Completed) -> dict[str, Any]:
    assert completed.stdout, completed.stderr
    answer: dict[str, Any] = json.loads(completed.stdout)
    return answer


def test_exit_code_and_streams_come_back_apart(completed: vm.Completed) -> None:
    assert completed.stderr == "to stderr\n"
    assert completed.exit_code == 42
    assert completed.boot_s > 0
    assert completed.command_s > 0


def test_another_kernel_runs_the_same_python(seen: dict[str, Any]) -> None:
    assert seen["release"] != platform.release()
    assert seen["hostname"] == "labvm"
    assert seen["prefix"] == sys.prefix
    assert seen["labkit"] == str(Path(labkit.__file__).parent)


def test_the_command_gets_its_surroundings(seen: dict[str, Any], folder: Path) -> None:
    assert seen["uid"] == 0
    assert seen["cwd"] == str(folder)
    assert seen["stdin"] == "typed"
    assert seen["greeting"] == "a b\n'c'"
    assert seen["home_is_readable"]
    assert all(seen["dev"])


def test_fresh_file_systems(seen: dict[str, Any]) -> None:
    assert {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/run", "/tmp", "/sys/fs/cgroup"} <= set(
        seen["filesystems"]
    )


def test_controllers_are_handed_on(kind: str, seen: dict[str, Any]) -> None:
    assert {"cpu", "io", "memory", "pids"} <= set(seen["controllers"])
    if kind == "qemu":
        assert "cpuset" in seen["controllers"]
        assert seen["processors"] == (2 if qemu.accelerated() else 1)


def test_limits_bite(seen: dict[str, Any]) -> None:
    code, output = seen["pids_limit"]
    assert (code, output.split()) == (0, [str(seen["eagain"]), "4"])
    assert seen["memory_limit"] == -signal.SIGKILL


def test_changes_are_forgotten(seen: dict[str, Any], folder: Path) -> None:
    assert seen["secret"] == "changed in the guest"
    assert (folder / "secret").read_text() == "the host's own"
    assert not os.path.exists("/etc/labvm-was-here")
    assert not os.path.exists("/tmp/labvm-was-here")


def test_a_writable_folder_keeps_them(seen: dict[str, Any], folder: Path) -> None:
    assert (folder / "shared" / "from the guest").read_text() == "kept"
    assert not (folder / "shared" / "from the host").exists()
