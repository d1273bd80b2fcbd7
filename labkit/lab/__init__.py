"""The name by which notebooks know the course: exercises, predictions, and the experiments of the labs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.course.experiments import costs as compare
    from labkit.course.experiments import lxc, noise, servers
    from labkit.course.experiments import notebook_vm as guestos
    from labkit.course.experiments import stressors as hogs
    from labkit.course.framework.exercise import Exercise
    from labkit.course.framework.outcomes import NotAttempted, NotChecked, NotYet, Outcome, Passed, Verdict
    from labkit.course.framework.stub import is_placeholder, is_stub
    from labkit.course.lab import Lab

__all__ = [
    "Exercise",
    "Lab",
    "NotAttempted",
    "NotChecked",
    "NotYet",
    "Outcome",
    "Passed",
    "Verdict",
    "compare",
    "guestos",
    "hogs",
    "is_placeholder",
    "is_stub",
    "lxc",
    "noise",
    "servers",
]
_CLASSES = {
    "Lab": "lab",
    "Exercise": "framework.exercise",
    "is_placeholder": "framework.stub",
    "is_stub": "framework.stub",
    "NotAttempted": "framework.outcomes",
    "NotChecked": "framework.outcomes",
    "NotYet": "framework.outcomes",
    "Outcome": "framework.outcomes",
    "Passed": "framework.outcomes",
    "Verdict": "framework.outcomes",
}
_MODULES = {
    "compare": "costs",
    "guestos": "notebook_vm",
    "hogs": "stressors",
    "lxc": "lxc",
    "noise": "noise",
    "servers": "servers",
}


def __getattr__(name: str) -> Any:
    # Looked up when asked for: what one lab needs is not loaded for another, nor before it is installed.
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"labkit.course.experiments.{_MODULES[name]}")
    if name in _CLASSES:
        return getattr(import_module(f"labkit.course.{_CLASSES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
