"""Results that outlive their notebook: kept by the name of the place where they were measured, with the machine's.

They are in `noise.json` in the course's state folder: `labkit.course.framework.measurements`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from labkit.course.experiments.noise.measured import Result
from labkit.course.framework import measurements, rendering

FILE = "noise.json"


@dataclass(frozen=True)
class Kept:
    """What was measured in one place: the machine, as one line, and the result of each victim by its name."""

    machine: str
    results: dict[str, Result]


def keep(place: str, results: Mapping[str, Result], *, machine: str = "") -> None:
    """Store the results as those of `place`, such as "bare metal"; what was kept of it before is replaced.

    `machine`: where they were measured, if it is not this one.
    """
    data = {name: result.as_data() for name, result in results.items()}
    measurements.add(FILE, place, {"machine": machine or measurements.machine_line(), "results": data})


def kept() -> dict[str, Kept]:
    """All that was kept, by place, in the order in which the places were first kept."""
    found = {}
    for place, data in measurements.read(FILE).items():
        try:
            results = {str(name): Result.from_data(one) for name, one in data["results"].items()}
            found[place] = Kept(str(data["machine"]), results)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return found


def draw_kept(*places: str, title: str = "How long a request takes") -> None:
    """Draw what was kept of `places`, or of all, side by side; in a terminal, print the tables."""
    from labkit.course.experiments.noise.servers_figure import draw

    found = kept()
    chosen = {place: one for place, one in found.items() if place in places or not places}
    if not chosen:
        text = f"Nothing was kept yet{' of ' + ', '.join(places) if places else ''}: `noise.keep` does that."
        rendering.display(text, rendering.box("not attempted", "", rendering.inline(text)))
        return
    draw(chosen, title)
