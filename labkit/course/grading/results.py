"""What grading finds: the vocabulary of all other modules here. Plain frozen data that goes through JSON and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

OUTCOMES = ("passed", "not yet", "not attempted", "not checked")


@dataclass(frozen=True)
class Judged:
    """One check of one exercise, as the judge has said it.

    `outcome` is one of `OUTCOMES`; "not checked" is nobody's answer: the machine lacks something, or the check itself
    broke. `share`, from 0 to 1, is how much of the points the answer has earned; 1 where passed.
    """

    outcome: str
    seen: str  #: what was found
    why: str  #: why that is good, or not it yet; where to begin
    share: float = 0.0
    trace: str = ""  #: what the judge has written on its standard error, where it gave no verdict; for the instructor


@dataclass(frozen=True)
class ExerciseResult:
    """One exercise of one submission: its own check, and the hidden ones that the instructor has added."""

    name: str
    title: str
    points: float  #: what it counts at most
    judged: Judged
    hidden: tuple[Judged, ...] = ()  #: each counts as much as the exercise's own check; shown without what was seen
    expected: str = ""  #: what is asked for, in a sentence, for the page
    answer: str = ""  #: the source that was graded

    @property
    def earned(self) -> float:
        """The points earned, rounded to hundredths: the mean of the shares, of what could be checked."""
        shares = [one.share for one in (self.judged, *self.hidden) if one.outcome != "not checked"]
        return round(self.points * sum(shares) / len(shares), 2) if shares else 0.0

    @property
    def checked(self) -> bool:
        """Whether anything could be said about it."""
        return self.judged.outcome != "not checked"


@dataclass(frozen=True)
class CellRun:
    """One code cell of the rebuilt notebook, as nbval has run it."""

    number: int  #: among all cells, from 1 on
    ok: bool
    source: str
    output: str  #: what it printed or raised, cut


@dataclass(frozen=True)
class Replay:
    """The rebuilt notebook, run from top to bottom. For people to look at; no points come from it."""

    cells: tuple[CellRun, ...] = ()
    trouble: str = ""  #: why it was not run to its end

    @property
    def ok(self) -> bool:
        """Whether every cell ran."""
        return not self.trouble and all(cell.ok for cell in self.cells)


@dataclass(frozen=True)
class Result:
    """One submission: one learner's notebook of one lab."""

    learner: str
    lab: str  #: its number, such as "05"
    title: str  #: of the lab
    file: str  #: the submission's path, as it was found
    exercises: tuple[ExerciseResult, ...] = ()
    refused: str = ""  #: why it could not be graded at all; then there are no exercises, or none with an answer
    failed: bool = False  #: whether that is our fault or the machine's, and not the submission's
    notes: tuple[str, ...] = ()  #: what was odd about the submission, and was put right or left out
    replay: Replay | None = None  #: None: it was not asked for
    seconds: float = 0.0  #: how long grading took
    digest: str = ""  #: of the sources that were graded: equal ones get equal scores

    @property
    def points(self) -> float:
        """What could be earned: of exercises that this machine could check."""
        return round(sum(one.points for one in self.exercises if one.checked), 2)

    @property
    def earned(self) -> float:
        """What was."""
        return round(sum(one.earned for one in self.exercises), 2)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Result:
        """From what `to_json` gave."""
        exercises = tuple(
            ExerciseResult(
                **{
                    **one,
                    "judged": Judged(**one["judged"]),
                    "hidden": tuple(Judged(**hidden) for hidden in one["hidden"]),
                }
            )
            for one in found["exercises"]
        )
        replay = found["replay"]
        made = None
        if replay is not None:
            made = Replay(tuple(CellRun(**cell) for cell in replay["cells"]), replay["trouble"])
        return cls(**{**found, "exercises": exercises, "notes": tuple(found["notes"]), "replay": made})


@dataclass(frozen=True)
class Exam:
    """How a class is graded: the same for all its submissions."""

    seed: str  #: from which each learner's parameters are drawn; the same seed, the same parameters
    hidden: str = ""  #: the folder of the instructor's hidden checks
    replay: bool = True
    only: tuple[str, ...] = field(default_factory=tuple)  #: numbers of labs; all where empty
    seconds: float = 120.0  #: how long one answer, and one cell of the notebook, may take
