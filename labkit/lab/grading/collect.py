"""Find submissions in a folder: which notebook is whose, and of which lab.

Known are: one notebook; a folder of `NAME.ipynb`; a folder for each learner, with the notebook in it or in its `labs/`;
a fork of the course's repository, of which only `labs/` is looked into; nbgrader's `submitted/alice/05_uts/`; and the
course's own `labs/`, whose learner is "you".

Submitted folders are not trusted: symbolic links are not followed, only regular files are opened, and one learner's
folder cannot keep the search busy for long. Learners are called as the folders or files are, whatever is in the name.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from labkit import paths
from labkit.lab.grading import notebookfile
from labkit.lab.notebooks import posed, source

YOU = "you"
MAX_DEPTH = 8
MAX_ENTRIES = 10_000  #: files and folders that are looked at in one learner's folder
MAX_UNNAMED = 200  #: notebooks there with other names than the course's, which have to be read to know their lab
MAX_IN_ALL = 100_000  #: both, in the folder that was asked for itself
_COPY = re.compile(r"[\s_-]*(?:copy\d*|\(\d+\)|\d*)[\s_-]*", re.IGNORECASE)  # what JupyterLab and browsers append

Say = Callable[[str], None]


@dataclass(frozen=True)
class Found:
    """One submission: whose, of which lab, and where."""

    learner: str
    lab: str  #: its number, such as "05"
    path: Path
    notes: tuple[str, ...] = ()  #: what to say with its result


def find(wanted: Sequence[Path], say: Say = lambda sentence: None) -> list[Found]:
    """The submissions at these paths, by learner and lab. `say` is told what was passed over, in a sentence each,
    which quotes the names of files as they are: escape them.

    Of two notebooks of one learner and lab the one whose file has the course's name counts, then the one that lies less
    deep, then the first by name; never the newer one, as copying a folder makes all files new.
    """
    best: dict[tuple[str, str], Found] = {}
    for path in wanted:
        for found in sorted(_at(path, say), key=_rank):
            key = (found.learner, found.lab)
            if key in best and best[key].path != found.path:
                kept = best[key]
                names = _readable(found.path.name), _readable(kept.path.name)
                note = f"There is another notebook of this lab, {names[0]}; {names[1]} was graded."
                best[key] = replace(kept, notes=(*kept.notes, note) if len(kept.notes) < 5 else kept.notes)
                say(f"{found.path}: another notebook of {found.learner}'s lab {found.lab}; {kept.path} is graded")
            else:
                best.setdefault(key, found)
    return [best[key] for key in sorted(best)]


def _rank(found: Found) -> tuple[bool, int, str]:
    return found.path.stem not in _stems().values(), len(found.path.parts), str(found.path)


def _at(path: Path, say: Say) -> Iterator[Found]:
    try:
        if path.is_symlink():
            say(f"{path}: a symbolic link, which is not followed; give the path it leads to")
        elif path.is_dir():
            whole = _Budget(say, MAX_IN_ALL, MAX_IN_ALL)
            for file, folders, budget in _notebooks(path, (), whole):
                yield from _identified(file, path, folders, budget)
            if not whole.notebooks:
                say(f"{path}: there is no notebook in it")
        elif not path.exists():
            say(f"{path}: there is no such file or folder")
        elif not path.is_file() or path.suffix != ".ipynb":
            say(f"{path}: not a notebook")
        else:
            yield from _identified(path, path.parent, (), _Budget(say, 1, 1))
    except (OSError, ValueError) as error:
        say(f"{path}: {getattr(error, 'strerror', None) or error}")


class _Budget:
    """How much of a folder is still looked at, and whom to tell. Each learner's folder has its own."""

    def __init__(self, say: Say, entries: int, unnamed: int) -> None:
        self.say = say
        self.entries = entries
        self.unnamed = unnamed
        self.notebooks = 0


def _notebooks(
    folder: Path, inside: tuple[str, ...], budget: _Budget
) -> Iterator[tuple[Path, tuple[str, ...], _Budget]]:
    """The notebooks in a folder and those below, each with the names of the folders that lead to it."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(_limited(entries, folder, budget), key=lambda entry: entry.name)
    except OSError as error:
        budget.say(f"{folder}: {error.strerror}")
        return
    for entry in found:
        if entry.name.endswith(".ipynb") and not entry.name.startswith("."):
            if entry.is_file(follow_symlinks=False):
                budget.notebooks += 1
                yield Path(entry.path), inside, budget
            elif not entry.is_dir(follow_symlinks=False):
                what = "a symbolic link, which is not followed" if entry.is_symlink() else "not a regular file"
                budget.say(f"{entry.path}: {what}")
        elif entry.is_symlink() and not entry.name.startswith("."):
            budget.say(f"{entry.path}: a symbolic link, which is not followed")
    folders = [entry for entry in found if entry.is_dir(follow_symlinks=False)]
    hidden = [entry for entry in folders if entry.name.startswith(".")]
    folders = [entry for entry in folders if entry not in hidden]
    names = {entry.name for entry in folders}
    if {"labs", "labkit"} <= names:  # a fork of the course: it holds solved notebooks, too
        folders = [entry for entry in folders if entry.name == "labs"]
    elif not inside and "submitted" in names:  # nbgrader's, beside which it keeps its own copies
        folders = [entry for entry in folders if entry.name == "submitted"]
    elif not inside:
        for entry in hidden:
            if entry.name not in (".ipynb_checkpoints", ".git"):
                budget.say(f"{entry.path}: a hidden folder, which is not looked into")
    directly = budget.notebooks
    for entry in folders:
        if len(inside) >= MAX_DEPTH:
            budget.say(f"{entry.path}: too deep to look into")
            continue
        own = budget if inside else _Budget(budget.say, MAX_ENTRIES, MAX_UNNAMED)
        yield from _notebooks(Path(entry.path), (*inside, entry.name), own)
        if own is not budget:
            budget.notebooks += own.notebooks
            if not own.notebooks and not directly:
                budget.say(f"{entry.path}: there is no notebook in it")


def _limited(entries: Iterator[os.DirEntry[str]], folder: Path, budget: _Budget) -> Iterator[os.DirEntry[str]]:
    for entry in entries:
        if budget.entries <= 0:
            budget.say(f"{folder}: there are too many files; the others were not looked at")
            return
        budget.entries -= 1
        yield entry


def _identified(file: Path, root: Path, folders: tuple[str, ...], budget: _Budget) -> Iterator[Found]:
    number, rest = _by_name(file.stem)
    if not number:
        if budget.unnamed <= 0:
            budget.say(f"{file}: one of too many notebooks without a lab's name; not looked at")
            return
        budget.unnamed -= 1
        number = _by_content(file, budget.say)
        rest = file.stem
    if number:
        owner = _owner(root)
        learner = _learner(root, folders) or (owner if owner == YOU else rest or owner)
        yield Found(_readable(learner), number, file)


def _learner(root: Path, folders: tuple[str, ...]) -> str:
    """Whose folder it is; "" where only the folder that was asked for, or the file itself, can tell."""
    if folders[:1] == ("submitted",) or (folders and root.name == "submitted"):
        return folders[0] if root.name == "submitted" else "".join(folders[1:2])
    return "/".join(name for name in folders if not _is_of_the_course(name))


def _owner(root: Path) -> str:
    """The learner of notebooks that lie in the very folder that was asked for."""
    whole = Path(os.path.abspath(root))
    if whole == paths.checkout() or whole.is_relative_to(paths.checkout() / "labs"):
        return YOU
    names = [name for name in whole.parts[1:] if not _is_of_the_course(name)]
    return names[-1] if names else YOU


def _is_of_the_course(name: str) -> bool:
    """Whether a folder is called after a lab, or is the course's: no learner's name."""
    return name == "labs" or name in _stems() or name in _stems().values()


def _by_name(stem: str) -> tuple[str, str]:
    """The lab that a file's name says, and what else it says: ("05", "alice") for "05_uts_alice", ("", "") for none."""
    for number, of_lab in _stems().items():
        if stem.startswith(of_lab):
            rest = stem[len(of_lab) :]
            return number, "" if _COPY.fullmatch(rest) else rest.strip(" _-")
    return "", ""


def _by_content(file: Path, say: Say) -> str:
    """The lab whose exercise cells are in a notebook; where two labs have as many, the one that it says it is of."""
    try:
        notebook = notebookfile.read(file)
    except notebookfile.Refused as reason:
        say(f"{file}: {reason}")
        return ""
    present = {cell.id.removeprefix("exercise-") for cell in notebook.cells if cell.id.startswith("exercise-")}
    present |= {cell.exercise for cell in notebook.cells}
    scores = {
        number: (len(present & {one.exercise.name for one in posed.all_of(number)}), number == notebook.lab)
        for number in _stems()
    }
    number = max(scores, key=lambda number: scores[number])
    if not scores[number][0]:
        say(f"{file}: no lab's exercise is in it")
        return ""
    return number


@lru_cache(maxsize=1)
def _stems() -> dict[str, str]:
    """The names of the labs' files, by number."""
    return {md.stem.split("_")[0]: md.stem for md in source.all_paths()}


def _readable(name: str) -> str:
    """A file's name as text that can be written down: bytes that are not UTF-8 as `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
