"""What an experiment has found, as plain data: latencies, their percentiles, and the same as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from labkit.course.experiments.noise.load import Victim

PERCENTILES = (50, 95, 99)


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest of `samples` that at least `percent` per cent of them do not exceed ("nearest rank")."""
    if not samples or not 0 < percent <= 100:
        raise ValueError("a percentile takes one sample at least, and a percentage above 0 and up to 100")
    return sorted(samples)[max(0, -int(-len(samples) * percent // 100) - 1)]


@dataclass(frozen=True)
class Measured:
    """One phase: how late each answer was, in the order in which the requests were due.

    `unanswered` are the places, in that order, of the requests that got none: an error, or nothing until the victim was
    stopped. Their latency is how long they had waited by the end, so that they count among the late.
    """

    name: str
    latencies_msec: tuple[float, ...]
    unanswered: tuple[int, ...] = ()

    def percentile(self, percent: float) -> float:
        """The latency that `percent` of the requests do not exceed, in ms. `ValueError`: nothing was measured."""
        return percentile(self.latencies_msec, percent)

    @classmethod
    def read(cls, name: str, shared: Path) -> Self:
        """What a victim has written so far: see `labkit.course.experiments.noise.load`."""
        written = [value for value in memoryview(shared.read_bytes()).cast("d") if value != 0]
        unanswered = tuple(place for place, value in enumerate(written) if value < 0)
        return cls(name, tuple(abs(value) for value in written), unanswered)


def read_or_none(name: str, shared: Path) -> Measured | None:
    """What a victim has written so far; None where its phase is over, and the file gone."""
    try:
        return Measured.read(name, shared)
    except OSError:
        return None


@dataclass(frozen=True)
class Result:
    """What was found for one victim: one measurement for each phase."""

    victim: Victim
    phases: tuple[Measured, ...]

    def __getitem__(self, name: str) -> Measured:
        for phase in self.phases:
            if phase.name == name:
                return phase
        raise KeyError(f"no phase {name!r}; there are: {', '.join(phase.name for phase in self.phases)}")

    def as_text(self) -> str:
        """The figures as a table of lines."""
        wide = max([len(phase.name) for phase in self.phases], default=0)
        lines = [f"{'latency in ms':<{wide}}" + "".join(f"{f'p{percent}':>10}" for percent in PERCENTILES)]
        for phase in self.phases:
            figures = "".join(f"{phase.percentile(percent):>10.1f}" for percent in PERCENTILES)
            lost = len(phase.unanswered)
            late = f"   {lost} of {len(phase.latencies_msec)} never answered" if lost else ""
            lines.append(f"{phase.name:<{wide}}{figures}{late}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<experiment: {', '.join(phase.name for phase in self.phases)}>"

    def as_data(self) -> dict[str, Any]:
        """The same as JSON has it; latencies to a hundredth of a millisecond."""
        return {
            "work": self.victim.work,
            "requests": self.victim.requests,
            "interval_msec": self.victim.interval_msec,
            "phases": [
                {
                    "name": phase.name,
                    "latencies_msec": [round(latency, 2) for latency in phase.latencies_msec],
                    "unanswered": list(phase.unanswered),
                }
                for phase in self.phases
            ],
        }

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        """A result from what `as_data` made of it. `KeyError`, `TypeError`, `ValueError`: it is something else."""
        phases = tuple(
            Measured(
                str(phase["name"]),
                tuple(float(latency) for latency in phase["latencies_msec"]),
                tuple(int(place) for place in phase["unanswered"]),
            )
            for phase in data["phases"]
        )
        if not all(phase.latencies_msec for phase in phases):
            raise ValueError("a phase in which nothing was measured")
        asked = Victim(str(data["work"]), requests=int(data["requests"]), interval_msec=float(data["interval_msec"]))
        return cls(asked, phases)
