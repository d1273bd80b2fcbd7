"""`./lab grade`: what it refuses, and pages made anew. tests/kernel/test_grading_command.py has it grade."""

import os
import signal
from pathlib import Path

import pytest

from labkit.course.grading import cli, report
from labkit.course.grading.results import Result
from labkit.errors import LabkitError
from tests.gradings import NOT_CHECKED, NOT_YET, a_class, exercise, result

Output = pytest.CaptureFixture[str]


def refused(capsys: Output, *argv: object) -> str:
    """What wrong usage is told, which is one line and exit code 2."""
    assert cli.main([str(word) for word in argv]) == 2
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert lines and lines[-1].startswith("lab: ") and said.out == ""
    return lines[-1].removeprefix("lab: ")


def test_wrong_usage_is_said_in_a_sentence(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a\x1b[31m").mkdir()
    empty, gone = tmp_path / "empty", tmp_path / "gone"
    assert refused(capsys, gone) == f"there is no {gone}"
    assert "there is no notebook in" in refused(capsys, empty)
    assert "\x1b" not in refused(capsys, tmp_path / "a\x1b[31m")
    assert "there is no notebook of lab 05 in" in refused(capsys, "--lab", "5", empty)
    assert "there is no lab '99'" in refused(capsys, "--lab", "99", empty)
    assert "there is no lab '../x'" in refused(capsys, "--lab", "../x", empty)
    assert "--jobs takes" in refused(capsys, "--jobs", "-1", empty)
    assert "there is no folder" in refused(capsys, "--hidden", gone, empty)
    assert "there are no hidden checks in" in refused(capsys, "--hidden", empty, empty)
    assert "must not be empty" in refused(capsys, "--seed", "", empty)
    assert "takes one folder" in refused(capsys, "--report-only", empty, empty)
    assert "takes one folder" in refused(capsys, "--report-only", gone)
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2


def test_a_folder_of_something_else_is_refused_before_anything_is_graded(tmp_path: Path, capsys: Output) -> None:
    folder = tmp_path / "handed-in"
    folder.mkdir()
    (folder / "05_uts.ipynb").write_text("{}")
    (tmp_path / "thesis.txt").write_text("mine")
    assert "not from an earlier grading" in refused(capsys, "--out", tmp_path, folder)
    assert "is no folder" in refused(capsys, "--out", tmp_path / "thesis.txt", folder)


def test_pages_are_made_anew_from_the_results(tmp_path: Path, capsys: Output) -> None:
    report.write(a_class(4), tmp_path / "one")
    (tmp_path / "one" / "index.html").unlink()
    assert cli.main(["--report-only", str(tmp_path / "one")]) == 0
    assert f"The pages: {tmp_path / 'one' / 'index.html'}" in capsys.readouterr().out
    assert (tmp_path / "one" / "index.html").exists()
    cli.main(["--report-only", "--out", str(tmp_path / "two"), str(tmp_path / "one")])
    assert (tmp_path / "two" / "scores.csv").read_bytes() == (tmp_path / "one" / "scores.csv").read_bytes()
    with pytest.raises(LabkitError, match="There are no results in"):
        cli.main(["--report-only", str(tmp_path)])


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (result(), False),
        (result("ada", "05", exercise(judged=NOT_YET, hidden=(NOT_YET,))), False),
        (Result("ada", "05", "", "", refused="No notebook."), False),
        (Result("ada", "05", "", "", refused="The machine is out of memory.", failed=True), True),
        (result("ada", "05", exercise(), exercise("join", NOT_CHECKED)), True),
        (result("ada", "05", exercise(hidden=(NOT_CHECKED,))), True),
    ],
)
def test_the_exit_code_is_about_the_machine_and_not_about_points(of: Result, expected: bool) -> None:
    assert cli.failed(of) == expected


def test_the_numbers_say_where_everything_went(tmp_path: Path) -> None:
    for name, text in (
        ("ada/05_uts.ipynb", "{}"),
        ("ada/05_uts-Copy1.ipynb", "{}"),
        ("ada/a.csv", ""),
        ("bob/b.pdf", ""),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found, said = cli._find([tmp_path], [])
    assert [one.learner for one in found] == ["ada", "bob"]
    assert said[-1] == ("4 files were looked at: 2 to grade, 1 passed over, 1 beside them that are no notebooks.")
    assert cli._outcomes([result("ada"), Result("bob", "05", "", "", refused="A PDF.")]) == (
        "Of 2 to grade 1 were graded and 1 refused."
    )


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """nohup ./lab grade goes on when its terminal is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli._terminated():
            os.kill(os.getpid(), signal.SIGHUP)
    except KeyboardInterrupt:
        pytest.fail("it was stopped by a signal that it was begun to ignore")
    else:
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
