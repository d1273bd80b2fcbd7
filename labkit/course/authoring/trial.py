"""Try code as the answer to an exercise, without running the rest of its lab: for the labs' own tests.

The answer's cell is executed in a namespace that holds what the lab's earlier cells import and define, with every
earlier exercise solved, since each builds on the solution of the one before. Nothing else of the lab is run.
"""

import linecache
import re
from typing import Any

from labkit.course.exercise_spec import Posed, definitions, posed, without_checks
from labkit.course.framework.judge import judge
from labkit.course.framework.outcomes import Outcome
from labkit.course.source import lab_source


def attempt(number: str, exercise: str, code: str) -> Outcome:
    """The outcome of lab `number`'s exercise where its cell holds `code`."""
    return outcome_of(posed(number, exercise), code)


def outcome_of(one: Posed, code: str) -> Outcome:
    """The outcome of an exercise where its cell holds `code`."""
    namespace = defined_before(one)
    _run(without_checks(re.sub(r"\A%%needs .*", "", code)), f"<{one.exercise.name}>", namespace)
    answers = [eval(argument, namespace) for argument in one.arguments]
    return judge(one.exercise, *answers)


def defined_before(one: Posed) -> dict[str, Any]:
    """What the lab's cells before the exercise's own import and define, by name."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, definition in enumerate(one.definitions_before()):
        _run(definition, f"<{one.written_in.stem} cell {number}>", namespace)
    return namespace


def defined_in(number: str) -> dict[str, Any]:
    """What all of lab `number`'s cells import and define, by name, its exercises solved."""
    md = lab_source.path_of(number)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for place, cell in enumerate(lab_source.read(md)):
        if cell.kind == "code":
            _run(definitions(cell.solved), f"<{md.stem} cell {place}>", namespace)
    return namespace


def _run(code: str, name: str, namespace: dict[str, Any]) -> None:
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)  # for the lines in messages
    exec(compile(code, name, "exec"), namespace)
