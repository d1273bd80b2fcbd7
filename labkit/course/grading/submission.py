"""What is taken of a submission: the source of its exercise cells, and nothing else.

An exercise cell is a code cell whose id is `exercise-NAME`, or whose metadata say `labkit.exercise: NAME`; JupyterLab
keeps both when a cell is edited or moved, and the metadata when it is copied or split. Of several cells of an exercise
the last one that defines what is asked for counts, as it does in a notebook that is run from top to bottom, together
with those that define something else: an import that was split off, a helper. Every other cell, all outputs, tags and
metadata, and every file beside the notebook are left where they are. The answers are text here: nothing of them is
parsed, let alone run, before they are in a room.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from labkit.course import exercise_spec
from labkit.course.grading import notebook_reader
from labkit.course.grading.discover import find
from labkit.course.grading.found import Found
from labkit.course.grading.ipython_cells import is_for_ipython
from labkit.course.grading.notebook_reader import RawCell, RawNotebook, Refused
from labkit.course.source import lab_source

__all__ = ["Found", "Submission", "find", "read"]

MAX_ANSWER = 100_000  #: bytes of one answer
_MARKS = ("nbval-", "raises-exception", "skip-execution")  # tags that have a cell not run, or its failure overlooked


@dataclass(frozen=True)
class Submission:
    """What was handed in for one lab."""

    answers: dict[str, str] = field(default_factory=dict)  #: by the exercise's name; those that were attempted
    notes: tuple[str, ...] = ()  #: what was odd, and was put right or left out
    refused: str = ""  #: why it cannot be graded at all; then there are no answers


def read(found: Found) -> Submission:
    """Read one submission. Never raises for what is in it: what cannot be graded is `refused`."""
    if found.refused:
        return Submission(notes=found.notes, refused=found.refused)
    try:
        notebook = notebook_reader.read(found.path)
    except Refused as reason:
        return Submission(notes=found.notes, refused=str(reason))
    answers: dict[str, str] = {}
    notes = [*found.notes, *notebook.oddities]
    for exercise in exercise_spec.all_of(found.lab):
        name = exercise.exercise.name
        cells = list(_cells_of(name, notebook))
        code = [cell for cell in cells if cell.kind == "code"]
        if len(code) < len(cells):
            notes.append(f"A cell of {name} is not a code cell any more; it is not graded.")
        worked_in = [cell for cell in code if cell.source.strip() not in ("", exercise.stub.strip())]
        if not code:
            notes.append(f"The cell of {name} is not there: not attempted.")
        parts = _that_count(worked_in, exercise.arguments)
        if len(code) > 1:
            which = " and ".join(str(cell.number) for cell in parts)
            said = "none was worked in" if not parts else f"cell {which} {'count' if len(parts) > 1 else 'counts'}"
            notes.append(f"{len(code)} cells are said to answer {name}: {said}.")
        if not parts:
            continue
        for cell in parts:
            notes += _marks(name, cell)
        text = "\n\n".join(cell.source.replace("\r\n", "\n").replace("\r", "\n") for cell in parts)
        if lines := [str(number) for number, line in enumerate(text.split("\n"), 1) if is_for_ipython(line)]:
            which = f"Line {lines[0]}" if len(lines) == 1 else f"Lines {', '.join(lines[:10])}"
            notes.append(f"{which} of the answer to {name}: for IPython (!, %, ?), which grading leaves out.")
        kept = text.encode("utf-8", "replace").decode()  # half of a surrogate pair is "?": it could not be written down
        if kept != text:
            notes.append(f"The answer to {name} has characters that are none; each became a question mark.")
        if len(kept.encode()) > MAX_ANSWER:
            notes.append(f"The answer to {name} is bigger than {MAX_ANSWER // 1000} kB: not graded.")
            continue
        answers[name] = kept
    notes += _own_cells(found.lab, notebook)
    return Submission(answers, tuple(notes))


def _cells_of(name: str, notebook: RawNotebook) -> Iterator[RawCell]:
    """The cells that are said to answer an exercise: first those with its id, then copies, which have its metadata."""
    wanted = f"exercise-{name}"
    yield from (cell for cell in notebook.cells if cell.id == wanted)
    yield from (cell for cell in notebook.cells if cell.id != wanted and cell.exercise == name)


def _that_count(cells: Sequence[RawCell], arguments: Sequence[str]) -> list[RawCell]:
    """Of the cells of an exercise that were worked in those that make the answer, in the notebook's order."""
    if len(cells) < 2:
        return list(cells)
    asked_for = {name for argument in arguments for name in re.findall(r"[A-Za-z_]\w*", argument)}
    ordered = sorted(cells, key=lambda cell: cell.number)
    defining = [cell for cell in ordered if asked_for & _defined(cell.source)]
    if not defining:
        return [cells[0]]
    last = defining[-1]
    return [cell for cell in ordered if cell is last or cell not in defining]


_DEFINES = re.compile(r"^(?:async +def|def|class) +(\w+)|^(\w+) *(?::[^=\n]*)?=(?!=)", re.MULTILINE)


def _defined(text: str) -> set[str]:
    """The functions, classes and variables that a cell defines, as far as its text shows: it is not parsed here."""
    return {name for found in _DEFINES.findall(text) for name in found if name}


def _marks(name: str, cell: RawCell) -> Sequence[str]:
    tagged = [tag for tag in cell.tags if tag.startswith(_MARKS)]
    commented = [line for line in cell.source.splitlines() if line.lstrip().startswith("#") and "NBVAL_" in line]
    if tagged or commented:
        return [f"The cell of {name} is marked so as not to be run, or not to fail. The mark was dropped."]
    return []


def _own_cells(lab: str, notebook: RawNotebook) -> Sequence[str]:
    """A note where code was written beside the exercise cells, since an answer that needs it will fail without it."""
    cells = [cell for cell in lab_source.read_cached(lab_source.path_of(lab)) if cell.kind == "code"]
    course = {text.strip() for cell in cells for text in (cell.learner, cell.solved)}
    exercises = {f"exercise-{one.exercise.name}" for one in exercise_spec.all_of(lab)}
    names = {one.exercise.name for one in exercise_spec.all_of(lab)}
    own = [
        str(cell.number)
        for cell in notebook.cells
        if cell.kind == "code" and cell.id not in exercises and cell.exercise not in names
        if cell.source.strip() and cell.source.strip() not in course
    ]
    if not own:
        return []
    listed = ", ".join(own[:10]) + (", ..." if len(own) > 10 else "")
    return [f"Code outside of the exercise cells was changed or added, and is not graded: cell {listed}."]
