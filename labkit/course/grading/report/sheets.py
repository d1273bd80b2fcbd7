"""The results for spreadsheets and course systems: CSV as RFC 4180 has it, UTF-8, in an order that stays."""

import csv
import io
from collections.abc import Iterable

from labkit.course.grading.report.gradebook import Gradebook, standing
from labkit.course.grading.report.texts import line, number


def scores(book: Gradebook) -> str:
    """A line per learner: learner, earned, points, percent, then a column per lab and per exercise of it.

    An empty cell: nothing was handed in, or the machine could not check it.
    """
    head = ["learner", "earned", "points", "percent"]
    for lab in book.labs:
        head += [lab.number, *(f"{lab.number}.{column.name}" for column in lab.columns)]
    return _table(head, (_scores(book, learner) for learner in book.learners))


def _scores(book: Gradebook, learner: str) -> list[str]:
    total = book.total(learner)
    row = [learner, number(total.earned), number(total.points), f"{total.percent:g}" if total.points else ""]
    for lab in book.labs:
        result = book.result(learner, lab.number)
        row.append(number(book.score(learner, lab).earned) if result and not result.failed else "")
        for column in lab.columns:
            found = book.exercise(learner, column)
            row.append(number(found.earned) if found and found.checked else "")
    return row


def exercises(book: Gradebook) -> str:
    """A line per learner, lab and exercise: its outcome, its points, why, and what the hidden checks said.

    A submission that had to be refused has one line, without an exercise.
    """
    return _table(
        ["learner", "lab", "exercise", "outcome", "earned", "points", "why", "hidden"],
        (row for learner in book.learners for lab in book.labs for row in _exercises(book, learner, lab.number)),
    )


def _exercises(book: Gradebook, learner: str, lab: str) -> Iterable[list[str]]:
    found = book.result(learner, lab)
    if found is None:
        return
    if found.failed:
        yield [learner, lab, "", "not checked", "", "", found.refused, ""]
    elif found.refused:
        yield [learner, lab, "", "refused", "0", "", found.refused, ""]
    for one in found.exercises if not found.refused else ():
        hidden = "; ".join(f"{judged.outcome}: {judged.why}" for judged in one.hidden)
        counts = [number(one.earned), number(one.points)]
        yield [learner, lab, one.name, standing(one), *counts, one.judged.why, hidden]


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)  # RFC 4180: commas, doubled quotation marks, CR LF
    writer.writerow([cell(word) for word in head])
    writer.writerows([cell(word) for word in row] for row in rows)
    return out.getvalue()


def cell(word: str) -> str:
    """A cell that no spreadsheet takes for a formula, in one line.

    Excel and LibreOffice compute what begins with one of = + - @ or a tab, also in a file that somebody sent; an
    apostrophe before it makes it text. https://owasp.org/www-community/attacks/CSV_Injection
    """
    kept = line(word, 2000)
    # The wide forms count where East Asian input methods are at home.
    return "'" + kept if word[:1] in ("\t", "\r", "\n") or kept[:1] in tuple("=+-@＝＋－＠") else kept  # noqa: RUF001
