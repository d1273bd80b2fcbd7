"""Every exercise of every lab: the untouched stub is "not attempted", the course's own solution passes."""

import importlib
import sys
from pathlib import Path

import pytest

from labkit.course import lab
from labkit.course.authoring.trial import outcome_of
from labkit.course.exercise_spec import Posed, all_posed
from labkit.course.framework.outcomes import NotAttempted, Passed
from labkit.course.source import lab_source
from tests.requirements import need

DATA = Path(__file__).parent / "data"


def _all() -> list[Posed]:
    sys.path.insert(0, str(DATA))
    toy = importlib.import_module("toy_exercises")
    found = all_posed(DATA / "90_toy.md", lab.find_exercises(toy))
    for md in lab_source.all_paths():
        found += all_posed(md, lab.exercises_of(md.stem.split("_")[0]))
    return found


POSED = _all()
every_exercise = pytest.mark.parametrize(
    "posed", POSED, ids=[f"{one.written_in.stem.split('_')[0]}-{one.exercise.name}" for one in POSED]
)


@every_exercise
def test_untouched_is_not_attempted(posed: Posed) -> None:
    outcome = outcome_of(posed, posed.stub)
    assert isinstance(outcome, NotAttempted), outcome


@every_exercise
@pytest.mark.parametrize("seed", ["one", *(pytest.param(seed, marks=pytest.mark.long) for seed in ("two", "three"))])
def test_solution_passes(posed: Posed, seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need(*lab_source.needs(posed.written_in), *posed.needs)
    monkeypatch.setenv("LABKIT_SEED", seed)
    outcome = outcome_of(posed, posed.solved)
    assert isinstance(outcome, Passed), outcome


@every_exercise
def test_has_what_a_learner_needs(posed: Posed) -> None:
    exercise = posed.exercise
    assert exercise.title
    assert posed.solved != posed.stub
    if posed.written_in.parent != DATA:
        assert len(exercise.hints) >= 2, "hints climb: a nudge, where to look, the line"
        assert exercise.start, "what to begin with, for who has not attempted it"
        assert exercise.because, "why the solution is a good one"
