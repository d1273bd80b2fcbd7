"""The results of a class in order: which learners, which labs, which exercises, and what each has of them."""

from collections.abc import Iterable
from dataclasses import dataclass

from labkit.course.grading.report import names
from labkit.course.grading.results import OUTCOMES, ExerciseResult, Judged, Result

#: What `why` is, by outcome, for people.
WHY = {"passed": "Why it matters", "not yet": "Why not yet", "not attempted": "To begin", "not checked": "Why"}


@dataclass(frozen=True)
class Column:
    """One exercise of one lab, as the class has it."""

    lab: str
    name: str
    title: str
    points: float


@dataclass(frozen=True)
class Lab:
    """One lab, and the exercises that anybody in the class was graded on, in the lab's own order."""

    number: str
    title: str
    columns: tuple[Column, ...]

    @property
    def points(self) -> float:
        """What all its exercises count."""
        return round(sum(column.points for column in self.columns), 2)


@dataclass(frozen=True)
class Score:
    """What a learner has, of a lab or of all."""

    earned: float
    points: float

    @property
    def percent(self) -> float:
        """To tenths; 0 where there was nothing to earn."""
        return round(100 * self.earned / self.points, 1) if self.points else 0.0


@dataclass(frozen=True)
class Summary:
    """How a lab went, over the class."""

    handed_in: int
    refused: int
    mean: float  #: points, of those who handed in something that could be graded
    full: int  #: how many have all points


class Gradebook:
    """All results of a class, sorted by learner and lab."""

    def __init__(self, results: Iterable[Result], said: Iterable[str] = ()) -> None:
        self.said = tuple(said)  #: of files that were handed in and not graded
        self.results = tuple(sorted(results, key=lambda one: (_by_name(one.learner), one.lab, one.file)))
        self.learners = tuple(sorted({one.learner for one in self.results}, key=_by_name))
        self.file_names = names.of(self.learners)
        self._counted: dict[tuple[str, str], Result] = {}
        for one in self.results:
            known = self._counted.get((one.learner, one.lab))
            if known is None or _better(one, known):
                self._counted[one.learner, one.lab] = one
        self.labs = tuple(self._lab(number) for number in sorted({one.lab for one in self.results}))

    def _lab(self, number: str) -> Lab:
        found = [one for one in self.results if one.lab == number]
        columns: dict[str, Column] = {}
        for one in sorted(found, key=lambda one: -len(one.exercises)):  # whoever has all of them has their order
            for exercise in one.exercises:
                column = Column(number, exercise.name, exercise.title, exercise.points)
                columns.setdefault(exercise.name, column)
        return Lab(number, next((one.title for one in found if one.title), ""), tuple(columns.values()))

    def result(self, learner: str, lab: str) -> Result | None:
        """What counts of a learner in a lab: of several notebooks the one that earned most. None: handed in nothing."""
        return self._counted.get((learner, lab))

    def exercise(self, learner: str, column: Column) -> ExerciseResult | None:
        """What a learner has in one exercise."""
        found = self.result(learner, column.lab)
        return next((one for one in found.exercises if one.name == column.name), None) if found else None

    def score(self, learner: str, lab: Lab) -> Score:
        """A learner's score in a lab. Who handed in nothing, or what had to be refused, has 0 of all its points.

        What could not be checked or graded because of the machine is not among the points: it is nobody's fault.
        """
        found = self.result(learner, lab.number)
        if found and found.failed:
            return Score(0.0, 0.0)
        if found is None or not found.exercises:
            return Score(0.0, lab.points)
        return Score(found.earned, found.points)

    def total(self, learner: str) -> Score:
        """A learner's score in all labs."""
        scores = [self.score(learner, lab) for lab in self.labs]
        return Score(round(sum(one.earned for one in scores), 2), round(sum(one.points for one in scores), 2))

    def summary(self, lab: Lab) -> Summary:
        """How a lab went."""
        found = [(one, self.result(one, lab.number)) for one in self.learners]
        graded = [self.score(learner, lab) for learner, result in found if result and not result.refused]
        return Summary(
            handed_in=sum(result is not None for _, result in found),
            refused=sum(bool(result and result.refused and not result.failed) for _, result in found),
            mean=sum(one.earned for one in graded) / len(graded) if graded else 0.0,
            full=sum(one.earned == one.points > 0 for one in graded),
        )

    def progress(self, column: Column) -> dict[str, int]:
        """How many of the class stand where in an exercise: one of `OUTCOMES`, "refused", or "nothing" handed in."""
        found = dict.fromkeys((*OUTCOMES, "refused", "nothing"), 0)
        for learner in self.learners:
            result, exercise = self.result(learner, column.lab), self.exercise(learner, column)
            if result is None:
                found["nothing"] += 1
            elif result.failed:
                found["not checked"] += 1
            elif result.refused or not exercise:
                found["refused"] += 1
            else:
                found[standing(exercise)] += 1
        return found


def standing(exercise: ExerciseResult) -> str:
    """Where a learner stands in an exercise, of `OUTCOMES`: passed only where every hidden check has passed too."""
    own = exercise.judged.outcome
    if own == "passed" and any(one.outcome in ("not yet", "not attempted") for one in exercise.hidden):
        return "not yet"
    return own


def failed_hidden(exercise: ExerciseResult) -> list[tuple[int, Judged]]:
    """The hidden checks that did not pass, each with its number from 1 on."""
    return [(number, one) for number, one in enumerate(exercise.hidden, 1) if one.outcome != "passed"]


def _better(one: Result, other: Result) -> bool:
    return (one.earned, bool(one.exercises), not one.refused) > (
        other.earned,
        bool(other.exercises),
        not other.refused,
    )


def _by_name(learner: str) -> tuple[str, str]:
    return learner.casefold(), learner
