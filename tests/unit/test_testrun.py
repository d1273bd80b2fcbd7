"""`./lab test` itself: nothing is left out, nothing that fails or ends early is counted as passed."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from labkit.course.testrun import command, covered, jobs, related, report, results, schedule
from labkit.course.testrun.jobs import Job
from labkit.course.testrun.lanes import LANES, PROGRAMS
from labkit.course.testrun.report import Case, Report
from labkit.course.testrun.results import Done, Result
from labkit.files import state_folder

CHECKOUT = state_folder.checkout()
TESTS = CHECKOUT / "tests"
FILES = {str(path.relative_to(TESTS)) for path in TESTS.rglob("test_*.py")}

MIXED = """
import os, pathlib, pytest

def test_passes(): pass
def test_fails(): assert 1 == 2
@pytest.mark.skip(reason="crun is not installed")
def test_avoidable(): pass
@pytest.mark.skip(reason="this machine cannot: fly")
def test_cannot(): pass
@pytest.mark.xfail(strict=True)
def test_expected(): assert False
@pytest.fixture
def leaks():
    yield
    assert False, "left a process"
def test_torn_down(leaks): pass
@pytest.mark.long
def test_long(): pass
"""
DIES = "import os\ndef test_a(): pass\ndef test_b(): os._exit(3)\ndef test_c(): pass\n"
# Fails the first time that it is run in a folder, and passes ever after.
UNSTEADY = """
import pathlib
def test_once():
    been = pathlib.Path(__file__).with_suffix(".been")
    first = not been.exists()
    been.touch()
    assert not first, "the first time"
"""
NAME = "tests/unit/test_it.py"


def checkout(folder: Path, text: str) -> schedule.Run:
    """A checkout of one file of tests; how to run it."""
    (folder / "tests/unit").mkdir(parents=True)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:nbval -p no:anyio\nmarkers = long\n")
    (folder / NAME).write_text(text)
    (folder / "out").mkdir()
    return schedule.Run(folder, folder, folder / "out", apart=False, strict=False, long=False, extra=())


def ran(how: schedule.Run) -> tuple[Done, dict[str, Done], Result]:
    """The one job of `checkout`, its second run, and what is counted."""
    (first,) = schedule.run(jobs.of_files(["unit/test_it.py"]), how, 1, lambda _: None)
    second = schedule.again([first], how, lambda _: None)
    result = Result("unit")
    results.count(result, first, second)
    return first, second, result


@pytest.fixture(autouse=True)
def package_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
    for name in (report.REPORT, report.LONG, "LABKIT_NO_SKIPS"):
        monkeypatch.delenv(name, raising=False)


# --- nothing is left out ----------------------------------------------------------------------------------------------


def test_every_file_of_tests_is_in_one_job_of_one_lane() -> None:
    found = Counter(
        argument.removeprefix("tests/")
        for lane in LANES
        if lane not in PROGRAMS
        for job in jobs.of_lane(lane, CHECKOUT, long=True)
        for argument in job.arguments
    )
    assert set(found) == FILES
    assert set(found.values()) == {1}


def test_the_tables_name_files_that_exist() -> None:
    quick = {f"{lane}/{file}" for lane, files in jobs.QUICK.items() for file in files}
    programs = {f"{job.lane}/{job.name}" for lane in PROGRAMS for job in jobs.of_lane(lane, CHECKOUT)}
    assert set(jobs.SECONDS) | quick | jobs.NETWORK | jobs.TWO_AT_ONCE <= FILES | programs


def test_quick_has_something_of_every_lane() -> None:
    assert all(jobs.of_lane(lane, CHECKOUT, quick=True) for lane in LANES)


def test_what_covers_few_files_is_left_out_until_one_of_them_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = "unit/test_it.py"
    checkout(tmp_path, "def test_a(): pass\n")
    monkeypatch.setattr(covered, "COVERS", {file: ("Vagrantfile", "tests/unit")})
    (tmp_path / "Vagrantfile").write_text("one")
    assert not covered.unchanged(file, tmp_path)
    covered.passed(file, tmp_path)
    assert jobs.of_lane("unit", tmp_path) == []
    assert len(jobs.of_lane("unit", tmp_path, long=True)) == 1
    for change in ("Vagrantfile", NAME, "tests/unit/new.py"):
        (tmp_path / change).write_text("changed")
        assert not covered.unchanged(file, tmp_path)
        assert len(jobs.of_lane("unit", tmp_path)) == 1
        covered.passed(file, tmp_path)
        assert covered.unchanged(file, tmp_path)


# --- nothing passes that did not --------------------------------------------------------------------------------------


def test_each_outcome_is_counted_as_what_it_is(tmp_path: Path) -> None:
    first, second, result = ran(checkout(tmp_path, MIXED))
    assert set(first.failures) == {f"{NAME}::test_fails", f"{NAME}::test_torn_down"} == set(second)
    assert (result.passed, result.failed, result.skipped, result.left) == (1, 2, 3, 1)
    assert result.skips["this machine cannot: fly"] == 1
    assert any("left a process" in complaint for complaint in result.complaints)
    assert not result.unsteady


def test_an_avoidable_skip_fails_where_none_is_allowed(tmp_path: Path) -> None:
    cases = {name: Case(name, "skipped", why, 0) for name, why in (("a", "crun is not installed"),
                                                                   ("b", "this machine cannot: fly"))}  # fmt: skip
    said = Report(list(cases), 0, cases)
    job = Job("unit", "it", (NAME,))
    assert results.done(job, 0, said, 1, tmp_path, strict=False).failures == {}
    assert results.done(job, 0, said, 1, tmp_path, strict=True).failures == {"a": "was skipped: crun is not installed"}


def test_the_long_run_has_what_the_ordinary_one_leaves(tmp_path: Path) -> None:
    how = checkout(tmp_path, "import pytest\n@pytest.mark.long\ndef test_long(): pass\n")
    assert ran(how)[2].left == 1
    (first,) = schedule.run(
        jobs.of_files(["unit/test_it.py"]), schedule.Run(**vars(how) | {"long": True}), 1, lambda _: None
    )
    assert list(first.report.cases) == [f"{NAME}::test_long"]


def test_a_process_that_dies_says_at_which_test_and_the_others_are_run(tmp_path: Path) -> None:
    first, second, result = ran(checkout(tmp_path, DIES))
    assert first.report.under_way == f"{NAME}::test_b"
    assert first.complaint == f"pytest ended with exit code 3 at {NAME}::test_b; 2 tests had not run"
    assert (result.passed, result.failed) == (1, 2), "the second run dies there too"
    assert set(second) == {f"{NAME}::test_b", f"{NAME}::test_c"}


def test_one_that_fails_and_then_passes_alone_is_said_to_be_unsteady(tmp_path: Path) -> None:
    _, _, result = ran(checkout(tmp_path, UNSTEADY))
    assert (result.passed, result.failed) == (1, 0)
    assert result.unsteady == [f"{NAME}::test_once: AssertionError: the first time"]


@pytest.mark.parametrize("text", ["import no_such_module\n", "raise SystemExit(4)\n", "def test_x(:\n"])
def test_a_file_that_cannot_be_read_has_failed(tmp_path: Path, text: str) -> None:
    _, _, result = ran(checkout(tmp_path, text))
    assert result.passed == 0 and result.failed >= 1


@pytest.mark.parametrize(("unsteady", "code"), [(3, 0), (4, 1)])
def test_many_unsteady_tests_are_a_failure(
    unsteady: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{NAME}::test_{number}" for number in range(unsteady)]
    job = Job("unit", "it", (NAME,))

    def done(outcome: str) -> Done:
        return results.done(
            job, 0, Report(names, 0, {name: Case(name, outcome, "why", 0) for name in names}), 1, tmp_path, False
        )

    assert command._close([done("failed")], dict.fromkeys(names, done("passed")), 60) == code
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"{unsteady} passed, 0 failed, 0 skipped"
    assert all(f"unsteady (failed first, passed alone): {name}: why" in said for name in names)


def test_a_lane_that_ran_nothing_has_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = results.done(Job("unit", "it", (NAME,)), 5, Report(), 1, tmp_path, False)
    assert command._close([empty], {}, 1) == 1
    assert "ran no test" in capsys.readouterr().out


def test_what_is_interrupted_says_where_it_was_and_leaves_nothing(tmp_path: Path) -> None:
    how = checkout(tmp_path, "import time\ndef test_a(): time.sleep(600)\n")
    program = f"""
import sys
from pathlib import Path
from labkit.course.testrun import command, jobs, schedule
import signal
signal.signal(signal.SIGTERM, command._stop)
place = Path({str(tmp_path)!r})
how = schedule.Run(place, place, place / "out", False, False, False, ())
print("begun", flush=True)
schedule.run(jobs.of_files(["unit/test_it.py"]), how, 1, print)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        assert run.stdout and run.stdout.readline() == "begun\n"
        lines = how.folder / "000-unit-it.jsonl"
        while "begun" not in (lines.read_text() if lines.exists() else ""):
            assert run.poll() is None
        run.terminate()
        said, _ = run.communicate(timeout=60)
    assert f"interrupted: unit, at {NAME}::test_a" in said
    assert not [path for path in how.folder.iterdir() if path.is_dir()]


# --- what is asked for ------------------------------------------------------------------------------------------------


def test_lanes_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(LANES)
    assert command.main(["frobnicate"]) == 2
    assert "neither a file nor a lane" in capsys.readouterr().err
    assert command.main(["/etc/passwd"]) == 2


@pytest.mark.parametrize(
    ("file", "test"),
    [
        ("labkit/vm/xstate.py", "unit/test_vm_xstate.py"),
        ("labkit/overlay/overlay.py", "kernel/test_overlay.py"),
        ("labkit/course/exercises/lab07/exercises.py", "notebooks/test_lab07.py"),
        ("labs/source/09_cgroups.md", "notebooks/test_lab09.py"),
        ("tests/unit/test_cli.py", "unit/test_cli.py"),
        ("tests/unit/test_cli.py::test_one", "unit/test_cli.py::test_one"),
        ("tests/notebooks/rooms.py", "notebooks/test_in_rooms.py"),
    ],
)
def test_what_goes_with_a_file(file: str, test: str) -> None:
    found = [argument for job in related.jobs_of([file], CHECKOUT) for argument in job.arguments]
    assert f"tests/{test}" in found
    assert len(found) < len(FILES) / 2
