"""The results as JUnit XML, in the shape that GitHub's, GitLab's and Jenkins's readers agree on.

::

    testsuites
      testsuite "ada / lab 05"             a testcase per exercise
        testcase "isolate"                   passed
        testcase "join"    > failure         type "not yet", "not attempted" or "hidden check"
        testcase "busy"    > skipped         the machine could not check it
      testsuite "ada / lab 05 / notebook"  a testcase per cell that was run; no points come from these

A submission that was refused is a suite with one testcase, "submission". JUnit has no schema of its own; this keeps to
the elements and attributes that all readers know: https://github.com/testmoapp/junitxml.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterable

from labkit.course.grading.report.gradebook import WHY, Gradebook, failed_hidden, standing
from labkit.course.grading.report.texts import line, number, text
from labkit.course.grading.results import CellRun, ExerciseResult, Result

_KINDS = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}


def to_text(book: Gradebook) -> str:
    """The whole class as one document."""
    root = ET.Element("testsuites", name="labkit")
    for result in book.results:
        _suite(root, result)
        if result.replay is not None:
            _replay_suite(root, result)
    for attribute, tag in _KINDS.items():
        root.set(attribute, str(sum(1 for _ in root.iter(tag))))
    root.set("time", f"{sum(result.seconds for result in book.results):.3f}")
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(root: ET.Element, result: Result) -> None:
    suite = ET.SubElement(root, "testsuite", name=f"{line(result.learner)} / lab {line(result.lab)}")
    if result.refused:  # an error is what is not the learner's fault
        kind = ("error", "not graded") if result.failed else ("failure", "refused")
        _verdict(_case(suite, result, "submission"), *kind, result.refused)
    for exercise in result.exercises if not result.refused else ():
        _exercise(_case(suite, result, exercise.name), exercise)
    notes = [*result.notes, f"{number(result.earned)} of {number(result.points)} points"]
    _count(suite, result.seconds)
    ET.SubElement(suite, "system-out").text = "\n".join(text(note) for note in notes)


def _exercise(case: ET.Element, exercise: ExerciseResult) -> None:
    where, judged = standing(exercise), exercise.judged
    hidden = [f"Hidden check {n}: {one.outcome}. {one.why}" for n, one in failed_hidden(exercise)]
    said = [f"{label}: {words}" for label, words in (("Seen", judged.seen), (WHY[judged.outcome], judged.why)) if words]
    if where == "not checked":
        _verdict(case, "skipped", "", judged.why or judged.seen, *said, *hidden)
        if judged.trace:
            ET.SubElement(case, "system-err").text = text(judged.trace)
    elif judged.outcome == "passed" and where != "passed":
        _verdict(case, "failure", "hidden check", hidden[0], *hidden)
    elif where != "passed":
        _verdict(case, "failure", where, judged.why or judged.seen, *said, *hidden)


def _replay_suite(root: ET.Element, result: Result) -> None:
    replay = result.replay
    assert replay is not None
    suite = ET.SubElement(root, "testsuite", name=f"{line(result.learner)} / lab {line(result.lab)} / notebook")
    for cell in replay.cells:
        case = _case(suite, result, f"cell {cell.number}", "notebook")
        if not cell.ok:
            _verdict(case, "failure", "cell", _last_line(cell), cell.source, cell.output)
    if replay.trouble:
        _verdict(_case(suite, result, "to its end", "notebook"), "failure", "not run to its end", replay.trouble)
    _count(suite, 0.0)


def _case(suite: ET.Element, result: Result, name: str, *parts: str) -> ET.Element:
    # The class is what readers group by; a dot within a learner's name would make groups of its own.
    parts = (line(result.learner).replace(".", "_"), f"lab{line(result.lab)}", *parts)
    return ET.SubElement(suite, "testcase", classname=".".join(parts), name=line(name), time="0")


def _verdict(case: ET.Element, tag: str, kind: str, message: str, *said: str) -> None:
    found = ET.SubElement(case, tag, message=line(message, 500))
    if kind:
        found.set("type", kind)
    found.text = "\n\n".join(text(one) for one in said or (message,) if one)


def _count(suite: ET.Element, seconds: float) -> None:
    for attribute, tag in _KINDS.items():
        suite.set(attribute, str(sum(1 for _ in suite.iter(tag))))
    suite.set("time", f"{seconds:.3f}")


def _last_line(cell: CellRun) -> str:
    """What an exception says stands in its last line."""
    lines: Iterable[str] = (one for one in reversed(text(cell.output).splitlines()) if one.strip())
    return next(iter(lines), "the cell did not run")
