"""An exercise as it is posed in a notebook: check, hint, solution, and the buttons that do the same."""

import ast
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labkit.course.framework import rendering
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.judge import judge
from labkit.course.framework.outcomes import NotChecked, Outcome
from labkit.course.framework.progress import ExerciseRecord, Progress
from labkit.course.source import lab_source


class Task:
    """What `lab.NAME` is."""

    def __init__(
        self, number: str, exercise: type[Exercise], progress: Progress, written_in: Callable[[], Path]
    ) -> None:
        self._number = number
        self._exercise = exercise
        self._progress = progress
        self._written_in = written_in
        self._hints_shown = 0

    @property
    def name(self) -> str:
        """The exercise's name, as in `lab.NAME`."""
        return self._exercise.name

    @property
    def title(self) -> str:
        """What the exercise asks, in a few words."""
        return self._exercise.title

    @property
    def points(self) -> int:
        """What it counts."""
        return self._exercise.points

    @property
    def record(self) -> ExerciseRecord:
        """What is stored about it: attempts, outcome, hints, whether the solution was opened."""
        return self._progress.exercise(self._number, self.name)

    def __repr__(self) -> str:
        return f"<exercise {self.name}: {self.title}>"

    def check(self, *answers: Any) -> Outcome:
        """Look at what your code does: passed, not yet, or not attempted. Shows it, records it, and returns it."""
        return self._check(answers, record=True)

    def try_out(self, *answers: Any) -> Outcome:
        """The same as `check`, but nothing is recorded: to see what a check says about a mistake made on purpose."""
        return self._check(answers, record=False)

    def _check(self, answers: tuple[Any, ...], record: bool) -> Outcome:
        outcome = self._judge(answers, record)
        names = given_names(rendering.cell(), self.name)
        display_id = f"labkit-{uuid.uuid4().hex}"
        self.show_outcome(outcome, display_id)
        widget = None
        if rendering.in_notebook():
            from labkit.course.framework.controls import buttons

            widget = buttons(self, lambda: self.check_again(answers, display_id, record, names))
        rendering.display(f"Next: lab.{self.name}.hint() or lab.{self.name}.solution()", widget=widget)
        return outcome

    def check_again(
        self, answers: tuple[Any, ...], display_id: str, record: bool = True, names: tuple[str, ...] = ()
    ) -> Outcome:
        """Check the present state of the same answers, and show it in place of the earlier outcome.

        `names` are what the answers were called where they were given, "" for one without a name.
        """
        called = (*names, *[""] * (len(answers) - len(names)))
        now = tuple(_as_defined_now(*one) for one in zip(answers, called, strict=False))
        outcome = self._judge(now, record)
        self.show_outcome(outcome, display_id, update=True)
        return outcome

    def _judge(self, answers: tuple[Any, ...], record: bool) -> Outcome:
        outcome = judge(self._exercise, *answers)
        if record and not isinstance(outcome, NotChecked):
            self._progress.record_check(self._number, self.name, outcome.word)
        return outcome

    def show_outcome(self, outcome: Outcome, display_id: str, update: bool = False) -> None:
        """Show an outcome, or replace the one shown under `display_id`."""
        rendering.display(
            rendering.outcome_plain(self.name, outcome),
            rendering.outcome_html(self.title, outcome),
            display_id=display_id,
            update=update,
        )

    def hint(self) -> None:
        """Show the next hint: a nudge, then where to look, then the line."""
        plain, html = self.next_hint()
        rendering.display(plain, html)

    def next_hint(self) -> tuple[str, str]:
        """The next hint as text and as HTML; after the last one, the last again."""
        hints = self._exercise.hints
        if not hints:
            text = "This exercise has no hints; its solution can be opened."
            return text, rendering.box("hint", "", rendering.inline(text))
        self._hints_shown = min(self._hints_shown + 1, len(hints))
        step, text = self._hints_shown, hints[self._hints_shown - 1]
        self._progress.record_hint(self._number, self.name, step)
        heading = f"{step} of {len(hints)}"
        return f"Hint {heading}: {text}", rendering.box("hint", heading, rendering.inline(text))

    def solution(self) -> None:
        """Show one good solution, and why it is good. That it was opened is recorded; it costs nothing."""
        plain, html = self.open_solution()
        rendering.display(plain, html)

    def open_solution(self) -> tuple[str, str]:
        """The solution as text and as HTML, read from the lab's source."""
        try:
            code = lab_source.solution(self._written_in(), self.name)
        except (OSError, lab_source.SourceError) as error:
            text = f"The solution cannot be shown: {error}"
            return text, rendering.box("solution", self.title, rendering.inline(text))
        self._progress.record_solution(self._number, self.name)
        because = self._exercise.because
        plain = f"One solution of {self.name}:\n\n{code}" + (f"\n\n{because}" if because else "")
        return plain, rendering.box(
            "solution", self.title, rendering.code(code), rendering.inline(because) if because else ""
        )


def given_names(cell: str, exercise: str) -> tuple[str, ...]:
    """The names of what `cell` gives to the check of `exercise`, in order; "" for what is no plain name."""
    try:
        tree = ast.parse(cell)
    except SyntaxError:  # a cell with magic in it
        return ()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Attribute(attr=found), attr="check" | "try_out"), args=args):
                if found == exercise:
                    return tuple(one.id if isinstance(one, ast.Name) else "" for one in args)
    return ()


def _as_defined_now(answer: Any, name: str = "") -> Any:
    """The learner may have run the answer's cell again since: then its name stands for the new one."""
    variables = vars(sys.modules["__main__"])
    if name in variables:
        return variables[name]
    if getattr(answer, "__module__", None) != "__main__":
        return answer
    now = variables.get(getattr(answer, "__name__", ""))
    return now if callable(now) else answer
