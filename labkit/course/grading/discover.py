"""Find submissions in a folder: which notebook is whose, and of which lab.

Known are: one notebook; a folder of `NAME.ipynb`; a folder for each learner, with the notebook in it or in its `labs/`;
a fork of the course's repository, of which only `labs/` is looked into; nbgrader's `submitted/alice/05_uts/`; what
Canvas, Moodle and Blackboard hand out (`lms_names`); the course's own `labs/`, whose learner is "you".

Submitted folders are not trusted: symbolic links are not followed, only regular files are opened, and one learner's
folder cannot keep the search busy for long, nor hide another's: what a folder is taken for is told by files beside the
learners' folders, never by how learners are called. Learners are called as the folders or files are, whatever is in the
name. Each file is accounted for: graded, or passed over with a reason (`Tally`).
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from labkit.course import exercise_spec
from labkit.course.grading import lms_names, notebook_reader
from labkit.course.source import lab_source
from labkit.files import state_folder

YOU = "you"
MAX_DEPTH = 8
MAX_ENTRIES = 10_000  #: files and folders that are looked at in one learner's folder
MAX_UNNAMED = 200  #: notebooks there with other names than the course's, which have to be read to know their lab
MAX_IN_ALL = 100_000  #: both, in the folder that was asked for itself
_COPY = re.compile(r"[\s_-]*(?:copy\d*|\(\d+\)|\d*)[\s_-]*", re.IGNORECASE)  # what JupyterLab and browsers append

_ENDINGS = (".ipynb", ".ipynb.txt", ".ipynb.json")  # what browsers and course systems make of the first
_NBGRADERS = {"autograded", "feedback", "release", "source", "submitted"}
_EXAMPLES = 5  # of files of one kind that are named

Say = Callable[[str], None]


class Tally:
    """Where each file has gone that was looked at."""

    def __init__(self) -> None:
        self.files = 0  #: regular files in all
        self.passed_over: list[tuple[Path, str]] = []  #: with the reasons
        self.others: list[Path] = []  #: that are no notebooks

    @property
    def left(self) -> int:
        """How many files are to be graded."""
        return self.files - len(self.passed_over) - len(self.others)


@dataclass(frozen=True)
class Found:
    """One submission: whose, of which lab, and where."""

    learner: str
    lab: str  #: its number, such as "05"
    path: Path
    notes: tuple[str, ...] = ()  #: what to say with its result
    attempt: str = ""  #: which one, where a course system tells: the last counts
    id: str = ""  #: where a course system tells two of one name apart by it


def find(wanted: Sequence[Path], say: Say = lambda sentence: None, tally: Tally | None = None) -> list[Found]:
    """The submissions at these paths, by learner and lab. `say` is told what was passed over, in a sentence each,
    which quotes the names of files as they are: escape them. `tally` has the same to be counted.

    Of two notebooks of one learner and lab the last attempt counts, where a course system tells; then the one whose
    file has the course's name, then the one that lies less deep, then the first by name; never the newer one, as
    copying a folder makes all files new.
    """
    tally = tally or Tally()
    best: dict[tuple[str, str], Found] = {}
    for path in wanted:
        unread: list[tuple[Path, str, str]] = []
        for found in sorted(_told_apart([*_at(path, say, tally, unread)]), key=_rank):
            key = (found.learner, found.lab)
            if key in best and best[key].path != found.path:
                kept = best[key]
                names = _readable(found.path.name), _readable(kept.path.name)
                note = f"There is another notebook of this lab, {names[0]}; {names[1]} was graded."
                best[key] = replace(kept, notes=(*kept.notes, note) if len(kept.notes) < 5 else kept.notes)
                reason = f"another notebook of {found.learner}'s lab {found.lab}; {kept.path} is graded"
                tally.passed_over.append((found.path, reason))
                say(f"{found.path}: {reason}")
            elif key in best:
                tally.files -= 1  # the same file, named twice
            else:
                best[key] = found
        labs = {lab for _, lab in best}
        for file, learner, reason in unread:
            lab = min(labs, default="")
            if len(labs) == 1 and (learner, lab) not in best:
                # In a class that does one lab it is of that lab; its learner finds a row with the reason.
                best[learner, lab] = Found(learner, lab, file)
            else:
                tally.passed_over.append((file, reason))
                say(f"{file}: {reason}")
    if tally.others and any(_owner(path if path.is_dir() else path.parent) != YOU for path in wanted):
        names_ = ", ".join(_readable(path.name) for path in tally.others[:_EXAMPLES])
        more = "" if len(tally.others) <= _EXAMPLES else " and so on"
        say(f"{len(tally.others)} {'file is' if len(tally.others) == 1 else 'files are'} no notebooks: {names_}{more}")
    return [best[key] for key in sorted(best)]


def _rank(found: Found) -> tuple[list[int], bool, int, str]:
    later_first = [-ord(one) for one in found.attempt]
    return later_first, _stem(found.path) not in _stems().values(), len(found.path.parts), str(found.path)


def _told_apart(found: list[Found]) -> list[Found]:
    """Two people of one name, whom a course system tells apart in one assignment, under names of their own."""
    ids: dict[tuple[str, str], set[str]] = {}
    for one in found:
        if one.id:
            ids.setdefault((one.learner, one.lab), set()).add(one.id)
    alike = {learner for (learner, _), those in ids.items() if len(those) > 1}
    return [replace(one, learner=f"{one.learner} {one.id}") if one.learner in alike else one for one in found]


def _stem(path: Path) -> str:
    """A notebook's name without its ending, whichever it has."""
    name = path.name
    ending = next((one for one in sorted(_ENDINGS, key=len, reverse=True) if name.lower().endswith(one)), "")
    return name[: len(name) - len(ending)]


def _is_notebook(name: str) -> bool:
    return name.lower().endswith(_ENDINGS)


def _at(path: Path, say: Say, tally: Tally, unread: list[tuple[Path, str, str]]) -> Iterator[Found]:
    try:
        if path.is_symlink():
            say(f"{path}: a symbolic link, which is not followed; give the path it leads to")
        elif path.is_dir():
            whole = _Budget(say, MAX_IN_ALL, MAX_IN_ALL, tally, unread)
            for file, folders, budget in _notebooks(path, (), whole):
                yield from _identified(file, path, folders, budget)
            if not whole.notebooks:
                say(f"{path}: there is no notebook in it")
        elif not path.exists():
            say(f"{path}: there is no such file or folder")
        elif not path.is_file() or not _is_notebook(path.name):
            say(f"{path}: not a notebook")
        else:
            tally.files += 1
            yield from _identified(path, path.parent, (), _Budget(say, 1, 1, tally, unread))
    except (OSError, ValueError) as error:
        say(f"{path}: {getattr(error, 'strerror', None) or error}")


class _Budget:
    """How much of a folder is still looked at, and whom to tell. Each learner's folder has its own."""

    def __init__(self, say: Say, entries: int, unnamed: int, tally: Tally, unread: list[tuple[Path, str, str]]) -> None:
        self.say = say
        self.entries = entries
        self.unnamed = unnamed
        self.notebooks = 0
        self.tally = tally
        self.unread = unread  # notebooks that do not tell their lab: with whose they are by their names, and why

    def pass_over(self, file: Path, reason: str) -> None:
        """Count a file that is not graded, and say why."""
        self.tally.passed_over.append((file, reason))
        self.say(f"{file}: {reason}")


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
        is_file = entry.is_file(follow_symlinks=False)
        budget.tally.files += is_file
        if _is_notebook(entry.name) and not entry.name.startswith("."):
            if is_file:
                budget.notebooks += 1
                yield Path(entry.path), inside, budget
            elif not entry.is_dir(follow_symlinks=False):
                what = "a symbolic link, which is not followed" if entry.is_symlink() else "not a regular file"
                budget.say(f"{entry.path}: {what}")
        elif entry.is_symlink() and not entry.name.startswith("."):
            budget.say(f"{entry.path}: a symbolic link, which is not followed")
        elif is_file:
            budget.tally.others.append(Path(entry.path))
    folders = [entry for entry in found if entry.is_dir(follow_symlinks=False)]
    hidden = [entry for entry in folders if entry.name.startswith(".")]
    folders = [entry for entry in folders if entry not in hidden]
    names = {entry.name for entry in folders}
    files = {entry.name for entry in found if entry.is_file(follow_symlinks=False)}
    # Which kind of folder the whole one is, no learner's folder can tell: they may be called as they like.
    if {"labs", "labkit"} <= names and (inside or {"lab", "pyproject.toml"} <= files):
        folders = [entry for entry in folders if entry.name == "labs"]  # a fork: it holds solved notebooks, too
    elif (
        not inside and "submitted" in names and (names <= _NBGRADERS or files & {"nbgrader_config.py", "gradebook.db"})
    ):
        folders = [entry for entry in folders if entry.name == "submitted"]  # beside which nbgrader keeps its copies
    elif not inside:
        for entry in hidden:
            if entry.name not in (".ipynb_checkpoints", ".git"):
                budget.say(f"{entry.path}: a hidden folder, which is not looked into")
    directly = budget.notebooks
    for entry in folders:
        if len(inside) >= MAX_DEPTH:
            budget.say(f"{entry.path}: too deep to look into")
            continue
        own = budget if inside else _Budget(budget.say, MAX_ENTRIES, MAX_UNNAMED, budget.tally, budget.unread)
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
    stem = _stem(file)
    # A learner chooses what lies in the folder that a course system has made, and so the names in there.
    of_folder = next((found for name in folders if (found := lms_names.read(name))), None)
    named = of_folder or lms_names.read(stem)
    own_name = named.rest or stem if named and not of_folder else stem
    number, rest = _by_name(own_name)
    why = ""
    if not number:
        if budget.unnamed <= 0:
            budget.pass_over(file, "one of too many notebooks without a lab's name; not looked at")
            return
        budget.unnamed -= 1
        number, why = _by_content(file)
        rest = own_name
    if named:
        # Whoever has a folder may give files in it any name: they stay that folder's.
        above = "" if of_folder else _learner(root, folders)
        learner = f"{above}/{named.who}" if above else named.who
    else:
        owner = _owner(root)
        learner = _learner(root, folders) or (owner if owner == YOU else rest or owner)
    if number:
        attempt, id_ = (named.attempt, named.id) if named else ("", "")
        yield Found(_readable(learner), number, file, attempt=attempt, id=id_)
    elif folders or named or rest:
        budget.unread.append((file, _readable(learner), why))


def _learner(root: Path, folders: tuple[str, ...]) -> str:
    """Whose folder it is; "" where only the folder that was asked for, or the file itself, can tell."""
    if root.name == "submitted" and folders:
        return folders[0]
    if folders[:1] == ("submitted",) and not _others_beside(root):
        return "".join(folders[1:2])
    return "/".join(name for name in folders if not _is_of_the_course(name))


def _others_beside(root: Path) -> bool:
    """Whether a folder holds others than nbgrader's own, so that "submitted" is a learner's as well as any."""
    with os.scandir(root) as entries:
        found = list(entries)
    names = {entry.name for entry in found if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")}
    return not _is_nbgraders(names, {entry.name for entry in found if entry.is_file(follow_symlinks=False)})


def _is_nbgraders(folders: set[str], files: set[str]) -> bool:
    """Whether a folder with these in it is nbgrader's course folder."""
    return folders <= _NBGRADERS or bool(files & {"nbgrader_config.py", "gradebook.db"})


def _owner(root: Path) -> str:
    """The learner of notebooks that lie in the very folder that was asked for."""
    whole = Path(os.path.abspath(root))
    if whole == state_folder.checkout() or whole.is_relative_to(state_folder.checkout() / "labs"):
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


def _by_content(file: Path) -> tuple[str, str]:
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
        for number in _stems()
    }
    number = max(scores, key=lambda number: scores[number])
    if scores[number][0]:
        return number, ""
    try:
        notebook_reader.read(file)
    except notebook_reader.Refused as reason:
        return "", str(reason)
    return "", "no lab's exercise is in it"


_EXERCISE = re.compile(rb'"(?:exercise-|exercise"\s*:\s*")([A-Za-z0-9_]{1,64})"')
_LAB = re.compile(rb'"lab"\s*:\s*"([0-9]{2})"')


@lru_cache(maxsize=1)
def _stems() -> dict[str, str]:
    """The names of the labs' files, by number."""
    return {md.stem.split("_")[0]: md.stem for md in lab_source.all_paths()}


def _readable(name: str) -> str:
    """A file's name as text that can be written down: bytes that are not UTF-8 as `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
