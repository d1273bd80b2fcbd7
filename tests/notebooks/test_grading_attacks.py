"""The attacks that a submission may try, in one class with an honest learner: what each is worth, and what it reached.

Each attacker hands in lab 05 and does its worst in the cell of one exercise, `isolate`, or around the notebook; the
other three exercises are answered as the course answers them. So an attack costs one exercise of four, or nothing.
"""

import json
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit.course import exercise_spec
from labkit.course.authoring import release
from labkit.course.grading import class_run, sandbox
from labkit.course.grading.discover import find
from labkit.course.grading.results import Exam, Result
from labkit.course.source import lab_source
from labkit.files import state_folder
from tests.requirements import machine_cannot

pytestmark = pytest.mark.timeout(1500)
LAB = "05"
SECONDS = 25.0
Change = Callable[[Any, Path], None]

PLANT = "import os\nopen({!r}, 'w').write('reached')\n"
WRONG = "def isolate(hostname):\n    print('isolate: passed')\n"


def cell(code: str) -> Change:
    """An attack in the cell of the exercise."""

    def change(notebook: Any, folder: Path) -> None:
        exercise_cell(notebook, "isolate").source = code

    return change


def exercise_cell(notebook: Any, name: str) -> Any:
    return next(one for one in notebook.cells if one.metadata.get("labkit", {}).get("exercise") == name)


def tags(notebook: Any, folder: Path) -> None:
    for one in notebook.cells:
        one.metadata["tags"] = ["nbval-skip", "nbval-ignore-output", "raises-exception", "skip-execution"]
    exercise_cell(notebook, "isolate").source = f"# NBVAL_SKIP\n{WRONG}"


def deleted_checks(notebook: Any, folder: Path) -> None:
    notebook.cells = [one for one in notebook.cells if ".check(" not in one.source]
    exercise_cell(notebook, "isolate").source = WRONG


def forged_outputs(notebook: Any, folder: Path) -> None:
    exercise_cell(notebook, "isolate").source = WRONG
    for number, one in enumerate(notebook.cells):
        if one.cell_type == "code":
            one.execution_count = number
            one.outputs = [nbformat.v4.new_output("stream", text="isolate: passed\n")]  # type: ignore[no-untyped-call]


def patched_in_another_cell(notebook: Any, folder: Path) -> None:
    patch = (
        "import labkit.lab\nimport labkit.course.framework.exercise_view as view\n"
        "view.judge = lambda *a: labkit.lab.Passed('', '')\n"
    )
    notebook.cells.insert(0, nbformat.v4.new_code_cell(patch))  # type: ignore[no-untyped-call]
    exercise_cell(notebook, "isolate").source = WRONG


def files_beside(notebook: Any, folder: Path) -> None:
    code = PLANT.format(str(folder.parent.parent / "reached"))
    for name in ("conftest", "sitecustomize", "usercustomize", "judge", "labkit", "nbval", "json", "pytest"):
        (folder / f"{name}.py").write_text(code)
    (folder / "labkit").mkdir()
    (folder / "labkit" / "__init__.py").write_text(code)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p conftest\n")
    (folder / ".pythonrc").write_text(code)
    exercise_cell(notebook, "isolate").source = WRONG


def big(notebook: Any, folder: Path) -> None:
    exercise_cell(notebook, "isolate").outputs = [
        nbformat.v4.new_output("stream", text="x" * (100 << 20))  # type: ignore[no-untyped-call]
    ]


def connects(notebook: Any, folder: Path) -> None:
    port = int((folder.parent.parent / "port").read_text())
    cell(
        f"""
import socket
def isolate(hostname):
    for address in ("127.0.0.1", "169.254.169.254", "192.0.2.1"):
        try: socket.create_connection((address, {port}), 2).send(b"reached")
        except OSError as error: print(error)
    sethostname(hostname)
"""
    )(notebook, folder)


def writes_outside(notebook: Any, folder: Path) -> None:
    places = [folder.parent.parent / "reached", state_folder.checkout() / "labkit" / "reached.py", Path("/etc/reached")]
    cell(
        f"""
def isolate(hostname):
    for path in {[str(place) for place in places]}:
        try: open(path, "w").write("reached")
        except OSError as error: print(error)
    os.symlink("{folder.parent.parent}", "/tmp/out")
"""
    )(notebook, folder)


TRANSFORMER = """
def passed(lines):
    return ["print('isolate: passed')"]
get_ipython().input_transformers_post.append(passed)
"""
READS = """
def isolate(hostname):
    for pid in [one for one in os.listdir("/proc") if one.isdigit()]:
        try: print(open(f"/proc/{pid}/environ").read())
        except OSError: pass
    raise RuntimeError(" ".join(os.environ))
"""
BOMB = """
def isolate(hostname):
    while True:
        try: os.fork()
        except OSError: pass
"""
MEMORY = """
def isolate(hostname):
    kept = []
    while len(kept) < 640: kept.append(b"x" * (1 << 24))
"""

#: what is handed in, and how many of the four exercises it is worth
ATTACKS: dict[str, tuple[Change, int]] = {
    "tags": (tags, 3),
    "deleted-checks": (deleted_checks, 3),
    "hard-coded-pass": (cell(WRONG), 3),
    "forged-outputs": (forged_outputs, 3),
    "patched-in-another-cell": (patched_in_another_cell, 3),
    "patched-in-its-own-cell": (
        cell(f"import labkit.course.framework.judge as j\nj.judge = print\nlab = None\n{WRONG}"),
        3,
    ),
    "input-transformer": (cell(TRANSFORMER), 3),
    "files-beside": (files_beside, 3),
    "reads-environments": (cell(READS), 3),
    "kills-its-parent": (cell("import os\ndef isolate(hostname): os.kill(os.getppid(), 9)"), 3),
    "kills-in-the-cell": (cell("import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)"), 3),
    "writes-outside": (writes_outside, 3),
    "much-output": (cell("def isolate(hostname):\n    for _ in range(300): print('x' * 1000000)"), 3),
    "much-output-in-the-cell": (cell("for _ in range(300): print('x' * 1000000)"), 3),
    "exits": (cell("import os\nos._exit(0)"), 3),
    "fork-bomb": (cell(BOMB), 3),
    "endless": (cell("while True: pass"), 3),
    "ten-gigabytes": (cell(MEMORY), 3),
    "network": (connects, 3),
    "leaves-something": (cell("open('/tmp/left', 'w').write('x')\ndef isolate(hostname): return 1"), 3),
    "a-hundred-megabytes": (big, 0),
    "zz-finds-something": (cell("import os\ndef isolate(hostname): raise RuntimeError(str(os.listdir('/tmp')))"), 3),
    "honest": (lambda notebook, folder: None, 4),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Result]]:
    """All of them handed in and graded as a class, with a listener on the machine's own loopback."""
    if lack := sandbox.unsupported():
        machine_cannot(lack.what)
    place = tmp_path_factory.mktemp("attacks")
    md = lab_source.path_of(LAB)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.MonkeyPatch.context() as patch:
        listener.settimeout(0.01)
        (place / "port").write_text(str(listener.getsockname()[1]))
        patch.setenv("SECRET", "of the grader")
        for learner, (change, _) in ATTACKS.items():
            folder = place / "class" / learner
            folder.mkdir(parents=True)
            notebook = release.build(md, solved=False)
            for one in exercise_spec.all_of(LAB):
                exercise_cell(notebook, one.exercise.name).source = one.solved
            change(notebook, folder)
            nbformat.write(notebook, folder / f"{md.stem}.ipynb")  # type: ignore[no-untyped-call]
        links = place / "class" / "links"
        links.mkdir()
        (links / f"{md.stem}.ipynb").symlink_to("/etc/passwd")
        (place / "class" / "link-to-another").symlink_to(place / "class" / "honest")
        said: list[str] = []
        found = find([place / "class"], said.append)
        results = class_run.grade_all(found, Exam("seed", seconds=SECONDS), jobs=2)
        with pytest.raises(TimeoutError):
            listener.accept()
        assert not (place / "reached").exists()
        assert len([text for text in said if "symbolic link" in text]) == 2
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]  # Python keeps one until its own end
    yield {result.learner: result for result in results}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_worth_what_it_deserves(graded: dict[str, Result], attack: str) -> None:
    result = graded[attack]
    passed = [one.name for one in result.exercises if one.judged.outcome == "passed"]
    assert len(passed) == ATTACKS[attack][1], [(one.name, one.judged) for one in result.exercises]
    assert not result.failed
    assert "isolate" not in passed or attack == "honest"


def test_nobody_else_was_graded_and_links_were_not_followed(graded: dict[str, Result]) -> None:
    links = {"links", "link-to-another"}
    assert set(graded) == set(ATTACKS) | links
    assert all("symbolic link" in graded[one].refused and not graded[one].earned for one in links)


def test_a_notebook_that_is_too_big_is_refused_in_words(graded: dict[str, Result]) -> None:
    assert re.search("MB", graded["a-hundred-megabytes"].refused)


def test_what_comes_out_is_small_and_without_secrets(graded: dict[str, Result]) -> None:
    for learner, result in graded.items():
        text = json.dumps(result.to_json())
        assert len(text) < 1_000_000, learner
        assert "of the grader" not in text
        assert "root:x:0" not in text


def test_nothing_was_left_for_the_next(graded: dict[str, Result]) -> None:
    isolate = next(one for one in graded["zz-finds-something"].exercises if one.name == "isolate")
    assert "RuntimeError" in isolate.judged.seen
    assert "left" not in isolate.judged.seen


def test_nothing_was_written_outside(graded: dict[str, Result]) -> None:
    assert not (state_folder.checkout() / "labkit" / "reached.py").exists()
    assert not os.path.exists("/etc/reached")


def test_the_run_of_the_notebook_is_there_for_all_that_were_read(graded: dict[str, Result]) -> None:
    assert graded["honest"].replay
    assert graded["honest"].replay.ok
    for learner in ("exits", "endless", "much-output-in-the-cell", "kills-in-the-cell"):
        replay = graded[learner].replay
        assert replay is not None
        assert not replay.ok, (learner, sys.getsizeof(replay))
