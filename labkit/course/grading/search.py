"""Look through a folder of what was handed in: everything in it, none of it opened, none of it followed.

Submitted folders are not trusted: symbolic links are not followed, and one learner's folder cannot keep the search busy
for long. What is not looked into is said, and counts as something of whose folder it is in.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labkit.course.grading.which_lab import is_notebook

MAX_DEPTH = 8
MAX_ENTRIES = 10_000  #: files and folders that are looked at in one learner's folder
MAX_UNNAMED = 200  #: notebooks there with other names than the course's, which have to be read to know their lab
MAX_IN_ALL = 100_000  #: both, in the folder that was asked for itself
NO_NOTEBOOK = "it is no notebook"
EMPTY = "there is no notebook in it"
_NBGRADERS = {"autograded", "feedback", "release", "source", "submitted"}
_NBGRADERS_FILES = {"nbgrader_config.py", "gradebook.db"}
_REPORTS_FILES = {"index.html", "results.json", "scores.csv"}
_NOBODYS = {"__MACOSX"}  # which macOS puts into archives

Say = Callable[[str], None]


@dataclass
class Budget:
    """How much of a folder is still looked at. Each learner's folder has its own."""

    entries: int
    unnamed: int
    notebooks: int = 0


@dataclass(frozen=True)
class Seen:
    """Something in a folder that was asked for."""

    path: Path
    root: Path  #: the folder that was asked for
    folders: tuple[str, ...]  #: that lead from there to it, or are it
    budget: Budget
    reason: str = ""  #: why it cannot be graded; "" for a notebook
    is_file: bool = True


def through(root: Path, say: Say) -> Iterator[Seen]:
    """All that is in a folder, and what is odd about it said."""
    whole = Budget(MAX_IN_ALL, MAX_IN_ALL)
    yield from _Search(root, say).below(root, (), whole)
    if not whole.notebooks:
        say(f"{root}: {EMPTY}")
        yield Seen(root, root, (), whole, EMPTY, is_file=False)


class _Search:
    def __init__(self, root: Path, say: Say) -> None:
        self.root, self.say = root, say

    def below(self, folder: Path, inside: tuple[str, ...], budget: Budget) -> Iterator[Seen]:
        """What is in a folder and those below."""
        try:
            with os.scandir(folder) as entries:
                found = sorted(self._limited(entries, folder, budget), key=lambda entry: entry.name)
        except OSError as error:
            yield self._odd(folder, inside, budget, error.strerror or "it cannot be read")
            return
        for entry in found:
            yield from self._beside(entry, inside, budget)
        directly = budget.notebooks
        for entry in self._to_look_into(folder, found, inside):
            path, names = Path(entry.path), (*inside, entry.name)
            if len(inside) >= MAX_DEPTH:
                yield self._odd(path, names, budget, "too deep to look into")
                continue
            own = budget if inside else Budget(MAX_ENTRIES, MAX_UNNAMED)
            yield from self.below(path, names, own)
            if own is not budget:
                budget.notebooks += own.notebooks
                if not own.notebooks:
                    if not directly:
                        self.say(f"{path}: {EMPTY}")
                    yield Seen(path, self.root, names, own, EMPTY, is_file=False)

    def _beside(self, entry: os.DirEntry[str], inside: tuple[str, ...], budget: Budget) -> Iterator[Seen]:
        """What is no folder."""
        path = Path(entry.path)
        shown = not entry.name.startswith(".")
        if entry.is_file(follow_symlinks=False):
            notebook = is_notebook(entry.name) and shown
            budget.notebooks += notebook
            yield Seen(path, self.root, inside, budget, "" if notebook else NO_NOTEBOOK)
        elif entry.is_symlink() and shown:
            yield self._odd(path, inside, budget, "a symbolic link, which is not followed")
        elif is_notebook(entry.name) and shown and not entry.is_dir(follow_symlinks=False):
            yield self._odd(path, inside, budget, "not a regular file")

    def _odd(self, path: Path, folders: tuple[str, ...], budget: Budget, reason: str) -> Seen:
        self.say(f"{path}: {reason}")
        return Seen(path, self.root, folders, budget, reason, is_file=False)

    def _to_look_into(
        self, folder: Path, found: list[os.DirEntry[str]], inside: tuple[str, ...]
    ) -> list[os.DirEntry[str]]:
        """The folders in a folder that may hold something of learners'."""
        folders = [entry for entry in found if entry.is_dir(follow_symlinks=False) and entry.name not in _NOBODYS]
        hidden = [entry for entry in folders if entry.name.startswith(".")]
        folders = [entry for entry in folders if not entry.name.startswith(".")]
        names = {entry.name for entry in folders}
        files = {entry.name for entry in found if entry.is_file(follow_symlinks=False)}
        # Which kind of folder the whole one is, no learner's folder can tell: they may be called as they like.
        if {"labs", "labkit"} <= names and (inside or {"lab", "pyproject.toml"} <= files):
            return [entry for entry in folders if entry.name == "labs"]  # a fork: it holds solved notebooks, too
        if inside:
            return folders
        if is_nbgraders(folder):
            if others := ", ".join(sorted(names & _NBGRADERS - {"submitted"})):
                self.say(f"{folder}: taken for nbgrader's course folder; not looked into: {others}")
            return [entry for entry in folders if entry.name == "submitted"]  # beside which nbgrader keeps its copies
        for entry in hidden:
            if entry.name not in (".ipynb_checkpoints", ".git"):
                self.say(f"{entry.path}: a hidden folder, which is not looked into")
        for entry in [entry for entry in folders if _is_report(Path(entry.path))]:
            self.say(f"{entry.path}: the report of an earlier grading, which is not looked into")
            folders.remove(entry)
        return folders

    def _limited(self, entries: Iterator[os.DirEntry[str]], folder: Path, budget: Budget) -> Iterator[os.DirEntry[str]]:
        for entry in entries:
            if budget.entries <= 0:
                self.say(f"{folder}: there are too many files; the others were not looked at")
                return
            budget.entries -= 1
            yield entry


def is_nbgraders(folder: Path) -> bool:
    """Whether a folder is nbgrader's course folder: it has nbgrader's files; or only folders that nbgrader makes, and
    submitted/LEARNER/ASSIGNMENT in it, that is, no notebook higher up. Two learners of these names do not look so.
    """
    folders, files = _in(folder)
    if "submitted" not in folders:
        return False
    if files & _NBGRADERS_FILES:
        return True
    if not folders <= _NBGRADERS:
        return False
    learners, higher_up = _in(folder / "submitted")
    for learner in learners:
        higher_up |= _in(folder / "submitted" / learner)[1]
    return bool(learners) and not any(is_notebook(name) for name in higher_up)


def _is_report(folder: Path) -> bool:
    """Whether `./lab grade` has written it, without a notebook put beside: it may have been called where these lie."""
    folders, files = _in(folder)
    return "learners" in folders and files >= _REPORTS_FILES and not any(is_notebook(name) for name in files)


def _in(folder: Path) -> tuple[set[str], set[str]]:
    """The names of the folders in a folder that are not hidden, and of the files; of so many of them at most."""
    folders, files = set(), set()
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(MAX_ENTRIES), entries, strict=False):
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    folders.add(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    files.add(entry.name)
    except OSError:
        pass
    return folders, files
