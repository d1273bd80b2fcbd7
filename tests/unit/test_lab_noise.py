"""The figures of the noisy-neighbour experiment: percentiles, data shapes, and what is refused."""

import dataclasses
import math
import random
from pathlib import Path

import pytest

from labkit.errors import InvalidConfig
from labkit.lab import hogs, noise
from labkit.lab.noise import Measured, Result, Victim, percentile
from labkit.lab.views.noise_view import NoiseView, draw


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
    (Measured("alone", (1.0, 2.0, 1.0, 1.5)), Measured("beside 8", (10.0, 200.0, 3000.0, 2990.0), unanswered=2)),
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
        view.finish(RESULT["alone"])
        first, second = view.state["phases"]
        assert (first["percentiles"], second["percentiles"]) == ([[50, 1.0], [95, 2.0], [99, 2.0]], [])
    assert view.state["status"] == "ended"


def test_wishes_without_bounds_are_refused() -> None:
    for wish in (
        lambda: hogs.cpu(0),
        lambda: hogs.cpu(10_000),
        lambda: hogs.memory(1 << 20),
        lambda: hogs.disk(1 << 20),
        lambda: hogs.fork_bomb(1_000_000),
        lambda: hogs.Neighbours(seconds=1e6),
        lambda: Victim(work="dance"),
        lambda: Victim(requests=0),
        lambda: Victim(interval_msec=0),
        lambda: noise.experiment([]),
        lambda: noise.experiment([noise.Phase("same"), noise.Phase("same")]),
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

    def work(self, amount: int) -> None:
        self.now += self.works.pop(0) / 1000


def served(clock: Clock, victim: Victim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], int]:
    shared = tmp_path / "latencies"
    shared.write_bytes(bytes(8 * victim.requests))
    monkeypatch.setattr(noise, "time", clock)
    monkeypatch.setitem(noise.WORK, "compute", clock.work)
    unanswered = noise._serve(str(shared), victim)
    return [round(latency, 6) for latency in noise.read(shared)], unanswered


def test_who_waits_behind_a_slow_request_is_late_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(1, 35, 1, 1, 1, 1)  # the first is before the schedule begins
    late, unanswered = served(clock, Victim(requests=5, interval_msec=10.0), tmp_path, monkeypatch)
    assert late == [35, 26, 17, 8, 1], "from when each was due; not 35, 1, 1, 1, 1"
    assert unanswered == 0


def test_who_is_never_served_has_waited_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late, unanswered = served(Clock(1, 2, 500), Victim(requests=4, interval_msec=10.0), tmp_path, monkeypatch)
    assert (late, unanswered) == ([2, 500, 490, 480], 2)
