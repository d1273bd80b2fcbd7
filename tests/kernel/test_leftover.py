"""Whoever is killed, at any moment: nothing is left after `./lab reset`, and before it `./lab doctor` says what is."""

import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from labkit import host, procfs, temporary
from labkit.course.commands import reset
from labkit.course.doctor import facts, leftovers
from labkit.course.doctor.findings import findings
from labkit.process.stdio import readable

ROOT = Path(__file__).resolve().parents[2]

# A notebook at work: a folder, containers and children that come and go, in two threads.
NOTEBOOK = """
import os, subprocess, threading
from labkit import host, temporary
from labkit.container import run, start
from labkit.process import spawn
folder = temporary.Folder()
with open(os.path.join(folder.name, "file"), "w") as file: file.write("x")
os.makedirs(os.path.join(folder.name, "work", "closed"), mode=0)
idle = start(["sh", "-c", "sleep 1000 & wait"])
parked = spawn(os.getpid)
print(host.current().keeper_pid, host.pid(), idle.pid, folder.name, flush=True)
def loop():
    while True:
        try: run(["sh", "-c", "sleep 1000 & exit 0"])
        except Exception: os._exit(3)
threads = [threading.Thread(target=loop) for _ in range(2)]
for thread in threads: thread.start()
"""


@pytest.fixture
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test and its notebooks keep temporary files: none of another's is looked at."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def notebook(busybox: Path, program: str = NOTEBOOK) -> "subprocess.Popen[str]":
    environment = {
        "PYTHONPATH": str(ROOT),
        "PATH": os.environ["PATH"],
        "LABKIT_STATE": str(busybox.parents[1]),
        "TMPDIR": tempfile.gettempdir(),
    }
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )


def first_line(caller: "subprocess.Popen[str]") -> str:
    """What a notebook prints once it is at work; where it ended instead, its last words are the test's failure."""
    assert caller.stdout and caller.stderr
    if not (line := caller.stdout.readline()):
        pytest.fail(f"the notebook ended ({caller.wait()}) before it was at work: {caller.stderr.read()}")
    return line


def said_by_doctor() -> str:
    found = next(line for line in findings(facts.examine()) if line.topic == "left over")
    assert found.mend == ("./lab reset" if found.status == "partly" else "")
    return found.seen


@pytest.mark.parametrize("victim", ["caller", "zygote", "keeper", "process 1", "keeper and zygote", "all of them"])
@pytest.mark.timeout(180)
def test_killed_at_any_moment(
    busybox: Path, own_temporary_folder: Path, victim: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(victim)
    for _ in range(4):
        with notebook(busybox) as caller:
            line = first_line(caller).split()
            keeper, zygote, first = map(int, line[:3])
            threading.Event().wait(rng.uniform(0, 0.1))  # the moment is the test's parameter
            watched = {}
            for pid in (keeper, *procfs.descendants(keeper)):
                try:
                    watched[pid] = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
            killed = {
                "caller": [caller.pid],
                "zygote": [zygote],
                "keeper": [keeper],
                "process 1": [first],
                "keeper and zygote": [keeper, zygote],
                "all of them": [caller.pid, keeper, zygote],
            }
            for pid in killed[victim]:
                with contextlib.suppress(ProcessLookupError):  # a guard has been quicker
                    os.kill(pid, signal.SIGKILL)
            caller.kill()  # at the latest now
        assert leftovers.find() == [line[3]]
        assert said_by_doctor() == line[3]
        assert reset.main([]) == 0
        assert line[3] in capsys.readouterr().out
        left = [pid for pid, pidfd in watched.items() if not readable(pidfd, 10)]
        for pidfd in watched.values():
            os.close(pidfd)
        assert left == []
        assert keeper not in host.running()
        assert os.listdir(own_temporary_folder) == []
        assert leftovers.find() == [] and said_by_doctor() == "nothing"


def stop(pid: int) -> None:
    """Stop a process, and wait until it is: kill(2) returns before."""
    os.kill(pid, signal.SIGSTOP)
    while procfs.stat(pid)[2] != "T":
        time.sleep(0.001)


def test_a_lab_host_that_was_stopped(busybox: Path, own_temporary_folder: Path) -> None:
    """It sees nothing, and so outlives its notebook; reset ends it all the same."""
    with notebook(busybox) as caller:
        keeper, zygote = map(int, first_line(caller).split()[:2])
        pidfds = [os.pidfd_open(pid) for pid in (keeper, zygote)]
        for pid in (zygote, keeper):
            stop(pid)
        caller.kill()
    assert leftovers.stopped_hosts() == [keeper]
    assert f"stopped lab host {keeper}" in said_by_doctor()
    assert keeper in host.reset_all()
    assert all(readable(pidfd, 10) for pidfd in pidfds)
    for pidfd in pidfds:
        os.close(pidfd)


def test_a_folder_in_use_stays(own_temporary_folder: Path) -> None:
    with temporary.Folder() as mine:
        assert temporary.abandoned() == [] and temporary.remove_abandoned() == []
        assert os.path.isdir(mine)
    assert os.listdir(own_temporary_folder) == []


def test_what_is_no_folder_of_ours_stays(own_temporary_folder: Path) -> None:
    (own_temporary_folder / "labkit-x").mkdir()
    (own_temporary_folder / "labkit.file").write_text("x")
    (own_temporary_folder / "elsewhere").mkdir()
    (own_temporary_folder / "labkit.link").symlink_to("elsewhere")
    before = sorted(os.listdir(own_temporary_folder))
    assert temporary.remove_abandoned() == []
    assert sorted(os.listdir(own_temporary_folder)) == before


def test_the_next_lab_removes_it(busybox: Path, own_temporary_folder: Path) -> None:
    from labkit.course.lab import Lab

    program = "import os\nfrom labkit import temporary\nfolder = temporary.Folder()\n"
    program += "print(folder.name, flush=True)\nos.abort()"
    with notebook(busybox, program) as caller:
        folder = first_line(caller).strip()
    assert temporary.abandoned() == [folder]
    Lab("00")
    assert not os.path.exists(folder)


def test_a_folder_that_nobody_cleaned_up_leaves_neither_itself_nor_its_lock() -> None:
    """The lock would show among the descriptors after the test."""
    with pytest.warns(ResourceWarning):
        name = temporary.Folder().name
        gc.collect()
    assert not os.path.exists(name)
