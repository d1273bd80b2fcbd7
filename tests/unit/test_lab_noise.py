"""The figures of the noisy-neighbour experiment: percentiles, data shapes, and what is refused."""

import contextlib
import dataclasses
import math
import random
import re
import struct
from pathlib import Path

import pytest

from labkit.course.experiments import stressors
from labkit.course.experiments.noise import load, noise
from labkit.course.experiments.noise.figure import NoiseView, draw
from labkit.course.experiments.noise.noise import Measured, Result, Victim, percentile
from labkit.course.experiments.noise.servers_figure import KeptView, ServersView
from labkit.course.framework import measurements
from labkit.errors import InvalidConfig


def test_percentiles_are_samples_and_never_between_two() -> None:
    samples = [float(number) for number in range(1, 101)]
    random.Random(1).shuffle(samples)
    assert [percentile(samples, one) for one in (1, 50, 95, 99, 99.5, 100)] == [1, 50, 95, 99, 100, 100]
    assert percentile([7.0], 1) == percentile([7.0], 100) == 7.0
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0


def test_a_percentile_is_what_its_definition_says() -> None:
    dice = random.Random(2)
    for _ in range(300):
        samples = [dice.choice((dice.random(), 0.5)) for _ in range(dice.randrange(1, 40))]
        percent = dice.choice((dice.uniform(0.1, 100), 50, 95, 99))
        found = percentile(samples, percent)
        enough = math.ceil(len(samples) * percent / 100 - 1e-9)
        assert sum(one <= found for one in samples) >= enough
        assert sum(one < found for one in samples) < enough


@pytest.mark.parametrize(("samples", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_a_percentile_of_nothing_is_refused(samples: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="a percentile takes"):
        percentile(samples, percent)


RESULT = Result(
    Victim(requests=4, interval_msec=10.0),
    (Measured("alone", (1.0, 2.0, 1.0, 1.5)), Measured("beside 8", (10.0, 200.0, 3000.0, 2990.0), unanswered=(2, 3))),
)


def test_a_result_is_plain_frozen_data_with_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert RESULT["beside 8"].percentile(50) == 200.0
    assert dataclasses.asdict(RESULT)["phases"][0]["latencies_msec"] == (1.0, 2.0, 1.0, 1.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        RESULT.phases[0].name = "other"  # type: ignore[misc]
    with pytest.raises(KeyError, match="there are: alone, beside 8"):
        RESULT["nobody"]
    draw(RESULT)
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split() == ["alone", "1.0", "2.0", "2.0"]
    assert "2 of 4 never answered" in printed


def test_the_figure_has_every_phase_from_the_beginning() -> None:
    with NoiseView(RESULT.victim, ["alone", "beside 8"], title="t") as view:
        assert [phase["latencies_msec"] for phase in view.state["phases"]] == [[], []]
        assert view.state["phases"][0]["percentiles"] == []
        view.finish([RESULT["alone"]])
        first, second = view.state["phases"]
        assert (first["percentiles"], second["percentiles"]) == ([[50, 1.0], [95, 2.0], [99, 2.0]], [])
    assert view.state["status"] == "ended"


def test_wishes_without_bounds_are_refused() -> None:
    for wish in (
        lambda: stressors.cpu(0),
        lambda: stressors.cpu(10_000),
        lambda: stressors.memory(1 << 20),
        lambda: stressors.disk(1 << 20),
        lambda: stressors.fork_bomb(1_000_000),
        lambda: stressors.Neighbours(seconds=1e6),
        lambda: Victim(work="dance").request(),
        lambda: Victim(requests=0),
        lambda: Victim(interval_msec=0),
        lambda: noise.experiment([]),
        lambda: noise.experiment([noise.Phase("same"), noise.Phase("same")]),
        lambda: noise.side_by_side([noise.Phase("one")], []),
        lambda: noise.side_by_side([noise.Phase("one")], [Victim(), Victim()]),
    ):
        with pytest.raises(InvalidConfig):
            wish()


class Clock:
    """Time that passes only in sleep and at work."""

    def __init__(self, *works_msec: float) -> None:
        self.now, self.works = 100.0, list(works_msec)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def work(self, amount: int = 1) -> None:
        work_msec = self.works.pop(0)
        self.now += abs(work_msec) / 1000
        if work_msec < 0:
            raise ConnectionError("no answer")


def served(
    clock: Clock, victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: float = 0.0
) -> tuple[list[float], tuple[int, ...]]:
    shared = tmp_path / "latencies"
    shared.write_bytes(bytes(8 * victim.requests))
    monkeypatch.setattr(load, "time", clock)
    monkeypatch.setattr(load, "_patience", lambda seconds: contextlib.nullcontext())
    monkeypatch.setitem(load.WORK, "compute", clock.work)
    load.serve(str(shared), victim, offset)
    measured = Measured.read("", shared)
    return [round(latency, 6) for latency in measured.latencies_msec], measured.unanswered


def test_who_waits_behind_a_slow_request_is_late_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1, 35, 1, 1, 1, 1)  # the first is before the schedule begins
    late, unanswered = served(clock, Victim(requests=5, interval_msec=10.0), tmp_path, monkeypatch)
    assert late == [35, 26, 17, 8, 1], "from when each was due; not 35, 1, 1, 1, 1"
    assert unanswered == ()


def test_who_is_never_served_has_waited_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late, unanswered = served(Clock(1, 2, 500), Victim(requests=4, interval_msec=10.0), tmp_path, monkeypatch)
    assert (late, unanswered) == ([2, 500, 490, 480], (2, 3))


def test_an_error_is_no_answer_however_quick_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(-1, 2, -1, 3, 4)
    asked = Victim("web", requests=4, interval_msec=10.0, ask=clock.work)
    late, unanswered = served(clock, asked, tmp_path, monkeypatch)
    assert (late, unanswered) == ([2, 24, 3, 4], (1,)), "as late as the end of all"


def test_the_schedules_of_several_do_not_coincide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for offset in (0.0, 0.25):
        clock = Clock(1, 2, 2)
        served(clock, Victim(requests=2, interval_msec=10.0), tmp_path, monkeypatch, offset)
        ends.append(round(clock.now, 6))
    assert ends == [100.022, 100.0245], "multiples of the interval, and a part of it later"


SERVERS = {
    "web": Result(Victim("web", requests=2), (Measured("alone", (1.0, 2.0)), Measured("cpu", (5.0, 90.0), (1,)))),
    "file": Result(Victim("file", requests=2), (Measured("alone", (1.26, 2.0)),)),
}


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_results_are_kept_with_their_machine(state: Path) -> None:
    assert noise.kept() == {}
    noise.keep("bare metal", SERVERS)
    noise.keep("elsewhere", {"web": SERVERS["web"]}, machine="a Z80, 64 KiB of memory")
    noise.keep("bare metal", SERVERS)
    found = noise.kept()
    assert list(found) == ["bare metal", "elsewhere"]
    assert found["bare metal"].results == SERVERS
    assert found["bare metal"].machine == measurements.machine_line()
    assert found["elsewhere"].machine == "a Z80, 64 KiB of memory"


BROKEN = ("", "[]", '{"version": 9, "kept": {}}', '{"version": 1, "kept": {"a": 3}}', '{"version": 1, "kept": []}')


@pytest.mark.parametrize("text", BROKEN)
def test_what_cannot_be_understood_is_as_good_as_nothing(text: str, state: Path) -> None:
    state.mkdir()
    (state / "noise.json").write_text(text)
    assert noise.kept() == {}
    noise.keep("here", SERVERS)
    assert list(noise.kept()) == ["here"]


def test_what_cannot_be_kept_is_said(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state.write_text("a file where the folder should be")
    noise.keep("here", SERVERS)
    assert "cannot be kept" in capsys.readouterr().out
    noise.draw_kept()
    assert "Nothing was kept yet" in capsys.readouterr().out


def test_the_machine_is_one_line() -> None:
    line = measurements.machine_line()
    assert re.fullmatch(r"[^\n]+, \d+ CPUs?, Linux \S+, \d+ GiB of memory", line), line


def test_kept_results_are_drawn_beside_each_other(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise.keep("bare metal", SERVERS)
    noise.keep("container", {"web": SERVERS["web"]}, machine="another")
    noise.draw_kept("container")
    assert capsys.readouterr().out.splitlines()[:3] == ["container: another", "", "web"]
    with KeptView(noise.kept(), title="t") as view:
        drawn = view.state
    assert (drawn["servers"], drawn["phases"]) == (["web", "file"], ["alone", "cpu"])
    metal, other = (place["cells"] for place in drawn["places"])
    assert metal[0][1] == {
        "name": "",
        "latencies_msec": [],
        "unanswered": [],
        "percentiles": [[50, 5.0], [95, 90.0], [99, 90.0]],
        "unanswered_count": 1,
    }
    assert metal[1][1]["percentiles"] == other[1][0]["percentiles"] == [], "what was not measured stays empty"


def test_several_servers_are_drawn_as_far_as_they_have_come(tmp_path: Path) -> None:
    victims = [result.victim for result in SERVERS.values()]
    with ServersView(victims, ["alone", "cpu"], title="t") as view:
        files = [tmp_path / "one", tmp_path / "gone"]
        files[0].write_bytes(struct.pack("=2d", 1.5, 0.0))
        view.begin("alone", files)
        view.refresh()
        [place] = view.state["places"]
        assert [[cell["latencies_msec"] for cell in cells] for cells in place["cells"]] == [[[1.5], []], [[], []]]
        view.finish([result["alone"] for result in SERVERS.values()])
        [place] = view.state["places"]
        assert place["cells"][1][0]["latencies_msec"] == [1.26, 2.0]
