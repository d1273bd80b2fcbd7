"""Whose something is that was handed in: told by where it lies and what course systems call it.

Learners are called as their folders or files are, whatever is in the name. A folder that is called as a lab, `labs` or
`submitted` is a learner's where learners' folders lie beside it, and the course's where none does.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from labkit.course.grading import lms_names, which_lab
from labkit.course.grading.search import Seen, is_nbgraders
from labkit.course.grading.which_lab import is_of_the_course
from labkit.files import state_folder

YOU = "you"
_NBGRADERS = {"autograded", "feedback", "release", "source", "submitted"}
# What is handed in in place of a notebook; a file of another kind beside learners' folders is the instructor's.
_IN_PLACE = {".pdf", ".zip", ".html", ".htm", ".docx", ".doc", ".odt", ".rtf", ".py", ".txt", ".7z", ".rar", ".gz"}
_IN_PLACE |= {".tgz", ".tar", ".png", ".jpg", ".jpeg"}
_INSTRUCTORS = {"readme", "notes", "index"}


class Beside:
    """The paths that were asked for: with `FOLDER/*`, say, learners' folders beside each other."""

    def __init__(self, wanted: Sequence[Path]) -> None:
        self.several = len(wanted) > 1
        folders = [Path(os.path.abspath(path)) for path in wanted if os.path.isdir(path)]
        self._folders = set(folders)
        self._parents = {path.parent for path in folders if not is_of_the_course(path.name)}
        self._not_nbgraders = {path.parent for path in folders if path.name not in _NBGRADERS}
        self.ones_own = any(_is_ones_own(path if os.path.isdir(path) else path.parent) for path in wanted)

    def has(self, root: Path) -> bool:
        """Whether it is one of several folders that were asked for."""
        return self.several and Path(os.path.abspath(root)) in self._folders

    def are_learners(self, root: Path) -> bool:
        """Whether folders beside this one were asked for that are learners'."""
        return self.several and Path(os.path.abspath(root)).parent in self._parents

    def are_not_nbgraders(self, root: Path) -> bool:
        """Whether folders beside this one were asked for that nbgrader does not make."""
        return self.several and Path(os.path.abspath(root)).parent in self._not_nbgraders


class Names:
    """Whose is what, of all that was seen in one folder."""

    def __init__(self, seen: Sequence[Seen], beside: Beside) -> None:
        self.root = seen[0].root
        self._beside = beside
        self._is_submitted = self.root.name == "submitted" and not beside.are_not_nbgraders(self.root)
        self._nbgraders = not self._is_submitted and is_nbgraders(self.root)
        self._of_people = not self._nbgraders and any(
            one.folders and not one.reason and not is_of_the_course(one.folders[0]) for one in seen
        )
        self.owner = self._owner()
        # With FOLDER/*, a learner's folder in which there is no notebook.
        self._is_one_of_several = beside.has(self.root) and all(one.reason for one in seen)
        self.by_course_system = any(_given(one) for one in seen)  #: has named something in it

    def of(self, seen: Seen) -> str:
        """Whose notebook it is."""
        named = _given(seen)
        if named:
            return self._by_course_system(seen, named)
        _, rest = which_lab.by_name(which_lab.stem(seen.path))
        by_file = rest or ("" if which_lab.by_name(which_lab.stem(seen.path))[0] else which_lab.stem(seen.path))
        return readable(self._learner(seen.folders) or (self.owner if self.owner == YOU else by_file or self.owner))

    def of_another(self, seen: Seen) -> str:
        """Whose something is that is no notebook; "" where it is the instructor's, or nobody can tell."""
        if self.owner == YOU:
            return ""
        if named := _given(seen):
            return self._by_course_system(seen, named)
        if self._is_one_of_several:
            return readable(self.owner)
        if learner := self._learner(seen.folders):
            return readable(learner)
        if seen.folders and not seen.is_file:
            return ""
        stem, suffix = which_lab.stem(seen.path), seen.path.suffix.lower()
        number, rest = which_lab.by_name(stem)
        if seen.is_file:
            in_place = suffix in _IN_PLACE and stem.lower() not in _INSTRUCTORS and not stem.startswith(".")
        else:
            in_place = which_lab.is_notebook(seen.path.name) or not suffix  # a link to a notebook, or to a folder
        return readable(rest if number else stem) if in_place else ""

    def own_name(self, seen: Seen) -> str:
        """The name of a file as its learner had it, without its ending."""
        # A learner chooses what lies in the folder that a course system has made, and so the names in there.
        stem = which_lab.stem(seen.path)
        named = None if _of_folder(seen) else lms_names.read(stem)
        return named.rest or stem if named else stem

    def attempt_of(self, seen: Seen) -> str:
        """Which attempt it is, where a course system tells."""
        named = _given(seen)
        return named.attempt if named else ""

    def id_of(self, seen: Seen) -> str:
        """What tells two of one name apart, where a course system has that."""
        named = _given(seen)
        return named.id if named else ""

    def _by_course_system(self, seen: Seen, named: lms_names.Named) -> str:
        # Whoever has a folder may give files in it any name: they stay that folder's.
        above = "" if _of_folder(seen) else self._learner(seen.folders)
        return readable(f"{above}/{named.who}" if above else named.who)

    def _learner(self, folders: tuple[str, ...]) -> str:
        """Whose folder it is; "" where only the folder that was asked for, or the file itself, can tell."""
        if self._is_submitted and folders:
            return folders[0]
        if self._nbgraders and folders[:1] == ("submitted",):
            return "".join(folders[1:2])
        learner = "/".join(name for name in folders if not is_of_the_course(name))
        return learner or (folders[0] if folders and self._of_people else "")

    def _owner(self) -> str:
        """The learner of notebooks that lie in the very folder that was asked for."""
        whole = Path(os.path.abspath(self.root))
        if _is_ones_own(self.root):
            return YOU
        if self._beside.are_learners(self.root):
            return whole.name
        names = [name for name in whole.parts[1:] if not is_of_the_course(name)]
        return names[-1] if names else YOU


def _is_ones_own(root: Path) -> bool:
    whole = Path(os.path.abspath(root))
    return whole == state_folder.checkout() or whole.is_relative_to(state_folder.checkout() / "labs")


def _of_folder(seen: Seen) -> lms_names.Named | None:
    return next((found for name in seen.folders if (found := lms_names.read(name))), None)


def _given(seen: Seen) -> lms_names.Named | None:
    """What a course system's name says: of a folder, else of the file."""
    return _of_folder(seen) or lms_names.read(which_lab.stem(seen.path))


def readable(name: str) -> str:
    """A file's name as text that can be written down: bytes that are not UTF-8 as `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
