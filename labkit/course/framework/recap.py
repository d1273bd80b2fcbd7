"""How far a learner has come in one lab, as a table."""

import html

from labkit.course.framework import rendering
from labkit.course.framework.exercise_view import Task
from labkit.course.framework.predict import Prediction
from labkit.course.framework.progress import LabRecord

_MARKS = {"passed": "✓", "not yet": "→", "not attempted": "○"}


def show_recap(record: LabRecord, tasks: list[Task], predictions: list[Prediction]) -> None:
    """Show the exercises of a lab with their outcomes and the help taken, and the predictions made."""
    rows = [_row(task) for task in tasks]
    done = sum(task.record["passed"] for task in tasks)
    # In the order in which the lab asks them; then those that it has not asked since the notebook was started.
    asked = {prediction.name: prediction.question for prediction in predictions}
    answers = record["predictions"]
    names = [*(name for name in asked if name in answers), *(name for name in answers if name not in asked)]
    made = [(asked.get(name, name), answers[name]) for name in names]
    summary = f"{done} of {len(tasks)} exercises passed, {len(made)} predictions made."
    plain = [summary, *(f"  {mark} {title}: {word}{taken}" for mark, title, word, taken in rows)]
    plain += [f"  ? {question} {_text(answer)}" for question, answer in made]
    cells = [_cell(mark) + _cell(title) + _cell(word) + _cell(taken[2:]) for mark, title, word, taken in rows]
    table = "".join(f"<tr>{row}</tr>" for row in cells)
    listed = "".join(f"<tr>{_cell('?')}{_cell(q)}{_cell(_text(a))}</tr>" for q, a in made)
    rendering.display(
        "\n".join(plain),
        f"<div><b>{html.escape(summary)}</b><table style='margin:6px 0'>{table}</table>"
        + (f"<table style='margin:6px 0'>{listed}</table>" if listed else "")
        + "</div>",
    )


def _row(task: Task) -> tuple[str, str, str, str]:
    record = task.record
    word = "passed" if record["passed"] else record["outcome"]
    taken = [f"hints: {record['hints']}"] if record["hints"] else []
    taken += ["solution opened"] if record["solution_opened"] else []
    return _MARKS[word], task.title, word, "".join(f", {text}" for text in taken)


def _text(answer: str | float) -> str:
    return f"{answer:g}" if isinstance(answer, int | float) else answer


def _cell(text: str) -> str:
    return f"<td style='text-align:left'>{rendering.spans(text)}</td>"
