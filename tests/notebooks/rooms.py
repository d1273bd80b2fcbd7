"""Answers judged in rooms, as grading does it: for the tests of the exercises' checks."""

import json
from typing import Any

from labkit.course import exercise_spec as course
from labkit.course.exercise_spec import Posed
from labkit.course.grading import sandbox
from labkit.course.grading.sandbox import Allowance
from labkit.course.source import lab_source
from tests.requirements import machine_cannot


def need_rooms() -> None:
    """Skip where this machine cannot make rooms."""
    if lack := sandbox.unsupported():
        machine_cannot(lack.what)


def judged(
    posed: Posed, answer: str, *, hidden: tuple[str, ...] = (), seed: str = "", **allowed: int
) -> list[dict[str, Any]]:
    """What the judge says of `answer`: by the exercise's own check, and by those of the texts `hidden`.

    `allowed` are fields of the room's `Allowance`.
    """
    task = {**posed.to_json(), "seed": seed, "answer": answer, "hidden": list(hidden)}
    ended = sandbox.run(
        sandbox.python("labkit.course.grading.judge_main"),
        stdin=json.dumps(task).encode(),
        allowance=Allowance(**allowed),
    )
    assert ended.exit_code == 0, ended
    said: list[dict[str, Any]] = json.loads(ended.stdout)
    return said


def tried(lab: str, name: str, answer: str, **named: Any) -> dict[str, Any]:
    """What the judge says of `answer` to one exercise of a lab."""
    return judged(course.posed(lab, name), answer, **named)[0]


def all_exercises() -> list[Posed]:
    """Every exercise of the course."""
    return [one for md in lab_source.all_paths() for one in course.all_of(md.stem.split("_")[0])]
