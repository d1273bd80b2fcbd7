"""`./lab grade` as it is called: real notebooks, real rooms, and what is left of it."""

import csv
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from labkit.course.authoring import release
from labkit.course.grading import sandbox
from labkit.course.grading.report import store
from labkit.course.source import lab_source
from labkit.files import state_folder
from tests.requirements import machine_cannot

pytestmark = pytest.mark.timeout(600)
GRADE = [sys.executable, "-P", "-m", "labkit.course.commands", "grade"]


@pytest.fixture(scope="module", autouse=True)
def rooms() -> None:
    if lack := sandbox.unsupported():
        machine_cannot(str(lack))


@pytest.fixture
def handed_in(tmp_path: Path) -> Path:
    """A class of three: all solved, nothing done, and something that is no notebook."""
    folder = tmp_path / "handed-in"
    for learner, text in (
        ("ada", release.text_of(release.build(lab_source.path_of("05"), solved=True))),
        ("bob", release.text_of(release.build(lab_source.path_of("05"), solved=False))),
        ("=cy", "no notebook"),
    ):
        (folder / learner).mkdir(parents=True)
        (folder / learner / "05_uts.ipynb").write_text(text)
    return folder


def grade(tmp_path: Path, *argv: object) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, "LABKIT_STATE": str(own_state(tmp_path))}
    command = [*GRADE, *(str(word) for word in argv)]
    return subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=500)


def own_state(tmp_path: Path) -> Path:
    """A state folder whose seed is this test's alone, with this machine's root filesystems."""
    state = tmp_path / "state"
    if not state.is_dir():
        state.mkdir()
        (state / "rootfs").symlink_to((state_folder.state() / "rootfs").resolve())
    return state


def scores(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        return {row["learner"]: row for row in csv.DictReader(file)}


def test_a_class_is_graded_and_written_down(tmp_path: Path, handed_in: Path) -> None:
    done = grade(tmp_path, "--no-replay", "--jobs", "2", handed_in)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    found = scores(tmp_path / "graded")
    assert {name: row["percent"] for name, row in found.items()} == {"ada": "100", "bob": "0", "'=cy": "0"}
    lines = done.stdout.splitlines()
    assert lines[0] == "3 notebooks to grade."
    assert [line[:3] for line in lines[1:4]] == ["1/3", "2/3", "3/3"]
    assert any("=cy  lab 05  refused: " in line for line in lines[1:4])
    assert lines[-1] == "The pages: graded/index.html    The scores: graded/scores.csv"
    assert {path.name for path in (tmp_path / "graded" / "learners").iterdir()} >= {"ada.html", "bob.html"}
    state = own_state(tmp_path)
    assert sorted(os.listdir(state)) == ["grading-seed", "rootfs"]

    seen = [[one.judged.seen for one in result.exercises] for result in store.read(tmp_path / "graded")]
    again = grade(tmp_path, "--no-replay", "--out", "again", "--lab", "5", handed_in)
    assert again.returncode == 0, again.stdout + again.stderr
    assert scores(tmp_path / "again") == found
    drawn = [[name for name in str(seen).split("`") if name.startswith("box-")]]
    assert drawn[0] and all(name in (tmp_path / "again" / "results.json").read_text() for name in drawn[0])


def test_ones_own_notebook_is_explained_in_full(tmp_path: Path, handed_in: Path) -> None:
    done = grade(tmp_path, "--no-replay", handed_in / "ada" / "05_uts.ipynb")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ passed  A hostname of its own (isolate)" in done.stdout
    assert "Seen: " in done.stdout and "Why it matters: " in done.stdout
    assert not (tmp_path / "graded").exists(), "it is written down only where --out says so"


def test_the_hidden_check_of_the_instructors_page_does_what_it_says(tmp_path: Path, handed_in: Path) -> None:
    page = (state_folder.checkout() / "docs" / "instructor.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "lab05.py").write_text(example, encoding="utf-8")
    honest = (handed_in / "ada" / "05_uts.ipynb").read_text(encoding="utf-8")
    (handed_in / "eve").mkdir()
    short = honest.replace("sethostname(hostname)", "sethostname(hostname[:20])")
    (handed_in / "eve" / "05_uts.ipynb").write_text(short, encoding="utf-8")
    done = grade(tmp_path, "--no-replay", "--hidden", "hidden", handed_in)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one.learner: one.exercises[0] for one in store.read(tmp_path / "graded") if one.exercises}
    assert [one.outcome for one in found["ada"].hidden] == ["passed"] and found["ada"].earned == found["ada"].points
    (hidden,) = found["eve"].hidden
    assert (
        found["eve"].judged.outcome == "passed"
        and hidden.outcome == "not yet"
        and found["eve"].earned == found["eve"].points / 2
    )
    shown = (tmp_path / "graded" / "learners" / "eve.html").read_text(encoding="utf-8")
    assert hidden.why in shown and "nnnnnnnn" in hidden.seen and "nnnnnnnn" not in shown


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_what_was_graded_before_an_interruption_is_kept(
    number: signal.Signals, code: int, tmp_path: Path, handed_in: Path
) -> None:
    argv = ["--no-replay", "--jobs", "1", str(handed_in)]
    said = interrupted(tmp_path, argv, number, code)
    assert "stopped after " in said and "these are in graded." in said
    kept = (tmp_path / "graded" / "results.json").read_bytes()
    assert 1 <= len(store.read(tmp_path / "graded")) < 3
    assert store.said(tmp_path / "graded")[0].startswith("Stopped after ")
    if number == signal.SIGTERM:
        assert "these are in graded.stopped." in interrupted(tmp_path, argv, number, code)
        assert (tmp_path / "graded" / "results.json").read_bytes() == kept, "an earlier report stays as it was"
        assert 1 <= len(store.read(tmp_path / "graded.stopped")) < 3


def interrupted(tmp_path: Path, argv: Sequence[str], number: signal.Signals, code: int) -> str:
    """What grading says on its standard error if it is interrupted after its first submission."""
    environ = {**os.environ, "LABKIT_STATE": str(own_state(tmp_path)), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        ["env", "--default-signal=HUP", *GRADE, *argv],  # these tests may run under nohup
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdout and running.stderr
        deadline = time.monotonic() + 120
        seen = ""
        while "1/3" not in seen and time.monotonic() < deadline:
            if select.select([running.stdout], [], [], 1)[0]:
                seen += (line := running.stdout.readline())
                assert line, f"it ended too soon: {running.stderr.read()}"
        running.send_signal(number)
        said = running.stderr.read()
        assert running.wait(timeout=120) == code, said
        assert "Traceback" not in said
        return said
