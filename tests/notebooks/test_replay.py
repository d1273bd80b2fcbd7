"""The toy lab through the whole chain, and what the replay of a notebook must not let pass."""

import copy
import functools
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from labkit.course.authoring import execute, release
from labkit.course.authoring.replay import Replay, replay

HERE = Path(__file__).parent
TOY = HERE / "data" / "90_toy.md"
SANITIZE = HERE / "sanitize.cfg"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(autouse=True)
def toy_exercises_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(HERE / "data"))


def executed(solved: bool) -> NotebookNode:
    return copy.deepcopy(_executed(solved))


@functools.cache
def _executed(solved: bool) -> NotebookNode:
    return execute.normalise(execute.execute(release.build(TOY, solved), TOY.parent), {})


def notebook_of(*cells: str) -> NotebookNode:
    """A notebook that claims that all its cells were run and printed nothing."""
    notebook = release.build(TOY, solved=True)
    code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    notebook.cells = [
        nbformat.from_dict(  # type: ignore[no-untyped-call]
            {**code, "id": f"cell-{number}", "source": text, "outputs": [], "execution_count": number}
        )
        for number, text in enumerate(cells, 1)
    ]
    return notebook


def replayed(notebook: NotebookNode, folder: Path, seconds_per_cell: int = 60) -> Replay:
    path = folder / "90_toy.ipynb"
    path.write_text(release.text_of(notebook), encoding="utf-8")
    return replay(path, folder=folder, sanitize=SANITIZE, seconds_per_cell=seconds_per_cell)


def outputs(notebook: NotebookNode) -> str:
    """All that a notebook shows in plain text."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            found.append(output.get("text") or output.data["text/plain"])
    return "\n".join(found)


def test_solved_toy_is_executed_and_gives_the_same_twice(tmp_path: Path) -> None:
    notebook = executed(solved=True)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = outputs(notebook)
    assert "You predicted: the old one" in shown
    assert "in the child" in shown
    assert "'toy'" in shown
    assert "from a child process" in shown, "what child processes write to descriptor 1 is shown, as in a notebook"
    assert "hidden" not in shown, "a trailing semicolon hides the value"
    assert "isolate: passed" in shown
    assert "2 of 2 exercises passed" in shown
    assert "widget-view" not in release.text_of(notebook)
    for _ in range(2):
        done = replayed(notebook, tmp_path)
        assert done.exit_code == 0, done.text


def test_learners_toy_runs_to_its_end_untouched() -> None:
    shown = outputs(executed(solved=False))
    assert "First make your prediction" in shown
    assert "in the child" not in shown
    assert "isolate: not attempted" in shown
    assert "count: not attempted" in shown
    assert "0 of 2 exercises passed" in shown


def change_an_output(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = output.text.replace("in the child", "in the parent")


def forget_an_execution_count(notebook: NotebookNode) -> None:
    notebook.cells[-1].execution_count = None


def ask_to_be_skipped(notebook: NotebookNode) -> None:
    notebook.cells[-1].metadata["tags"] = ["nbval-skip"]


def ask_not_to_be_compared(notebook: NotebookNode) -> None:
    notebook.cells[-1].source = "# NBVAL_IGNORE_OUTPUT\n" + notebook.cells[-1].source


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_an_output, "in the parent"),
        (forget_an_execution_count, "no execution count"),
        (ask_to_be_skipped, "asks not to be run"),
        (ask_not_to_be_compared, "asks not to be run or not to be compared"),
    ],
)
def test_what_nbval_would_let_pass_fails(change: Callable[[NotebookNode], None], words: str, tmp_path: Path) -> None:
    notebook = executed(solved=True)
    change(notebook)
    done = replayed(notebook, tmp_path)
    assert done.exit_code == 1, done.text
    assert words in done.text


def test_a_kernel_that_dies_is_noticed_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    done = replayed(notebook_of("import os; os._exit(1)"), tmp_path)
    assert done.exit_code == 1, done.text
    assert "kernel died" in done.text
    assert time.monotonic() - started < 40, "the cell's time limit is 60 s"


def test_a_time_limit_cannot_be_caught(tmp_path: Path) -> None:
    cell = "import time\ntry:\n    time.sleep(100)\nexcept KeyboardInterrupt:\n    pass"
    done = replayed(notebook_of(cell), tmp_path, seconds_per_cell=2)
    assert done.exit_code == 1, done.text
    assert "time limit" in done.text


def test_a_failing_cell_is_said_with_its_error() -> None:
    notebook = notebook_of("1 / 0")
    with pytest.raises(execute.CellFailed, match="ZeroDivisionError"):
        execute.execute(notebook, TOY.parent)


def test_failures_are_shown_in_a_few_lines_and_replay(tmp_path: Path) -> None:
    """A box for what labkit says, an exception for what the kernel says; no frames of labkit's own; the same again."""
    head = "from labkit.constants import CLONE_NEWNS\nfrom labkit.course.lab import Lab\n"
    head += "from labkit.process import run_in_child\nfrom labkit.syscalls import umount2, unshare\nlab = Lab('99')"
    notebook = notebook_of(
        head,
        "import os\nrun_in_child(os._exit, 3)",
        "def detach(path):\n    unshare(CLONE_NEWNS)\n    umount2(path)\n\n\nrun_in_child(detach, '/usr/bin')",
        "run_in_child(print, 'and on it goes')",
    )
    for cell in notebook.cells[1:3]:
        cell.metadata["tags"] = ["raises-exception"]
    execute.normalise(execute.execute(notebook, tmp_path), {})
    _, died, refused, after = notebook.cells
    assert [output.output_type for output in died.outputs] == ["display_data"]
    assert died.outputs[0].data["text/plain"].startswith("ChildDied: Process ")
    assert died.outputs[0].data["text/plain"].endswith("Line 2 of the cell, `run_in_child(os._exit, 3)`.")
    assert [(output.output_type, output.ename) for output in refused.outputs] == [("error", "OSError")]
    lines = refused.outputs[0].traceback
    assert "umount2('/usr/bin', 0)" in lines[0]
    assert lines[1].startswith("/usr/bin is not a mount point here")
    assert lines[2:] == [
        "",
        "In the child:",
        "  line 3 of detach(): umount2(path)",
        "",
        "In the notebook:",
        "  line 6 of the cell: run_in_child(detach, '/usr/bin')",
    ]
    assert after.outputs[0].text == "and on it goes\n"
    for _ in range(2):
        done = replayed(notebook, tmp_path)
        assert done.exit_code == 0, done.text


def test_a_box_stops_the_notebook_as_an_exception_does() -> None:
    cells = [
        "from labkit.course.lab import Lab\nlab = Lab('99')",
        "from labkit import container\ncontainer.run([])",
        "1",
    ]
    with pytest.raises(execute.CellFailed, match="InvalidConfig: The command is a list of strings"):
        execute.execute(notebook_of(*cells), TOY.parent)


def test_an_exception_in_an_observe_cell_stops_the_notebook() -> None:
    notebook = release.build(TOY, solved=True)
    observe = next(cell for cell in notebook.cells if cell.source.startswith("%%observe"))
    observe.source = "%%observe stays\nraise ValueError('as a cell would')"
    with pytest.raises(execute.CellFailed, match="ValueError: as a cell would"):
        execute.execute(notebook, TOY.parent)
