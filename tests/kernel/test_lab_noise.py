"""The noisy-neighbour experiment runs, its neighbours stay in bounds, and none of them is left."""

import dataclasses
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit import host, procfs
from labkit.course.experiments import stressors
from labkit.course.experiments.noise import noise
from labkit.course.experiments.noise.noise import Victim
from labkit.process import run_in_child, spawn

QUICK = Victim(amount=100, requests=20, interval_msec=2.0)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.01)


def below(pids: tuple[int, ...]) -> list[int]:
    return [one for pid in pids for one in procfs.descendants(pid)]


KINDS = {
    "cpu": (stressors.cpu(3), 3),
    "memory": (stressors.memory(4), 1),
    "disk": (stressors.disk(1), 1),
    "forks": (stressors.fork_bomb(12), 13),
}


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_run_and_are_ended(kind: str) -> None:
    hog, processes = KINDS[kind]
    with stressors.Neighbours(hog) as neighbours:
        pids = neighbours.pids
        assert len(pids) == hog.processes
        wait_for(lambda: len(below(pids)) == processes)
        inside = below(pids)
        assert all(procfs.stat(pid)[2] in "RDS" for pid in inside)
    assert not [pid for pid in (*pids, *inside) if Path(f"/proc/{pid}").exists()]
    neighbours.end()
    host.reset()


def test_a_fork_bomb_never_has_more_than_its_tokens() -> None:
    with stressors.Neighbours(stressors.fork_bomb(8)) as neighbours:
        wait_for(lambda: len(below(neighbours.pids)) == 9)
        for pid in below(neighbours.pids)[:4]:  # whoever ends makes no room for another
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: sum(procfs.stat(pid)[2] != "Z" for pid in below(neighbours.pids)) == 5)
        threading.Event().wait(0.3)
        assert sum(procfs.stat(pid)[2] != "Z" for pid in below(neighbours.pids)) == 5
    host.reset()


def test_neighbours_end_by_themselves_when_nobody_ends_them() -> None:
    with stressors.Neighbours(stressors.cpu(1), stressors.fork_bomb(4), seconds=0.3) as neighbours:
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
        stressors.Neighbours(stressors.cpu(3), group=group)
    assert not Path(f"/proc/{group.taken[0]}").exists()
    host.reset()


def test_an_experiment_measures_every_request_of_every_phase(capsys: pytest.CaptureFixture[str]) -> None:
    phases = [noise.Phase("alone"), noise.Phase("beside", (stressors.cpu(1),))]
    result = noise.experiment(phases, QUICK)
    assert [phase.name for phase in result.phases] == ["alone", "beside"]
    assert [len(phase.latencies_msec) for phase in result.phases] == [20, 20]
    assert all(latency > 0 for phase in result.phases for latency in phase.latencies_msec)
    assert "beside" in capsys.readouterr().out
    host.reset()


def test_a_victim_that_is_never_done_is_stopped_and_waits_the_longer_the_earlier_it_was_due() -> None:
    slow = Victim(amount=40_000_000, requests=10, interval_msec=0.5)  # one request takes longer than the patience
    measured = noise.measure("slow", slow)
    assert measured.unanswered == tuple(range(10))
    assert list(measured.latencies_msec) == sorted(measured.latencies_msec, reverse=True), "none is left out"
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

    monkeypatch.setattr(noise, "measure_together", interrupt)
    with pytest.raises(KeyboardInterrupt):
        noise.experiment([noise.Phase("one", (stressors.cpu(2),))], QUICK)
    assert not procfs.descendants(host.pid())
    host.reset()


class Answering:
    """A real server, that answers at the first `answers` requests and then no more."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            if connection.recv(1) != b"y":
                raise ConnectionError("no good answer")


def answer(listener_port: int, answers: int) -> None:
    with socket.create_server(("127.0.0.1", listener_port)) as listener:
        for _ in range(answers):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"y")
        signal.pause()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listening(port: int) -> bool:
    try:
        run_in_child(Answering(port).ask)
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def web() -> Iterator[noise.Victim]:
    port = run_in_child(free_port)
    with spawn(answer, port, 1000, wait=False) as child:
        wait_for(lambda: listening(port))
        yield noise.server("web", Answering(port).ask, [child.pid], requests=20, interval_msec=5.0)
    host.reset()


def test_servers_are_asked_side_by_side_on_their_neighbours_cpu(web: noise.Victim) -> None:
    seen = []

    class Watching(stressors.Neighbours):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            seen.append(os.sched_getaffinity(web.pids[0]))
            super().__init__(*args, **kwargs)

    before = os.sched_getaffinity(web.pids[0])
    other = dataclasses.replace(QUICK, cpu=web.cpu)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stressors, "Neighbours", Watching)
        results = noise.side_by_side([noise.Phase("alone"), noise.Phase("beside", (stressors.cpu(1),))], [web, other])
    assert seen == [{web.cpu}] * 2
    assert os.sched_getaffinity(web.pids[0]) == before
    assert list(results) == ["web", "compute"]
    for result in results.values():
        assert [len(phase.latencies_msec) for phase in result.phases] == [20, 20]
        assert [phase.unanswered for phase in result.phases] == [(), ()]


def test_a_server_that_is_not_there_is_said_before_anything_is_measured() -> None:
    nobody = noise.server("web", Answering(run_in_child(free_port)).ask, requests=2)
    with pytest.raises(ConnectionRefusedError):
        noise.experiment([noise.Phase("one", (stressors.cpu(2),))], nobody)
    assert not procfs.descendants(host.pid())
    host.reset()


def test_a_server_that_falls_silent_does_not_hold_the_experiment_up() -> None:
    port = run_in_child(free_port)
    with spawn(answer, port, 6, wait=False):
        wait_for(lambda: listening(port))
        silent = noise.server("web", Answering(port).ask, requests=8, interval_msec=20.0)
        measured = noise.measure("alone", silent)
    assert measured.unanswered == tuple(range(4, 8)), "one to see that it listens, one before the schedule, then four"
    host.reset()
