"""A class of submissions, honest and hostile, many at once. LABKIT_ROUNDS=20 grades the honest class that often."""

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import nbformat
import pytest

from bench import classroom
from labkit.course import exercise_spec
from labkit.course.authoring import release
from labkit.course.grading import class_run, sandbox
from labkit.course.grading.discover import Found, find
from labkit.course.grading.results import Exam, ExerciseResult, Judged, Result
from labkit.course.source import lab_source
from labkit.files import state_folder
from tests.requirements import machine_cannot, need_servers

pytestmark = pytest.mark.timeout(1800)
EXAM = Exam("a seed of the class", replay=False)
HONEST_LABS = ("00", "01", "02", "03", "05", "06", "07", "08", "10", "11", "12")
ENDLESS = "import time\ntime.sleep(1000)"


@pytest.fixture(autouse=True)
def rooms() -> Iterator[None]:
    if lack := sandbox.unsupported():
        machine_cannot(lack.what)
    yield
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]  # Python keeps one until its own end


@pytest.fixture
def klass(tmp_path: Path) -> Path:
    (tmp_path / "class").mkdir()
    return tmp_path / "class"


def hand_in(folder: Path, learner: str, lab: str, answers: dict[str, str] | None = None) -> None:
    """A learner's copy of a lab with these answers in it; with the course's own where none are given."""
    md = lab_source.path_of(lab)
    notebook = release.build(md, solved=False)
    written = {one.exercise.name: one.solved for one in exercise_spec.all_of(lab)} if answers is None else answers
    for cell in notebook.cells:
        name = cell.metadata.get("labkit", {}).get("exercise")
        if name in written:
            cell.source = written[name]
    (folder / learner).mkdir(exist_ok=True)
    nbformat.write(notebook, folder / learner / f"{md.stem}.ipynb")  # type: ignore[no-untyped-call]


def collected(folder: Path) -> list[Found]:
    return find([folder], pytest.fail)


@pytest.mark.parametrize("size", [16, pytest.param(50, marks=pytest.mark.long)])
def test_honest_notebooks_have_all_their_points_each_time(klass: Path, size: int) -> None:
    need_servers()
    for number in range(size):
        hand_in(klass, f"learner-{number:02}", HONEST_LABS[number % len(HONEST_LABS)])
    found = collected(klass)
    assert len(found) == size >= len(HONEST_LABS)
    for _ in range(int(os.environ.get("LABKIT_ROUNDS", "1"))):
        results = class_run.grade_all(found, EXAM)
        wrong = [
            (result.learner, result.lab, one.name, one.judged)
            for result in results
            for one in result.exercises
            if one.earned != one.points and one.checked
        ]
        assert not wrong
        assert [result.learner for result in results] == sorted(result.learner for result in results)
        assert all(result.points > 0 and not result.refused for result in results)


def test_a_hostile_submission_costs_nobody_else_anything(klass: Path) -> None:
    for number in range(4):
        hand_in(klass, f"honest-{number}", "05")
    solved = {one.exercise.name: one.solved for one in exercise_spec.all_of("05")}
    hand_in(klass, "a-endless", "05", solved | {"isolate": ENDLESS, "join": ENDLESS})
    hand_in(klass, "a-killer", "05", solved | {"isolate": "import os\nos.kill(-1, 9)"})
    ended: list[str] = []
    exam = Exam("seed", replay=False, seconds=20)
    results = class_run.grade_all(collected(klass), exam, jobs=2, tell=lambda result: ended.append(result.learner))
    earned = {result.learner: result.earned for result in results}
    assert {earned[f"honest-{number}"] for number in range(4)} == {results[-1].points}
    for learner, lost in (("a-endless", {"isolate", "join"}), ("a-killer", {"isolate"})):
        mine = next(result for result in results if result.learner == learner)
        assert {one.name for one in mine.exercises if one.earned < one.points} == lost
    assert ended[-1] == "a-endless"  # begun first: the others did not wait for it


@pytest.mark.long  # a hostile notebook has half a minute of processor time, if nothing else ends it
def test_five_kinds_of_harm_cost_an_honest_learner_no_points(tmp_path: Path) -> None:
    size = classroom.hand_in(tmp_path, 6, classroom.HOSTILE)
    spans = classroom.graded(tmp_path, size, jobs=2)  # or it says who has got what is not theirs
    hostile = [one for one in spans if one.learner.endswith(tuple(classroom.HOSTILE))]
    honest = [one for one in spans if one not in hostile]
    assert (len(honest), len(hostile)) == (6, 5)
    assert any(one.share_beside(hostile) > 0.5 for one in honest), "none was graded beside a hostile one"


def test_who_has_got_what_is_not_theirs_is_told() -> None:
    passed, not_yet = Judged("passed", "", "", 1.0), Judged("not yet", "", "")

    def told(learner: str, **judged: Judged) -> list[str]:
        exercises = tuple(ExerciseResult(name, "", 1.0, one) for name, one in judged.items())
        return classroom.undeserved(Result(learner, "05", "", "", exercises))

    assert told("1-honest", isolate=passed, join=passed) == []
    assert told("2-forger", isolate=not_yet, join=passed) == []
    assert len(told("1-honest", isolate=passed, join=not_yet)) == 1
    assert len(told("2-forger", isolate=passed, join=passed)) == 1
    assert len(told("2-forger", isolate=Judged("not checked", "", ""), join=passed)) == 1
    assert len(told("1-honest")) == 1


def test_the_same_submission_has_the_same_score_later(klass: Path) -> None:
    solved = {one.exercise.name: one.solved for one in exercise_spec.all_of("05")}
    hand_in(klass, "alice", "05", solved | {"keep": "def keep(hostname, path): pass", "join": "join = 1 / 0"})

    def graded() -> Result:
        (result,) = class_run.grade_all(collected(klass), EXAM, jobs=1)
        return result

    first, later = graded(), graded()
    assert [one.judged.outcome for one in first.exercises] == ["passed", "passed", "not yet", "not attempted"]
    assert (first.earned, first.digest) == (later.earned, later.digest)


def test_a_worker_that_is_killed_takes_no_submission_along(klass: Path) -> None:
    for number in range(6):
        hand_in(klass, f"learner-{number}", "05", {"isolate": "def isolate(hostname): return 1"})
    killed: list[int] = []

    def kill_one(_: Result) -> None:
        if not killed and (workers := multiprocessing.active_children()):
            killed.append(workers[0].pid or 0)
            workers[0].kill()

    results = class_run.grade_all(collected(klass), EXAM, jobs=2, tell=kill_one)
    assert killed
    assert [result.failed for result in results] == [False] * 6
    assert {result.exercises[0].judged.outcome for result in results} == {"not yet"}


def test_a_submission_whose_worker_dies_each_time_is_told_apart(klass: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        hand_in(klass, f"learner-{number}", "05", {})
    found = collected(klass)
    submit: Callable[..., None] = class_run._submit

    def poisoned(pool, one, exam, waiting):  # type: ignore[no-untyped-def]
        if one.learner == "learner-1":
            waiting[pool.submit(os._exit, 1)] = one
        else:
            submit(pool, one, exam, waiting)

    monkeypatch.setattr(class_run, "_submit", poisoned)
    results = class_run.grade_all(found, EXAM, jobs=2)
    assert [result.failed for result in results] == [False, True, False]
    assert "not its fault" in results[1].refused


# Dask's nannies, loops and descriptors end with a process of their own, whenever they end.
ON_DASK = """
import json, sys
from pathlib import Path

def main():
    import distributed
    from labkit.course.grading import class_run as many
    from labkit.course.grading.discover import find
    from labkit.course.grading.results import Exam
    options = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        results = many.grade_all(find([Path(sys.argv[1])], sys.exit), Exam("seed", replay=False),
                                 scheduler=cluster.scheduler_address)
    print(json.dumps([(one.learner, one.earned, one.points) for one in results]))

if __name__ == "__main__":
    main()
"""


def test_a_class_is_graded_on_a_dask_cluster(klass: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    for number in range(4):
        hand_in(klass, f"learner-{number}", "05")
    (tmp_path / "on_dask.py").write_text(ON_DASK)
    argv = [sys.executable, str(tmp_path / "on_dask.py"), str(klass)]
    environ = dict(os.environ) | {"PYTHONPATH": str(state_folder.checkout())}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    there = json.loads(done.stdout)
    assert [learner for learner, _, _ in there] == [one.learner for one in collected(klass)]
    assert all(earned == points > 0 for _, earned, points in there)


def test_without_a_scheduler_at_the_address_it_says_so(klass: Path) -> None:
    code = f"""
from pathlib import Path
from labkit.course.grading import class_run as many
from labkit.course.grading.discover import find
from labkit.course.grading.results import Exam
many.grade_all(find([Path({str(klass)!r})]), Exam("seed"), scheduler="127.0.0.1:1")
"""
    hand_in(klass, "alice", "05")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert "LabkitError: there is no Dask scheduler at 127.0.0.1:1" in done.stderr
