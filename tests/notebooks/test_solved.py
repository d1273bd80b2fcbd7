"""The generated notebooks are up to date; the solved ones give from fresh what they gave, in the long run twice."""

import os
from pathlib import Path

import nbformat
import pytest

from labkit.course.authoring import execute, release
from labkit.course.authoring.replay import replay
from labkit.course.needs import lacking
from labkit.course.source import lab_source
from labkit.files import state_folder
from tests.requirements import machine_cannot, need

HERE = Path(__file__).parent
SANITIZE = HERE / "sanitize.cfg"
SOURCES = lab_source.all_paths()


def test_every_lab_has_up_to_date_notebooks() -> None:
    found = [finding for md in SOURCES for finding in release.findings(md) if finding.what != "worked in"]
    assert not found, "make them anew with ./lab release"


def test_every_notebook_has_a_source() -> None:
    stems = {md.stem for md in SOURCES}
    notebooks = [*(state_folder.checkout() / "labs").glob("*.ipynb"), *(HERE / "solved").glob("*.ipynb")]
    assert {notebook.stem for notebook in notebooks} <= stems


@pytest.mark.timeout(600)
@pytest.mark.parametrize("time", ["first", pytest.param("second", marks=pytest.mark.long)])
@pytest.mark.parametrize("md", SOURCES, ids=[md.stem for md in SOURCES])
def test_solved_gives_what_it_gave(md: Path, time: str) -> None:
    need(*lab_source.needs_anywhere(md))
    done = replay(release.solved_path(md), folder=state_folder.checkout() / "labs", sanitize=SANITIZE)
    assert done.exit_code == 0, done.text
    assert not _left_behind(done.state)


DEMANDING = [md for md in SOURCES if lab_source.needs(md)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("md", DEMANDING, ids=[md.stem for md in DEMANDING])
def test_a_lab_that_lacks_something_says_so_and_goes_on(md: Path) -> None:
    lack = lacking(lab_source.needs(md))
    if lack is None:
        machine_cannot("lack what this lab needs: it has it all")
    notebook = execute.execute(release.build(md, solved=True), release.learner_path(md).parent)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells), "each has run"
    for cell in cells:
        needy = " needs " in cell.source.splitlines()[0] or cell.source.startswith("%%needs ")
        if needy or ".check(" in cell.source:
            said = " ".join(output.get("data", {}).get("text/plain", "") for output in cell.outputs)
            assert lack.what in said and lack.mend in said, cell.source


@pytest.mark.parametrize("md", SOURCES, ids=[md.stem for md in SOURCES])
def test_learners_copy_gives_nothing_away(md: Path) -> None:
    notebook = nbformat.read(release.learner_path(md), as_version=4)  # type: ignore[no-untyped-call]
    solutions = {cell.solved for cell in lab_source.read(md) if cell.has_solution}
    for cell in notebook.cells:
        assert "###" not in cell.source or cell.cell_type == "markdown"
        assert cell.source not in solutions
        assert not cell.get("outputs")


def _left_behind(state: Path) -> list[str]:
    """Processes whose environment names the state folder of this very replay, which has ended."""
    found, wanted = [], f"LABKIT_STATE={state}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(f"{entry.name}: {(entry / 'cmdline').read_bytes()!r}")
            except OSError:
                continue  # it has ended, or it is somebody else's
    return found
