"""The lab framework: predictions, exercises with checks and hints, progress, live views, and the ./lab commands."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.lab.course import Lab
    from labkit.lab.exercise import Exercise
    from labkit.lab.stub import is_placeholder, is_stub
    from labkit.lab.verdict import NotAttempted, NotChecked, NotYet, Outcome, Passed, Verdict

__all__ = [
    "Exercise",
    "Lab",
    "NotAttempted",
    "NotChecked",
    "NotYet",
    "Outcome",
    "Passed",
    "Verdict",
    "is_placeholder",
    "is_stub",
]
_HOME = {
    "Lab": "course",
    "Exercise": "exercise",
    "is_placeholder": "stub",
    "is_stub": "stub",
    "NotAttempted": "verdict",
    "NotChecked": "verdict",
    "NotYet": "verdict",
    "Outcome": "verdict",
    "Passed": "verdict",
    "Verdict": "verdict",
}


def __getattr__(name: str) -> Any:
    # Looked up when asked for: the ./lab commands import this package before the dependencies are installed.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"labkit.lab.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
