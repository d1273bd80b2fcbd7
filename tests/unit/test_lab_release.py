"""Generating the notebooks: the same every time, and a learner's work is never lost."""

import shutil
from pathlib import Path

import nbformat
import pytest

from labkit.course import needs
from labkit.course.authoring import execute, release
from labkit.course.commands import reset
from labkit.errors import Unsupported
from labkit.files import state_folder

TOY = Path(__file__).parent.parent / "notebooks" / "data" / "90_toy.md"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the toy lab alone."""
    (tmp_path / "labs" / "source").mkdir(parents=True)
    shutil.copy(TOY, tmp_path / "labs" / "source")
    monkeypatch.setattr(state_folder, "checkout", lambda: tmp_path)
    monkeypatch.delenv("LABKIT_STATE", raising=False)
    return tmp_path


def pretend_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
        for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
            cell.execution_count = number
        return notebook

    monkeypatch.setattr(execute, "execute", run)


def test_the_same_source_gives_the_same_bytes(checkout: Path) -> None:
    assert release.main(["--no-execute"]) == 0
    path = checkout / "labs" / "90_toy.ipynb"
    first = path.read_bytes()
    path.unlink()
    assert release.main(["--no-execute"]) == 0
    assert path.read_bytes() == first
    nbformat.validate(nbformat.read(path, as_version=4))  # type: ignore[no-untyped-call]


def test_the_learners_copy_lacks_what_is_theirs_to_find(checkout: Path) -> None:
    md = checkout / "labs" / "source" / "90_toy.md"
    learner, solved = release.text_of(release.build(md, False)), release.text_of(release.build(md, True))
    assert "sethostname(hostname)" in solved
    assert "sethostname(hostname)" not in learner
    assert "lab.answer(" in solved
    assert "lab.answer(" not in learner
    assert "your code here" in learner
    assert "answer = None" in learner
    for text in (learner, solved):
        assert "###" not in text
    assert {cell.id for cell in release.build(md, False).cells} >= {"exercise-isolate", "exercise-count"}


def test_check_says_what_is_out_of_date(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_executed(monkeypatch)
    assert release.main(["--check"]) == 1
    assert "labs/90_toy.ipynb: missing" in capsys.readouterr().out
    assert release.main([]) == 0
    assert release.main(["--check"]) == 0
    md = checkout / "labs" / "source" / "90_toy.md"
    md.write_text(md.read_text().replace("A toy lab", "Another lab"))
    capsys.readouterr()
    assert release.main(["--check"]) == 1
    said = capsys.readouterr().out
    assert "labs/90_toy.ipynb: out of date" in said
    assert "solved/90_toy.ipynb: out of date" in said
    assert "./lab release" in said


def test_a_solved_notebook_with_a_cell_not_run_is_found(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_executed(monkeypatch)
    assert release.main([]) == 0
    solved = checkout / "tests" / "notebooks" / "solved" / "90_toy.ipynb"
    solved.write_text(solved.read_text().replace('"execution_count": 2', '"execution_count": null'))
    assert release.main(["--check"]) == 1
    assert "not executed" in capsys.readouterr().out


def test_work_of_a_learner_is_kept(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main(["--no-execute"]) == 0
    path = checkout / "labs" / "90_toy.ipynb"
    pristine = path.read_text()
    worked = pristine.replace("...  # your code here", "unshare(0)  # my own idea")
    path.write_text(worked)
    assert release.main(["--check"]) == 1
    assert "labs/90_toy.ipynb: worked in" in capsys.readouterr().out
    assert release.main(["--no-execute"]) == 0
    assert path.read_text() == pristine
    (kept,) = (checkout / ".lab" / "kept").iterdir()
    assert kept.read_text() == worked
    assert kept.name in capsys.readouterr().out
    reset.clear(checkout / ".lab")  # what `./lab reset --all` ends with
    assert kept.read_text() == worked


def test_a_copy_that_was_only_run_is_not_kept(checkout: Path) -> None:
    assert release.main(["--no-execute"]) == 0
    path = checkout / "labs" / "90_toy.ipynb"
    pristine = path.read_text()
    path.write_text(pristine.replace('"execution_count": null', '"execution_count": 7'))
    assert release.main(["--no-execute"]) == 0
    assert path.read_text() == pristine
    assert not (checkout / ".lab" / "kept").exists()


def test_a_file_that_is_no_notebook_is_kept_too(checkout: Path) -> None:
    path = checkout / "labs" / "90_toy.ipynb"
    path.write_text("notes of mine")
    assert release.main(["--no-execute"]) == 0
    assert (checkout / ".lab" / "kept" / "90_toy-1.ipynb").read_text() == "notes of mine"


def test_a_wrong_source_is_one_line(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    md = checkout / "labs" / "source" / "90_toy.md"
    md.write_text(md.read_text().replace("### END SOLUTION", "", 1))
    assert release.main([]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "90_toy.md:" in said
    assert release.main(["77"]) == 1


def test_normalise_leaves_what_is_the_same_every_time() -> None:
    notebook = release.build(TOY, solved=True)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.metadata["execution"] = {"iopub.execute_input": "2030-01-01T00:00:00Z"}
    notebook.metadata["widgets"] = {"state": {}}
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "abc"}}
    cell.outputs = [
        nbformat.from_dict(output)  # type: ignore[no-untyped-call]
        for output in (
            {"output_type": "stream", "name": "stdout", "text": "in /home/me/course/"},
            {"output_type": "stream", "name": "stdout", "text": "labs\n"},
            {"output_type": "display_data", "metadata": {}, "data": widget},
            {"output_type": "display_data", "metadata": {}, "data": {"text/plain": "x", **widget}},
        )
    ]
    execute.normalise(notebook, {"/home/me/course": "<checkout>", "/home/me/": "~/"})
    assert cell.metadata == {}
    assert "widgets" not in notebook.metadata
    assert [dict(output) for output in cell.outputs] == [
        {"output_type": "stream", "name": "stdout", "text": "in <checkout>/labs\n"},
        {"output_type": "display_data", "metadata": {}, "data": {"text/plain": "x"}},
    ]


def test_a_lab_that_needs_more_than_is_here_is_executed_in_a_machine(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    md = checkout / "labs" / "source" / "90_toy.md"
    md.write_text(md.read_text().replace("kernelspec:", "needs: [cgroup-v2]\nkernelspec:", 1))
    pretend_executed(monkeypatch)
    lack: list[Unsupported | None] = [None]
    monkeypatch.setitem(needs.KNOWN, "cgroup-v2", lambda: lack[0])
    here, inside = execute.execute, []

    def in_vm(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
        inside.append(folder)
        if len(inside) == 2:
            raise Unsupported("no kind of virtual machine can run here", "get one")
        return here(notebook, folder)

    monkeypatch.setattr(execute, "execute_in_vm", in_vm)
    assert release.main([]) == 0 and not inside, "it is here"
    lack[0] = Unsupported("there are no groups", "use another kernel")
    assert release.main(["--all"]) == 0 and inside == [checkout / "labs"]
    assert "in a virtual machine" in capsys.readouterr().out
    assert release.main(["--all"]) == 1
    said = capsys.readouterr().err
    assert "there are no groups" in said and "get one" in said and said.count("\n") == 1
