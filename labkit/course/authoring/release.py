"""`./lab release`: make the notebooks from the labs' single sources.

From `labs/source/NN_name.md` come `labs/NN_name.ipynb`, the learner's copy, with stubs and without outputs, and
`tests/notebooks/solved/NN_name.ipynb`, solved and executed. The same source gives the same learner's copy, byte for
byte. Work of a learner's in `labs/` is never lost: what is there and was changed is copied aside first.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from labkit.arguments import Parser
from labkit.course.authoring import execute
from labkit.course.needs import lacking
from labkit.course.source import lab_source
from labkit.errors import Unsupported
from labkit.files import state_folder

_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python", "pygments_lexer": "ipython3"}


@dataclass(frozen=True)
class Finding:
    """One generated file that is not as it should be."""

    path: Path
    what: str  #: "missing", "out of date", "worked in" or "not executed"

    def __str__(self) -> str:
        return f"{_shown(self.path)}: {self.what}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = Parser(prog="./lab release", description="Make the notebooks from labs/source/.")
    parser.add_argument("lab", nargs="*", help="numbers of labs, such as 05 (default: all)")
    parser.add_argument("--check", action="store_true", help="only say which notebooks are out of date")
    parser.add_argument("--all", action="store_true", help="execute the solved notebooks even where nothing changed")
    parser.add_argument("--no-execute", action="store_true", help="make the learners' copies only")
    options = parser.parse_args(argv)
    try:
        chosen = [lab_source.path_of(number) for number in options.lab] or lab_source.all_paths()
        if options.check:
            return _check(chosen)
        return _release(chosen, again=options.all, run=not options.no_execute)
    except lab_source.SourceError as error:
        print(error, file=sys.stderr)
        return 1


def learner_path(md: Path) -> Path:
    """Where the learner's copy of a source lies."""
    return state_folder.checkout() / "labs" / f"{md.stem}.ipynb"


def solved_path(md: Path) -> Path:
    """Where the solved notebook of a source lies."""
    return state_folder.checkout() / "tests" / "notebooks" / "solved" / f"{md.stem}.ipynb"


def build(md: Path, solved: bool) -> NotebookNode:
    """The notebook of a source, solved or as the learner gets it; not executed."""
    cells = []
    for number, cell in enumerate(lab_source.read(md)):
        text = cell.solved if solved else cell.learner
        if not text.strip():
            continue  # a cell of SOLVED ONLY lines
        metadata: dict[str, Any] = dict(cell.metadata)
        if cell.exercise:
            metadata["labkit"] = {"exercise": cell.exercise}
        made: dict[str, Any] = {
            "cell_type": cell.kind,
            "id": f"exercise-{cell.exercise}" if cell.exercise else f"cell-{number:03d}",
            "metadata": metadata,
            "source": text,
        }
        if cell.kind == "code":
            made |= {"execution_count": None, "outputs": []}
        cells.append(made)
    notebook = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"kernelspec": _KERNEL, "language_info": _LANGUAGE},
            "cells": cells,
        }
    )
    notebook.metadata["labkit"] = {"lab": md.stem.split("_")[0], "digest": digest(notebook)}
    nbformat.validate(notebook)
    assert isinstance(notebook, NotebookNode)
    return notebook


def digest(notebook: NotebookNode) -> str:
    """What identifies the cells' text: it tells a copy that was worked in from one that was only run."""
    cells = [[cell.cell_type, cell.source] for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:32]


def text_of(notebook: NotebookNode) -> str:
    """A notebook as the text of its file, always the same for the same notebook."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def findings(md: Path) -> list[Finding]:
    """What is not as it should be with the two notebooks of a source. Executes nothing."""
    found = []
    path, wanted = learner_path(md), build(md, solved=False)
    present = _read(path)
    if present is None:
        found.append(Finding(path, "missing"))
    elif path.read_text(encoding="utf-8") != text_of(wanted):
        current = present.metadata.get("labkit", {}).get("digest") == wanted.metadata["labkit"]["digest"]
        found.append(Finding(path, "worked in" if current else "out of date"))
    path, wanted = solved_path(md), build(md, solved=True)
    present = _read(path)
    if present is None:
        found.append(Finding(path, "missing"))
    elif _skeleton(present) != _skeleton(wanted):
        found.append(Finding(path, "out of date"))
    elif any(cell.execution_count is None for cell in present.cells if cell.cell_type == "code"):
        found.append(Finding(path, "not executed"))
    return found


def _skeleton(notebook: NotebookNode) -> list[list[Any]]:
    return [[cell.cell_type, cell.id, cell.source, dict(cell.metadata)] for cell in notebook.cells]


def _check(chosen: list[Path]) -> int:
    found = [finding for md in chosen for finding in findings(md)]
    for finding in found:
        print(finding)
    if found:
        print("To make them anew from labs/source/: ./lab release")
        return 1
    print(f"{len(chosen)} labs: their notebooks are up to date.")
    return 0


def _release(chosen: list[Path], again: bool, run: bool) -> int:
    failed = False
    for md in chosen:
        _write_learner(learner_path(md), build(md, solved=False))
        stale = any(finding.path == solved_path(md) for finding in findings(md))
        if run and (again or stale):
            failed |= not _write_solved(md)
    return 1 if failed else 0


def _write_learner(path: Path, notebook: NotebookNode) -> None:
    text = text_of(notebook)
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return
        if _was_worked_in(path):
            kept = _keep(path)
            print(f"{_shown(path)} had been worked in: kept as {_shown(kept)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, text)
    print(f"{_shown(path)}: written")


def _was_worked_in(path: Path) -> bool:
    """Whether its cells are other than when it was generated; running them alone is nothing worth keeping."""
    present = _read(path)
    return present is None or present.metadata.get("labkit", {}).get("digest") != digest(present)


def _keep(path: Path) -> Path:
    kept_in = state_folder.state() / state_folder.KEPT_NOTEBOOKS
    kept_in.mkdir(parents=True, exist_ok=True)
    number = 1
    while (kept := kept_in / f"{path.stem}-{number}.ipynb").exists():
        number += 1
    shutil.copy2(path, kept)
    return kept


def _write_solved(md: Path) -> bool:
    path, folder = solved_path(md), learner_path(md).parent
    lack = lacking(lab_source.needs_anywhere(md))
    print(f"{_shown(path)}: running{' in a virtual machine' if lack else ''} ...", flush=True)
    notebook = build(md, solved=True)
    try:
        notebook = execute.execute_in_vm(notebook, folder) if lack else execute.execute(notebook, folder)
    except Unsupported as error:
        print(f"{_shown(md)}: not executed, nothing was written. {lack}; {error}", file=sys.stderr)
        return False
    except execute.CellFailed as error:
        print(f"{_shown(md)}: a cell of the solved notebook failed, nothing was written.\n{error}", file=sys.stderr)
        return False
    notebook = execute.normalise(notebook, {str(state_folder.checkout()): "<checkout>", str(Path.home()) + "/": "~/"})
    notebook.metadata["language_info"] = dict(_LANGUAGE)  # the kernel adds its own version
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, text_of(notebook))
    print(f"{_shown(path)}: written")
    return True


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    aside.rename(path)


def _read(path: Path) -> NotebookNode | None:
    try:
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        return None
    except Exception:  # nbformat raises many kinds; a file that is no notebook is out of date, whatever it is
        return nbformat.from_dict({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []})  # type: ignore[no-any-return,no-untyped-call]
    assert isinstance(notebook, NotebookNode)
    return notebook


def _shown(path: Path) -> str:
    try:
        return str(path.relative_to(state_folder.checkout()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    sys.exit(main())
