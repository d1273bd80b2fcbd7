"""Grade one submission: each answer by a judge in a room of its own, the whole notebook by nbval in another."""

import ast
import hashlib
import json
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from labkit.course import exercise_spec
from labkit.course.exercise_spec import Posed
from labkit.course.framework import pace
from labkit.course.grading import sandbox
from labkit.course.grading.assemble import rebuild
from labkit.course.grading.found import NO_LAB, NO_TITLE, Found
from labkit.course.grading.nbval_run import replay
from labkit.course.grading.results import OUTCOMES, Exam, ExerciseResult, Judged, Result
from labkit.course.grading.sandbox import Allowance
from labkit.course.grading.submission import Submission
from labkit.course.source import lab_source
from labkit.errors import LabkitError

_TEXT_MAX = 4000  # characters of a text that comes out of a room
_VERDICTS_MAX = 64


def grade(found: Found, submission: Submission, exam: Exam) -> Result:
    """The result of one submission. Whatever it does, it costs itself points and nobody else anything.

    `LabkitError`: this machine cannot make rooms (`room.unsupported`).
    """
    begun = time.monotonic()
    if found.lab == NO_LAB:
        notes = submission.notes
        return Result(found.learner, NO_LAB, NO_TITLE, str(found.path), refused=submission.refused, notes=notes)
    hidden = _hidden_text(exam.hidden, found.lab)
    exercises = []
    for one in exercise_spec.all_of(found.lab):
        answer = submission.answers.get(one.exercise.name)
        exercises.append(_exercise(one, answer, Asked(hidden, seed_of(exam, found), exam.seconds)))
    replayed = None
    if exam.replay and not submission.refused:
        notebook = rebuild(found.lab, submission.answers)
        replayed = replay(notebook, seconds_per_cell=exam.seconds)
    return Result(
        found.learner,
        found.lab,
        title_of(found.lab),
        str(found.path),
        tuple(exercises),
        refused=submission.refused,
        notes=submission.notes,
        replay=replayed,
        seconds=time.monotonic() - begun,
        digest=digest_of(submission),
    )


def title_of(lab: str) -> str:
    """The title of a lab, or of what is of none."""
    return NO_TITLE if lab == NO_LAB else lab_source.title(lab_source.path_of(lab))


def seed_of(exam: Exam, found: Found) -> str:
    """What a learner's parameters are drawn from: nobody can tell it without the exam's own seed."""
    text = "\0".join((exam.seed, found.learner, found.lab))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest_of(submission: Submission) -> str:
    """Of what is graded: equal ones get equal scores."""
    text = json.dumps(sorted(submission.answers.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Asked:
    """What a judge is told besides the answer."""

    hidden: str = ""  #: the text of the instructor's hidden checks of this lab
    seed: str = ""
    seconds: float = Allowance.wall_seconds


def _exercise(one: Posed, answer: str | None, asked: Asked) -> ExerciseResult:
    kind = one.exercise
    if answer is None:
        judged = [Judged("not attempted", "There is no answer to this exercise in the notebook.", kind.start)]
    else:
        judged = judge(one, answer, asked)
    return ExerciseResult(kind.name, kind.title, kind.points, judged[0], tuple(judged[1:]), expected(one), answer or "")


def expected(one: Posed) -> str:
    """What the exercise asks for, in a sentence: what the learner's copy says of it in its docstring, or its title."""
    try:
        tree = ast.parse(re.sub(r"\A%%.*", "", one.stub))  # the course's own text
    except SyntaxError:
        return one.exercise.title
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    documented = ast.get_docstring(functions[0]) if functions else None
    return documented.split("\n\n")[0].replace("\n", " ") if documented else one.exercise.title


def judge(one: Posed, answer: str, asked: Asked) -> list[Judged]:
    """The verdicts on one answer: the exercise's own, then the hidden ones. Nothing that it does raises here.

    What could not be checked is asked again, with no other room beside it. A judge that ends without a verdict then as
    well is nobody's answer: it is "not checked". A check that says so itself is asked of the course's own solution.
    """
    judged = _in_a_room(one, answer, asked)
    if any(verdict.outcome == "not checked" for verdict in judged):
        judged = _in_a_room(one, answer, asked, alone=True)
    if any(verdict.outcome == "not checked" for verdict in judged) and not judged[0].trace:
        judged = _whose_fault(one, judged, asked)
    return judged


def _in_a_room(one: Posed, answer: str, asked: Asked, alone: bool = False) -> list[Judged]:
    task = one.to_json() | {"answer": answer, "seed": asked.seed, "hidden": [asked.hidden] if asked.hidden else []}
    ended = sandbox.run(
        sandbox.python("labkit.course.grading.judge_main"),
        stdin=json.dumps(task).encode(),
        allowance=Allowance(wall_seconds=asked.seconds * pace.measure()),
        alone=alone,
    )
    if ended.trouble:
        return [Judged("not yet", f"Grading this answer was ended: {ended.trouble}.", _ENDED)]
    try:
        return _read(ended.stdout)
    except (ValueError, RecursionError):
        trace = f"The judge ended with exit code {ended.exit_code}.\n{ended.stderr[-_TEXT_MAX:]}"
        return [Judged("not checked", "The judge ended without a verdict.", _NO_VERDICT, trace=trace)]


_NO_VERDICT = (
    "That is not this answer's fault. Your instructor finds in results.json what the judge has said, and decides."
)
_ENDED = (
    "An answer is run in a room where it has a minute or two, little memory and few processes. Which of these ends?"
)


def _read(text: str) -> list[Judged]:
    """What the judge has written. `ValueError`: it does not have the shape that it must have."""
    said = json.loads(text)
    if not isinstance(said, list) or not 1 <= len(said) <= _VERDICTS_MAX:
        raise ValueError("no list of verdicts")
    found = []
    for one in said:
        match one:
            case {"outcome": str() as outcome, "seen": str() as seen, "why": str() as why, "share": int() | float()}:
                share = float(one["share"])
                if outcome not in OUTCOMES or not 0 <= share <= 1 or (share == 1) != (outcome == "passed"):
                    raise ValueError("no verdict")
                found.append(Judged(outcome, seen[:_TEXT_MAX], why[:_TEXT_MAX], share))
            case _:
                raise ValueError("no verdict")
    return found


def _whose_fault(one: Posed, judged: list[Judged], asked: Asked) -> list[Judged]:
    """Checks that say of themselves that they could not be made: was it the machine, or something in the answer?

    The course's own solution tells: where that can be checked, the answer is what kept the check from working.
    """
    ours = _of_solution(one.written_in.stem.split("_")[0], one.exercise.name, asked.hidden)
    found = []
    for number, verdict in enumerate(judged):
        own = ours[number] if number < len(ours) else ours[0]
        if verdict.outcome == "not checked":
            if own.outcome != "not checked":
                verdict = Judged("not yet", f"This answer kept its check from working. {verdict.seen}", _KEPT)
            else:
                verdict = own
        found.append(verdict)
    return found


_KEPT = "The course's own solution is checked here without trouble. What does the answer do besides what is asked for?"


@lru_cache(maxsize=256)
def _of_solution(lab: str, name: str, hidden: str) -> list[Judged]:
    one = exercise_spec.posed(lab, name)
    return _in_a_room(one, one.solved, Asked(hidden, "the course's own solution"))


def _hidden_text(folder: str, lab: str) -> str:
    """The instructor's hidden checks of a lab: the text of `labNN.py` in their folder, "" where there is none."""
    if not folder:
        return ""
    path = Path(folder, f"lab{lab}.py")
    try:
        text = path.read_text(encoding="utf-8")
        compile(text, str(path), "exec")  # the instructor's own
        return text
    except FileNotFoundError:
        return ""
    except SyntaxError as error:
        raise LabkitError(f"the hidden checks {path} are not Python: {error.msg}, in line {error.lineno}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LabkitError(f"the hidden checks {path} cannot be read: {error}") from None
