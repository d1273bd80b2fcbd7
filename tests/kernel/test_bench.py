"""The benchmarks: every way does the same, and the figures come out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import floor, peers
from bench.ways import privately
from labkit import procfs
from labkit.container import run
from labkit.mounts import plan as mounts_module
from tests.requirements import need_command, need_root

ROOT = Path(__file__).resolve().parents[2]
LOOK = (
    "/bin/sh",
    "-c",
    "cat /proc/self/mountinfo; echo --; cat /proc/self/status; echo --; ls /dev; hostname; ls /sys/class/net",
)

Seen = tuple[set[tuple[str, str, tuple[str, ...]]], dict[str, str], list[str]]


def seen(printed: str) -> Seen:
    """What a container printed about itself: its mounts, what it may do, its devices, name and network."""
    mounts, status, names = printed.split("--\n")
    found = {
        (mount.mount_point, mount.filesystem, tuple(sorted(set(mount.options) - {"rw", "relatime"})))
        for mount in map(procfs._mount, mounts.splitlines())
        if mount.mount_point != "/"
    }
    powers = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith(("Cap", "NoNew", "Seccomp:")))
    return found, powers, sorted(names.split())


@pytest.fixture
def labkits(busybox: Path) -> Seen:
    return seen(run(list(LOOK), capture=True).stdout)


def test_the_c_program_makes_the_same_container(labkits: Seen, busybox: Path, tmp_path: Path) -> None:
    need_command("cc")
    argv = [str(floor.build(tmp_path)), str(busybox), str(peers.filter_file(tmp_path)), *LOOK]
    done = subprocess.run(argv, input="r", capture_output=True, text=True, env=os.environ | {"FLOOR_SHOWS": "1"})
    assert done.returncode == 0, done.stderr
    assert seen(done.stdout.rpartition("\n0 ")[0] + "\n") == labkits


@pytest.mark.parametrize("name", ["crun", "runc", "bubblewrap"])
def test_a_peer_makes_the_same_container(labkits: Seen, busybox: Path, tmp_path: Path, name: str) -> None:
    need_root()
    need_command({"bubblewrap": "bwrap"}.get(name, name))
    peer = next(peer for peer in peers.peers(busybox, tmp_path, LOOK) if peer.name == name)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open(peer.stdin) as stdin:
        done = subprocess.run(privately(peer.run(0)), stdin=stdin, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    mounts, powers, _ = seen(done.stdout)
    places = {place for place, _, _ in labkits[0]}
    if name == "bubblewrap":  # binds single devices, and the machine's /sys with what is mounted there
        assert places - {"/dev/shm"} <= {place for place, _, _ in mounts}
        assert powers["CapEff"] == labkits[1]["CapEff"]  # its bounding set stays; no_new_privs makes up for it
        assert powers["NoNewPrivs"] == "1" and powers["Seccomp"] == labkits[1]["Seccomp"]
    else:
        assert powers == labkits[1]
        # They make devices in /dev, where others can be made as well; labkit's are mounts.
        assert {place for place, _, _ in mounts} == places - {f"/dev/{name}" for name in mounts_module._DEVICES}


@pytest.mark.parametrize("name", ["start", "cell", "rate"])
def test_the_figures(busybox: Path, name: str) -> None:
    rows = figures(name)
    assert {row["benchmark"] for row in rows} == {name}
    for row in rows:
        assert row["note"] or 0 < row["low"] <= row["median"] <= row["high"], row
    assert {"labkit", "crun", "runc", "bubblewrap"} <= {row["way"] for row in rows}


def figures(*arguments: str) -> list[dict[str, Any]]:
    """What `./lab bench` says."""
    argv = [sys.executable, "-m", "bench", *arguments, "--rounds", "2", "--json"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)["rows"]
    return rows


def test_an_idle_container_is_one_process_and_no_python(busybox: Path) -> None:
    row = next(row for row in figures("memory") if row["way"] == "labkit")
    assert row["note"] == "1 process each, none of them Python"


def test_a_start_and_an_exec_are_measured_beside_each_neighbour(busybox: Path) -> None:
    rows = figures("beside")
    assert len(rows) == 12
    for row in rows:
        assert 0 < row["low"] <= row["median"] <= row["high"], row
        assert ("times the one alone" in row["note"]) == ("beside" in row["way"])


def test_nonsense_is_refused() -> None:
    for arguments in (["nothing"], ["--rounds", "0"]):
        done = subprocess.run([sys.executable, "-m", "bench", *arguments], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
