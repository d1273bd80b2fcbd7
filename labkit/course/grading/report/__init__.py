"""Grading written down: for spreadsheets, for CI, for people. Functions of `list[Result]`, and of what was said of
files that were not graded; of nothing else.

::

    results.json       `store`      all that was found; from it the rest is made anew
    scores.csv         `sheets`     a line per learner, a column per lab and exercise
    exercises.csv      `sheets`     a line per learner and exercise, with the reasons
    junit.xml          `junit`      for the readers that CI services have
    index.html         `pages`      the class
    learners/NAME.html `pages`      one learner: what was seen, why, what was graded

`gradebook` puts the results in order: who, which labs, which columns. `texts` makes what learners wrote harmless to
read, and `names` makes file names of their names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from labkit.course.grading.report import junit, pages, sheets, store
from labkit.course.grading.report.gradebook import Gradebook
from labkit.files import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from labkit.course.grading.results import Result


def files(results: Iterable[Result], said: Sequence[str] = ()) -> dict[str, str]:
    """Every file of a report: its path within the report's folder, and its text.

    `said` is what was said of files that were not graded.
    """
    book = Gradebook(results, said)
    return {
        store.NAME: store.to_text(book.results, said),
        "scores.csv": sheets.scores(book),
        "exercises.csv": sheets.exercises(book),
        "junit.xml": junit.to_text(book),
        **pages.files(book),
    }


def write(results: Iterable[Result], folder: Path, said: Sequence[str] = ()) -> None:
    """Write a report into `folder`, which is made where it is missing. Pages of learners who are gone are removed.

    Each file is, at every moment, the old one or the new one, whole.

    Raises:
        LabkitError: something else lies in that folder; see `store.claim`.
        OSError: it cannot be written.
    """
    store.claim(folder)
    made = files(results, said)
    for name, text in made.items():  # results.json first: from then on the folder is known for ours
        path = folder / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        atomic.replace(path, text)
    for old in (folder / pages.LEARNERS).glob("*.html"):
        if f"{pages.LEARNERS}/{old.name}" not in made:
            old.unlink()
