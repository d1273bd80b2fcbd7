"""Of which lab a notebook is: told by its file's name, or else by the exercises in it."""

import re
from functools import lru_cache
from pathlib import Path

from labkit.course import exercise_spec
from labkit.course.grading import notebook_reader
from labkit.course.source import lab_source

NO_EXERCISE = "no lab's exercise is in it"
_ENDINGS = (".ipynb", ".ipynb.txt", ".ipynb.json")  # what browsers and course systems make of the first
_COPY = re.compile(r"[\s_-]*(?:copy\d*|\(\d+\)|\d*)[\s_-]*", re.IGNORECASE)  # what JupyterLab and browsers append
_EXERCISE = re.compile(rb'"(?:exercise-|exercise"\s*:\s*")([A-Za-z0-9_]{1,64})"')
_LAB = re.compile(rb'"lab"\s*:\s*"([0-9]{2})"')


def is_notebook(name: str) -> bool:
    """Whether a file's name is a notebook's."""
    return name.lower().endswith(_ENDINGS)


def stem(path: Path) -> str:
    """A file's name without its ending: the whole of a notebook's, whichever it has."""
    name = path.name
    ending = next((one for one in sorted(_ENDINGS, key=len, reverse=True) if name.lower().endswith(one)), path.suffix)
    return name[: len(name) - len(ending)]


def by_name(of_file: str) -> tuple[str, str]:
    """The lab that a file's name without its ending says, and what else it says: ("05", "alice") for
    "05_uts_alice", ("", "") for none."""
    for number, of_lab in stems().items():
        if of_file.startswith(of_lab):
            rest = of_file[len(of_lab) :]
            return number, "" if _COPY.fullmatch(rest) else rest.strip(" _-")
    return "", ""


def by_content(file: Path) -> tuple[str, str]:
    """The lab whose exercise cells are in a notebook, where two labs have as many the one that it says it is of; or
    "", and why it cannot be told.

    The text is searched for the cells' ids, and not parsed: a large one would take long, and is refused later.
    """
    try:
        data = notebook_reader.bytes_of(file)
    except notebook_reader.Refused as reason:
        return "", str(reason)
    present = {found.decode() for found in _EXERCISE.findall(data)}
    lab = next((found.decode() for found in _LAB.findall(data)), "")
    scores = {
        number: (len(present & {one.exercise.name for one in exercise_spec.all_of(number)}), number == lab)
        for number in stems()
    }
    number = max(scores, key=lambda number: scores[number])
    if scores[number][0]:
        return number, ""
    try:
        notebook_reader.read(file)
    except notebook_reader.Refused as reason:
        return "", str(reason)
    return "", NO_EXERCISE


def is_of_the_course(name: str) -> bool:
    """Whether a folder is called after a lab, or is the course's."""
    return name == "labs" or name in stems() or name in stems().values()


@lru_cache(maxsize=1)
def stems() -> dict[str, str]:
    """The names of the labs' files, by number."""
    return {md.stem.split("_")[0]: md.stem for md in lab_source.all_paths()}
