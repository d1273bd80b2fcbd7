"""Find submissions in a folder: which notebook is whose, and of which lab.

Known are: one notebook; a folder of `NAME.ipynb`; a folder for each learner, with the notebook in it or in its `labs/`;
a fork of the course's repository, of which only `labs/` is looked into; nbgrader's `submitted/alice/05_uts/`; what
Canvas, Moodle and Blackboard hand out (`lms_names`); the course's own `labs/`, whose learner is "you".

Submitted folders are not trusted, see `labkit.course.grading.search`. What a folder is taken for is told by what lies
beside the learners' folders, never by how learners are called (`labkit.course.grading.whose`). Two promises:

- who handed in has a row, whatever it was: a notebook of which the lab cannot be told, a PDF, a link. Where a class
  does one lab it is of that lab, else of `NO_LAB`; what cannot be graded is refused, with a reason for the learner;
- each file is accounted for: it has a row, or is passed over with a reason, or lies beside them and is no notebook
  (`Tally`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.course.grading import notebook_reader, which_lab, whose
from labkit.course.grading.found import NO_LAB, Found
from labkit.course.grading.search import EMPTY, NO_NOTEBOOK, Budget, Say, Seen, through
from labkit.course.grading.whose import YOU, readable

__all__ = ["NO_LAB", "YOU", "Found", "Tally", "find"]

_EXAMPLES = 5  # of files of one kind that are named
_UNNAMED = "one of too many notebooks without a lab's name; not looked at"


class Tally:
    """Where each file has gone that was looked at."""

    def __init__(self) -> None:
        self.files = 0  #: regular files in all
        self.passed_over: list[tuple[Path, str]] = []  #: with the reasons
        self.others: list[Path] = []  #: that are no notebooks, of somebody who has a row or of nobody
        self.without_file = 0  #: rows of those who handed in an empty folder, or links

    @property
    def left(self) -> int:
        """How many rows there must be."""
        return self.files + self.without_file - len(self.passed_over) - len(self.others)


@dataclass
class _Pile:
    """What was found at all paths."""

    placed: list[Found]  # notebooks whose lab is known
    unread: list[Found]  # those of which it cannot be told, with the reason
    others: list[tuple[Seen, Found]]  # what is no notebook, and a row for it, should its learner have none


def find(wanted: Sequence[Path], say: Say = lambda sentence: None, tally: Tally | None = None) -> list[Found]:
    """The submissions at these paths, by learner and lab. `say` is told what was passed over, in a sentence each,
    which quotes the names of files as they are: escape them. `tally` has the same to be counted.

    Of two notebooks of one learner and lab the last attempt counts, where a course system tells; then the one whose
    file has the course's name, then the one that lies less deep, then the first by name; never the newer one, as
    copying a folder makes all files new.
    """
    tally = tally or Tally()
    pile = _Pile([], [], [])
    beside = whose.Beside(wanted)
    for path in wanted:
        _at(path, beside, pile, say, tally)
    if not pile.placed and (not pile.unread or (len(wanted) == 1 and wanted[0].is_file())):
        _pass_over(pile.unread, say, tally)
        _say_of_others(tally, beside, say)
        return []
    _one_labs(pile)
    rows = _Rows(say, tally)
    for found in sorted(pile.placed, key=_rank):
        rows.place(found)
    for found in pile.unread:
        rows.place_unread(found)
    for seen, found in sorted(pile.others, key=_most_telling_first):
        rows.place_other(seen, found)
    _say_of_others(tally, beside, say)
    return [rows.of[key] for key in sorted(rows.of)]


def _at(path: Path, beside: whose.Beside, pile: _Pile, say: Say, tally: Tally) -> None:
    """Put what is at a path on the pile."""
    try:
        if path.is_symlink():
            say(f"{path}: a symbolic link, which is not followed; give the path it leads to")
        elif path.is_dir():
            _sort([*through(path, say)], beside, pile, say, tally)
        elif not path.exists():
            say(f"{path}: there is no such file or folder")
        elif not path.is_file():
            say(f"{path}: not a notebook")
        else:
            reason = "" if which_lab.is_notebook(path.name) else NO_NOTEBOOK
            if reason:
                say(f"{path}: not a notebook")
            _sort([Seen(path, path.parent, (), Budget(1, 1), reason)], beside, pile, say, tally)
    except (OSError, ValueError) as error:
        say(f"{path}: {getattr(error, 'strerror', None) or error}")


def _sort(seen: list[Seen], beside: whose.Beside, pile: _Pile, say: Say, tally: Tally) -> None:
    """Put what was seen in one folder on the pile."""
    if not seen:
        return
    names = whose.Names(seen, beside)
    tally.files += sum(one.is_file for one in seen)
    rows: list[Found] = []
    for one in (one for one in seen if not one.reason):
        found = _identified(one, names)
        if found is None:
            tally.passed_over.append((one.path, _UNNAMED))
            say(f"{one.path}: {_UNNAMED}")
        elif found.lab == NO_LAB:
            pile.unread.append(found)
        else:
            rows.append(found)
    pile.placed += rows
    others = [one for one in seen if one.reason]
    tally.others += [one.path for one in others if one.is_file]
    # A learner's own folder, asked for alone: what else is in it is that learner's, too.
    of_one = not beside.several and {one.learner for one in rows} == {names.owner} and not names.by_course_system
    for one in others if not of_one else ():
        if learner := names.of_another(one):
            pile.others.append((one, Found(learner, NO_LAB, one.path, id=names.id_of(one))))


def _identified(seen: Seen, names: whose.Names) -> Found | None:
    """A notebook with its learner and lab. None: too many would have to be read in that folder to tell."""
    number, _ = which_lab.by_name(names.own_name(seen))
    why = ""
    if not number:
        if seen.budget.unnamed <= 0:
            return None
        seen.budget.unnamed -= 1
        number, why = which_lab.by_content(seen.path)
    attempt = names.attempt_of(seen)
    return Found(names.of(seen), number or NO_LAB, seen.path, attempt=attempt, id=names.id_of(seen), refused=why)


def _one_labs(pile: _Pile) -> None:
    """In a class that does one lab everything is of that lab. Then tell people of one name apart."""
    labs = {one.lab for one in pile.placed}
    if len(labs) == 1:
        (lab,) = labs
        pile.unread = [replace(one, lab=lab) for one in pile.unread]
        pile.others = [(seen, replace(one, lab=lab)) for seen, one in pile.others]
    ids: dict[tuple[str, str], set[str]] = {}
    for one in (*pile.placed, *pile.unread, *(one for _, one in pile.others)):
        if one.id and one.lab != NO_LAB:
            ids.setdefault((one.learner, one.lab), set()).add(one.id)
    alike = {learner for (learner, _), those in ids.items() if len(those) > 1}

    def apart(one: Found) -> Found:
        return replace(one, learner=f"{one.learner} {one.id}") if one.learner in alike and one.id else one

    pile.placed = [apart(one) for one in pile.placed]
    pile.unread = [apart(one) for one in pile.unread]
    pile.others = [(seen, apart(one)) for seen, one in pile.others]


class _Rows:
    """The rows, one for each learner and lab, as they are made."""

    def __init__(self, say: Say, tally: Tally) -> None:
        self.of: dict[tuple[str, str], Found] = {}
        self._say, self._tally = say, tally
        self._learners: set[str] = set()
        self._ids: set[tuple[str, str]] = set()
        self._above: set[str] = set()  # folders in which learners' folders are

    def _make(self, found: Found) -> None:
        self.of[found.learner, found.lab] = found
        self._learners.add(found.learner)
        self._ids.add((found.learner, found.id))
        self._above |= set(_prefixes(found.learner)[:-1])

    def place(self, found: Found) -> None:
        """A notebook whose lab is known. Of several of one learner and lab the first one placed counts."""
        kept = self.of.get((found.learner, found.lab))
        if kept is None:
            self._make(found)
        elif kept.path == found.path:
            self._tally.files -= 1  # the same file, named twice
        else:
            note = f"There is another notebook of this lab, {readable(found.path.name)}; "
            note += f"{readable(kept.path.name)} was graded."
            notes = (*kept.notes, note) if len(kept.notes) < 5 else kept.notes
            self.of[found.learner, found.lab] = replace(kept, notes=notes)
            reason = f"another notebook of {found.learner}'s lab {found.lab}; {kept.path} is graded"
            _pass_over([replace(found, refused=reason)], self._say, self._tally)

    def place_unread(self, found: Found) -> None:
        """A notebook whose lab cannot be told. One that can be read, and is of no lab, may lie beside a learner's."""
        besides = found.refused == which_lab.NO_EXERCISE and found.learner in self._learners
        if besides or (found.learner, found.lab) in self.of:
            _pass_over([found], self._say, self._tally)
        else:
            # Read again when it is graded: a lab of which nothing is in it was not attempted.
            self._make(found if found.lab == NO_LAB else replace(found, refused=""))

    def place_other(self, seen: Seen, found: Found) -> None:
        """What is no notebook: a row of whoever has none, else it lies beside."""
        prefixes = _prefixes(found.learner)
        if found.id:
            if (found.learner, found.id) in self._ids:
                return
            prefixes = prefixes[-1:]
        elif self._learners & set(prefixes):
            return
        learner = next((one for one in prefixes if one not in self._above), "")
        if found.id and (learner, found.lab) in self.of:  # of another one of that name, or in another assignment
            learner = f"{learner} {found.id}"
        if not learner or (learner, found.lab) in self.of:
            return
        self._make(replace(found, learner=learner, refused=_why_refused(seen)))
        if seen.is_file:
            self._tally.others.remove(seen.path)
        else:
            self._tally.without_file += 1


def _most_telling_first(other: tuple[Seen, Found]) -> tuple[bool, bool, bool, Found]:
    seen, found = other
    return not seen.is_file, seen.path.name.startswith("."), seen.reason == EMPTY, found


def _prefixes(learner: str) -> list[str]:
    parts = learner.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _why_refused(seen: Seen) -> str:
    """What to tell a learner who has handed in nothing that could be graded."""
    name = readable(seen.path.name)
    if not seen.is_file:
        return f"No notebook was handed in. {name}: {seen.reason}. Hand in the .ipynb file from your folder labs/."
    try:
        notebook_reader.read(seen.path)
    except notebook_reader.Refused as reason:
        return f"No notebook was handed in. {name}: {reason}"
    return f"No notebook was handed in: {name} does not end in .ipynb. Hand it in under its own name."


def _pass_over(notebooks: Sequence[Found], say: Say, tally: Tally) -> None:
    for one in notebooks:
        tally.passed_over.append((one.path, one.refused))
        say(f"{one.path}: {one.refused}")


def _say_of_others(tally: Tally, beside: whose.Beside, say: Say) -> None:
    if tally.others and not beside.ones_own:
        names_ = ", ".join(readable(path.name) for path in tally.others[:_EXAMPLES])
        more = "" if len(tally.others) <= _EXAMPLES else " and so on"
        say(f"{len(tally.others)} {'file is' if len(tally.others) == 1 else 'files are'} no notebooks: {names_}{more}")


def _rank(found: Found) -> tuple[list[int], bool, int, str]:
    later_first = [-ord(one) for one in found.attempt]
    named_as_in_course = which_lab.stem(found.path) in which_lab.stems().values()
    return later_first, not named_as_in_course, len(found.path.parts), str(found.path)
