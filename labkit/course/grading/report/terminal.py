"""The results in a terminal: a line as each submission ends, a table at the end, and one notebook in full."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from labkit.course.grading.report.gradebook import WHY, Gradebook, Score, standing
from labkit.course.grading.report.pages import MARKS, replay_summary
from labkit.course.grading.report.texts import line, number, text
from labkit.course.grading.results import ExerciseResult, Judged, Replay, Result

STYLES = {
    "passed": "green",
    "not yet": "yellow",
    "not attempted": "cyan",
    "not checked": "magenta",
    "refused": "red",
    "nothing": "dim",
}
MOST_LEARNERS = 100  # in a table at the end; the pages have them all
MOST_CHARACTERS = 3_000  # of one text
MOST_LINES = 40


def ended(result: Result, done: int, total: int) -> str:
    """One submission, when it has been graded, in one line without any control characters."""
    if result.failed or result.refused:
        said = ("could not be graded: " if result.failed else "refused: ") + line(result.refused, 120)
    else:
        said = f"{number(result.earned)}/{number(result.points)}"
        unchecked = sum(not one.checked for one in result.exercises)
        said += f", {unchecked} not checked" if unchecked else ""
    count = f"{done:>{len(str(total))}}/{total}"
    return f"{count}  {line(result.learner, 40)}  lab {line(result.lab, 20)}  {said}  {result.seconds:.1f} s"


def table(book: Gradebook) -> RenderableType:
    """The class at the end: each learner's points in each lab. Of one learner: each exercise."""
    if len(book.learners) == 1:
        return _exercises(book)
    if len(book.learners) > MOST_LEARNERS:
        return Group(_labs(book), Text(f"{len(book.learners)} learners: the pages have each of them."))
    made = Table(title="The class", title_justify="left")
    made.add_column("learner", overflow="fold")
    for head in ("all", "%", *(f"lab {line(lab.number, 20)}" for lab in book.labs)):
        made.add_column(head, justify="right", no_wrap=True)
    for learner in book.learners:
        total = book.total(learner)
        cells = [_of_lab(book, learner, index) for index in range(len(book.labs))]
        made.add_row(Text(line(learner, 60)), _score(total), Text(f"{total.percent:.1f}"), *cells)
    return Group(_labs(book), made)


def _labs(book: Gradebook) -> Table:
    made = Table(title="The labs", title_justify="left")
    made.add_column("lab", overflow="fold")
    for head in ("handed in", "refused", "mean", "with all points"):
        made.add_column(head, justify="right")
    for lab in book.labs:
        found = book.summary(lab)
        mean = f"{number(found.mean)}/{number(lab.points)}"
        counts = [Text(str(count)) for count in (found.handed_in, found.refused)]
        made.add_row(Text(line(f"{lab.number} {lab.title}", 60)), *counts, Text(mean), Text(str(found.full)))
    return made


def _of_lab(book: Gradebook, learner: str, index: int) -> Text:
    lab = book.labs[index]
    result = book.result(learner, lab.number)
    if result is None:
        return mark("nothing")
    if result.failed:
        return mark("not checked")
    return mark("refused") if result.refused else _score(book.score(learner, lab))


def _exercises(book: Gradebook) -> Table:
    (learner,) = book.learners
    total = book.total(learner)
    title = Text(f"{line(learner, 60)}: {number(total.earned)} of {number(total.points)} points")
    made = Table(title=title, title_justify="left")
    for head in ("lab", "exercise", "outcome", "points"):
        made.add_column(head, overflow="fold", justify="right" if head == "points" else "left")
    for lab in book.labs:
        result = book.result(learner, lab.number)
        if result and result.refused:
            made.add_row(Text(line(lab.number, 20)), Text(""), mark("refused"), _score(book.score(learner, lab)))
        for one in result.exercises if result and not result.refused else ():
            made.add_row(Text(line(lab.number, 20)), Text(line(one.name, 40)), mark(standing(one)), _points(one))
    return made


def in_full(result: Result) -> RenderableType:
    """One notebook, for the learner whose it is: each exercise, what was seen and why, the notes, the run."""
    parts: list[RenderableType] = [Text(line(f"Lab {result.lab}: {result.title}"), style="bold")]
    if result.refused:
        parts.append(Text.assemble(mark("not checked" if result.failed else "refused"), f": {_short(result.refused)}"))
    for one in result.exercises if not result.refused else ():
        parts += _exercise(one)
    if result.notes:
        parts += [
            Text(""),
            Text("Notes", style="bold"),
            *(_indented(f"· {_short(note)}") for note in result.notes[:20]),
        ]
    if result.replay:
        parts += _replay(result.replay)
    parts += [Text(""), Text(f"{number(result.earned)} of {number(result.points)} points", style="bold")]
    return Group(*parts)


def _exercise(one: ExerciseResult) -> Iterator[RenderableType]:
    yield Text("")
    yield Text.assemble(
        mark(standing(one)), f"  {line(one.title)} ", (f"({line(one.name)})", "dim"), "  ", _points(one)
    )
    yield from _labelled("Asked", one.expected)
    yield from _verdict(one.judged)
    for count, hidden in enumerate(one.hidden, 1):  # what these have seen would give their parameters away
        yield _indented(Text.assemble(f"Hidden check {count}: ", mark(hidden.outcome), f" {_short(hidden.why)}"))


def _verdict(judged: Judged) -> Iterator[RenderableType]:
    yield from _labelled("Seen", judged.seen)
    yield from _labelled(WHY[judged.outcome], judged.why)


def _labelled(label: str, words: str) -> Iterator[RenderableType]:
    if words:
        yield _indented(Text.assemble((f"{label}: ", "dim"), _short(words)))


def _replay(replay: Replay) -> Iterator[RenderableType]:
    yield Text("")
    yield Text.assemble(("The notebook's run", "bold"), f": {replay_summary(replay)}. No points come from it.")
    yield from _labelled("Trouble", replay.trouble)
    for cell in [cell for cell in replay.cells if not cell.ok][:5]:
        yield _indented(Text(f"Cell {cell.number} failed:"))
        end = "\n".join(text(cell.output[-MOST_CHARACTERS:]).strip().splitlines()[-MOST_LINES:])
        yield Padding(Text(end), (0, 0, 0, 4))  # where the exception is


def mark(outcome: str) -> Text:
    """An outcome as its mark and its word, and in its colour where there are colours."""
    return Text(f"{MARKS[outcome]} {outcome}", style=STYLES[outcome])


def _points(one: ExerciseResult) -> Text:
    return _score(Score(one.earned, one.points)) if one.checked else Text("not counted", style="dim")


def _score(score: Score) -> Text:
    return Text(f"{number(score.earned)}/{number(score.points)}")


def _indented(words: str | Text) -> Padding:
    return Padding(Text(words) if isinstance(words, str) else words, (0, 0, 0, 2))


def _short(words: str) -> str:
    lines = text(words, MOST_CHARACTERS).strip().splitlines()
    return "\n".join([*lines[:MOST_LINES], "…"] if len(lines) > MOST_LINES else lines)
