"""Put a lab together with a learner's answers: the course's own notebook, with the answers in its exercise cells.

All other cells are those of the solved notebook, which has the predictions answered, so that no `%%observe` waits. An
exercise without an answer keeps its stub. Labs are made so that later cells bring along what they need of earlier
exercises, so one that was not solved stops nothing but itself.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

from nbformat import NotebookNode

from labkit.course import exercise_spec
from labkit.course.authoring import release
from labkit.course.source import lab_source


def rebuild(lab: str, answers: Mapping[str, str]) -> NotebookNode:
    """The notebook of lab `lab` with these answers, by exercise; not executed, without tags.

    `KeyError`: an answer to an exercise that the lab does not have.
    """
    md = lab_source.path_of(lab)
    notebook = deepcopy(_solved(md, md.stat().st_mtime_ns))
    texts = {one.exercise.name: one.stub for one in exercise_spec.all_of(lab)}
    if unknown := set(answers) - set(texts):
        raise KeyError(f"lab {lab} has no exercise {min(unknown)!r}")
    texts.update(answers)
    number = 0
    for cell in notebook.cells:
        name = cell.metadata.pop("labkit", {}).get("exercise")
        cell.metadata.pop("tags", None)
        if name is not None:
            cell.source = texts[name]
        if cell.cell_type == "code":
            number += 1
            cell.execution_count = number  # nbval looks at no cell that says it was never run
    notebook.metadata.pop("labkit", None)
    return notebook


@lru_cache(maxsize=32)
def _solved(md: Path, changed_ns: int) -> NotebookNode:
    return release.build(md, solved=True)
