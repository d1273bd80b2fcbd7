"""A lab with a learner's answers in it: all else is the course's own, and what is posed goes through JSON."""

import json
from pathlib import Path

import nbformat
import pytest

from labkit.course import exercise_spec
from labkit.course.authoring import release
from labkit.course.grading.assemble import rebuild
from labkit.course.source import lab_source

SOURCES = lab_source.all_paths()
every_lab = pytest.mark.parametrize("md", SOURCES, ids=[md.stem for md in SOURCES])


@every_lab
def test_with_the_solutions_it_is_the_solved_notebook(md: Path) -> None:
    number = md.stem[:2]
    made = rebuild(number, {one.exercise.name: one.solved for one in exercise_spec.all_of(number)})
    wanted = release.build(md, solved=True)
    assert [cell.source for cell in made.cells] == [cell.source for cell in wanted.cells]
    nbformat.validate(made)


@every_lab
def test_without_answers_the_exercises_alone_are_stubs(md: Path) -> None:
    number = md.stem[:2]
    stubs = {one.solved: one.stub for one in exercise_spec.all_of(number)}
    made, wanted = rebuild(number, {}), release.build(md, solved=True)
    assert [cell.source for cell in made.cells] == [stubs.get(cell.source, cell.source) for cell in wanted.cells]


def test_every_code_cell_says_that_it_was_run_and_none_has_a_tag() -> None:
    made = rebuild("05", {"isolate": "# NBVAL_SKIP\nisolate = print"})
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(cell.metadata.get("tags") or cell.outputs for cell in code)


def test_one_learners_answers_are_not_in_the_next_ones_notebook() -> None:
    rebuild("05", {"isolate": "isolate = print"})
    assert "isolate = print" not in [cell.source for cell in rebuild("05", {}).cells]


def test_an_exercise_that_there_is_not() -> None:
    with pytest.raises(KeyError, match="lab 05 has no exercise 'alone'"):
        rebuild("05", {"alone": ""})


@every_lab
def test_what_is_posed_is_plain_and_has_no_answer(md: Path) -> None:
    for one in exercise_spec.all_of(md.stem[:2]):
        plain = one.to_json()
        assert json.loads(json.dumps(plain)) == plain
        assert one.exercise.title == plain["title"] and plain["arguments"]
        assert one.solved not in plain["before"] and one.solved != plain["stub"]
        for number, definitions in enumerate(plain["before"]):
            compile(definitions, f"cell {number}", "exec")
