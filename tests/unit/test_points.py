"""The table of points that a workflow shows, and the exit code by which GitHub Classroom gives points."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit.course.grading.report import sheets
from labkit.course.grading.report.gradebook import Gradebook
from labkit.course.grading.results import Judged, Result
from labkit.files import state_folder
from tests import gradings
from tests.gradings import NOT_CHECKED, NOT_YET, PASSED, exercise, result

Main = Callable[[list[str]], int]
HOSTILE = "|<script>alert(1)</script>\n@everyone [x](https://x) `a` ![i](//x)\x1b[31m"


@pytest.fixture
def main() -> Main:
    spec = importlib.util.spec_from_file_location("points", state_folder.checkout() / ".github/points.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Main = module.main
    return found


def graded(folder: Path, *results: Result) -> str:
    """The tables of a folder as `./lab grade --out` leaves it."""
    book = Gradebook(results)
    (folder / "scores.csv").write_text(sheets.scores(book), newline="")
    (folder / "exercises.csv").write_text(sheets.exercises(book), newline="")
    return str(folder)


def test_the_table(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = exercise("enter", Judged("not yet", "seen", "begin with the place", 0.5))
    assert main([graded(tmp_path, result("ann", "05", exercise(points=2.0), half))]) == 0
    said = capsys.readouterr().out
    assert "**2.5 of 3 points**" in said and "| 05 | enter | not yet | 0.5 | 1 | begin with the place |" in said


def test_its_sum_is_that_of_the_class(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = gradings.a_class(20)
    book = Gradebook(results)
    totals = [book.total(learner) for learner in book.learners]
    assert main([graded(tmp_path, *results)]) == 0
    earned, points = (sum(getattr(total, name) for total in totals) for name in ("earned", "points"))
    assert f"**{earned:g} of {points:g} points**" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("exercises", "code"),
    [
        ((exercise("a"), exercise("b")), 0),
        ((exercise("a"), exercise("b", NOT_YET)), 1),
        ((exercise("a"), exercise("b", PASSED, hidden=(NOT_YET,))), 1),
        ((exercise("a"), exercise("b", NOT_CHECKED)), 0),
        ((exercise("a", NOT_CHECKED),), 1),
    ],
    ids=["all", "one not yet", "a hidden check", "one could not be checked", "none could"],
)
def test_all_points_or_not(main: Main, tmp_path: Path, exercises: tuple[Any, ...], code: int) -> None:
    folder = graded(tmp_path, result("ann", "05", *exercises))
    assert main([folder, "--all"]) == code and main([folder]) == 0


def test_nothing_graded_is_no_success(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1 and "Nothing has been graded" in capsys.readouterr().out
    assert main([graded(tmp_path), "--all"]) == 1
    (tmp_path / "scores.csv").write_text("a,b\n1,2\n")
    assert main([str(tmp_path)]) == 1 and "are not what ./lab grade writes" in capsys.readouterr().out


def test_a_refused_submission_has_no_points(main: Main, tmp_path: Path) -> None:
    whole = result("ben", "05", exercise("a"))
    refused = Result("ann", "05", "", "ann/05.ipynb", refused="The file is no notebook.")
    assert main([graded(tmp_path, whole, refused), "--all"]) == 1


def test_what_a_learner_has_written_stays_text(main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([graded(tmp_path, result("ann", "05", exercise(HOSTILE, Judged("not yet", "", HOSTILE))))])
    [line] = [line for line in capsys.readouterr().out.splitlines() if "script" in line]
    assert line.count("|") == len(("lab", "exercise", "outcome", "earned", "points", "why")) + 1
    assert not set("<>[]()`@!\x1b") & set(line)
