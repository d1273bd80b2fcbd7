"""The noisy-neighbour experiment runs, its neighbours stay in bounds, and none of them is left."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit import host, procfs
from labkit.lab import hogs, noise
from labkit.lab.noise import Victim

QUICK = Victim(amount=100, requests=20, interval_msec=2.0)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.01)


def below(pids: tuple[int, ...]) -> list[int]:
    return [one for pid in pids for one in procfs.descendants(pid)]


KINDS = {
    "cpu": (hogs.cpu(3), 3),
    "memory": (hogs.memory(4), 1),
    "disk": (hogs.disk(1), 1),
    "forks": (hogs.fork_bomb(12), 13),
}


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_run_and_are_ended(kind: str) -> None:
    hog, processes = KINDS[kind]
    with hogs.Neighbours(hog) as neighbours:
        pids = neighbours.pids
        assert len(pids) == hog.processes
        wait_for(lambda: len(below(pids)) == processes)
        inside = below(pids)
        assert all(procfs.stat(pid)[2] in "RDS" for pid in inside)
    assert not [pid for pid in (*pids, *inside) if Path(f"/proc/{pid}").exists()]
    neighbours.end()
    host.reset()


def test_a_fork_bomb_never_has_more_than_its_tokens() -> None:
    with hogs.Neighbours(hogs.fork_bomb(8)) as neighbours:
        wait_for(lambda: len(below(neighbours.pids)) == 9)
        for pid in below(neighbours.pids)[:4]:  # whoever ends makes no room for another
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: sum(procfs.stat(pid)[2] != "Z" for pid in below(neighbours.pids)) == 5)
        threading.Event().wait(0.3)
        assert sum(procfs.stat(pid)[2] != "Z" for pid in below(neighbours.pids)) == 5
    host.reset()


def test_neighbours_end_by_themselves_when_nobody_ends_them() -> None:
    with hogs.Neighbours(hogs.cpu(1), hogs.fork_bomb(4), seconds=0.3) as neighbours:
        wait_for(lambda: all(procfs.stat(pid)[2] == "Z" for pid in below(neighbours.pids)))
    host.reset()


class Broken:
    """A group that takes the first process, and then no more."""

    frozen = False

    def __init__(self) -> None:
        self.taken: list[int] = []

    def add(self, pid: int) -> None:
        if self.taken:
            raise PermissionError("the group is gone")
        self.taken.append(pid)


def test_where_one_cannot_be_started_none_is_left() -> None:
    group = Broken()
    with pytest.raises(PermissionError):
        hogs.Neighbours(hogs.cpu(3), group=group)
    assert not Path(f"/proc/{group.taken[0]}").exists()
    host.reset()


def test_an_experiment_measures_every_request_of_every_phase(capsys: pytest.CaptureFixture[str]) -> None:
    phases = [noise.Phase("alone"), noise.Phase("beside", (hogs.cpu(1),))]
    result = noise.experiment(phases, QUICK)
    assert [phase.name for phase in result.phases] == ["alone", "beside"]
    assert [len(phase.latencies_msec) for phase in result.phases] == [20, 20]
    assert all(latency > 0 for phase in result.phases for latency in phase.latencies_msec)
    assert "beside" in capsys.readouterr().out
    host.reset()


def test_a_victim_that_is_never_done_is_stopped_and_the_rest_waits_the_longer_the_earlier_it_was_due() -> None:
    slow = Victim(amount=40_000_000, requests=10, interval_msec=0.5)  # one request takes longer than the patience
    measured = noise.measure("slow", slow)
    assert (len(measured.latencies_msec), measured.unanswered) == (10, 9)
    waiting = measured.latencies_msec[1:]
    assert list(waiting) == sorted(waiting, reverse=True)
    assert measured.latencies_msec[0] > waiting[0], "all are late by the one that was not done: none is left out"
    host.reset()


def test_a_victim_fits_the_machine() -> None:
    victim = noise.victim(requests=5, interval_msec=1.0)
    assert victim.amount >= 1 and victim.cpu in os.sched_getaffinity(0)
    stored = noise.victim("store", requests=3, interval_msec=1.0)
    assert len(noise.measure("stored", stored).latencies_msec) == 3
    host.reset()


def test_an_interrupted_experiment_leaves_no_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(noise, "measure", interrupt)
    with pytest.raises(KeyboardInterrupt):
        noise.experiment([noise.Phase("one", (hogs.cpu(2),))], QUICK)
    assert not procfs.descendants(host.pid())
    host.reset()
