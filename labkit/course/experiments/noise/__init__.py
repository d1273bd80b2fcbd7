"""A victim and its neighbours: how much a loaded machine slows one server down."""

from labkit.course.experiments.noise.kept import Kept, draw_kept, keep, kept
from labkit.course.experiments.noise.load import Victim, server, victim
from labkit.course.experiments.noise.measured import Measured, Result, percentile
from labkit.course.experiments.noise.noise import Phase, Watcher, experiment, measure, measure_together, side_by_side

__all__ = [
    "Kept",
    "Measured",
    "Phase",
    "Result",
    "Victim",
    "Watcher",
    "draw_kept",
    "experiment",
    "keep",
    "kept",
    "measure",
    "measure_together",
    "percentile",
    "server",
    "side_by_side",
    "victim",
]
