"""The place of a job of tests: the machine, another job and the course's root filesystem are out of its reach."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit.course.testrun import sandbox
from labkit.course.testrun.sandbox import Place
from tests.requirements import machine_cannot

LOOK = """
import json, os, shutil, socket, sys
root = sys.argv[1]
shutil.rmtree(root + "/bin")
open(root + "/damaged", "w").close()
open("/dev/shm/left", "w").close()
if os.fork() == 0:
    os.setsid()
    import time; time.sleep(600)
print(json.dumps({
    "first": open("/proc/1/comm").read().strip(),
    "processes": [name for name in os.listdir("/proc") if name.isdigit()],
    "interfaces": [name for _, name in socket.if_nameindex()],
    "namespaces": {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "mnt", "net", "ipc", "uts")},
    "loopback": socket.create_server(("127.0.0.1", 0)).getsockname()[0],
}), flush=True)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if why := sandbox.unsupported():
        machine_cannot(f"run jobs of tests apart: {why}")
    (tmp_path / "state/rootfs/busybox/bin").mkdir(parents=True)
    with sandbox.place(tmp_path / "jobs", tmp_path / "state", apart=True) as made:
        yield made


def test_a_job_is_apart_and_its_damage_ends_with_it(place: Place, tmp_path: Path) -> None:
    root = tmp_path / "state/rootfs/busybox"
    done = subprocess.run(
        place.command([sys.executable, "-c", LOOK, str(root)]), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["first"] == "sh" and len(seen["processes"]) <= 4
    assert seen["interfaces"] == ["lo"] and seen["loopback"] == "127.0.0.1"
    assert all(seen["namespaces"][kind] != os.readlink(f"/proc/self/ns/{kind}") for kind in seen["namespaces"])
    assert sorted(os.listdir(root)) == ["bin"]
    assert not os.path.exists("/dev/shm/left")


def test_tmp_is_the_jobs_own(place: Place) -> None:
    if sys.prefix.startswith("/tmp/") or __file__.startswith("/tmp/"):
        machine_cannot("hide a /tmp that this checkout or its Python lies in")
    elsewhere = Place(place.folder, True, Path("/state"))  # this test's own lies below /tmp, which then stays in sight
    argv = elsewhere.command(["sh", "-c", "ls -A /tmp; touch /tmp/left; stat -c %a /tmp"])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.stdout == "1777\n"
    assert not os.path.exists("/tmp/left")
    assert (place.folder / "tmp/left").exists()


def test_exit_codes_come_through(place: Place) -> None:
    assert subprocess.run(place.command(["sh", "-c", "exit 7"]), timeout=60).returncode == 7


def test_whoever_kills_the_job_kills_all_of_it(place: Place) -> None:
    argv = place.command(["sh", "-c", "sleep 600 & setsid sleep 600 & echo up; wait"])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout and job.stdout.readline() == "up\n"
        job.send_signal(signal.SIGKILL)
        # end of file: nobody has the pipe's other end any more
        assert job.stdout.read() == ""
