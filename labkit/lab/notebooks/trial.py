"""Try code as the answer to an exercise, without running the rest of its lab: for the labs' own tests.

The answer's cell is executed in a namespace that holds what the lab's earlier cells import and define, with every
earlier exercise solved, since each builds on the solution of the one before. Nothing else of the lab is run.
"""

import ast
import linecache
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.lab.course import exercises_of
from labkit.lab.exercise import Exercise
from labkit.lab.judge import judge
from labkit.lab.notebooks import source
from labkit.lab.verdict import Outcome


@dataclass(frozen=True)
class Posed:
    """One exercise as a lab poses it: its cell, and the arguments of its `lab.NAME.check(...)`."""

    written_in: Path
    exercise: type[Exercise]
    cells_before: tuple[str, ...]  #: the solved text of the cells before it
    solved: str
    stub: str
    arguments: tuple[str, ...]  #: the expressions that `check` is given

    @property
    def needs(self) -> tuple[str, ...]:
        """What its own cell asks for with `%%needs`."""
        asked = re.match(r"%%needs (.+)", self.solved)
        return tuple(asked[1].split()) if asked else ()


def attempt(number: str, exercise: str, code: str) -> Outcome:
    """The outcome of lab `number`'s exercise where its cell holds `code`."""
    return outcome_of(posed(number, exercise), code)


def posed(number: str, exercise: str) -> Posed:
    """One exercise of a lab of the course. `SourceError`: the lab does not pose it."""
    for one in all_posed(source.path_of(number), exercises_of(number)):
        if one.exercise.name == exercise:
            return one
    raise source.SourceError(f"lab {number} poses no exercise {exercise!r}")


def all_posed(md: Path, exercises: list[type[Exercise]]) -> list[Posed]:
    """Every exercise of a lab. `SourceError`: one has no cell of its own, or is never checked."""
    cells = [cell for cell in source.read(md) if cell.kind == "code"]
    checks = {name: arguments for cell in cells for name, arguments in _checks(cell.solved)}
    found = []
    for exercise in exercises:
        places = [index for index, cell in enumerate(cells) if cell.exercise == exercise.name]
        if len(places) != 1:
            raise source.SourceError(f"{md}: {len(places)} cells with `:exercise: {exercise.name}`, expected one")
        if exercise.name not in checks:
            raise source.SourceError(f"{md}: no cell calls lab.{exercise.name}.check(...)")
        before = tuple(cell.solved for cell in cells[: places[0]])
        cell = cells[places[0]]
        found.append(Posed(md, exercise, before, cell.solved, cell.learner, checks[exercise.name]))
    return found


def outcome_of(one: Posed, code: str) -> Outcome:
    """The outcome of an exercise where its cell holds `code`."""
    namespace = defined_before(one)
    _run(_without_checks(re.sub(r"\A%%needs .*", "", code)), f"<{one.exercise.name}>", namespace)
    answers = [eval(argument, namespace) for argument in one.arguments]
    return judge(one.exercise, *answers)


def defined_before(one: Posed) -> dict[str, Any]:
    """What the lab's cells before the exercise's own import and define, by name."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(one.cells_before):
        _run(_definitions(cell), f"<{one.written_in.stem} cell {number}>", namespace)
    return namespace


def _run(code: str, name: str, namespace: dict[str, Any]) -> None:
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)  # for the lines in messages
    exec(compile(code, name, "exec"), namespace)


def _parse(cell: str) -> ast.Module | None:
    """A cell's Python; None for cells of another magic. Line magics and shell lines are dropped."""
    text = re.sub(r"\A\s*%%(observe|needs).*\n", "\n", cell)
    if text.lstrip().startswith("%%"):
        return None
    return ast.parse("\n".join("pass" if re.match(r"\s*[%!]", line) else line for line in text.split("\n")))


def _checks(cell: str) -> list[tuple[str, tuple[str, ...]]]:
    """The calls `lab.NAME.check(a, b)` in a cell, as (NAME, ("a", "b"))."""
    tree = _parse(cell)
    found = []
    for node in ast.walk(tree) if tree else ():
        match node:
            case ast.Call(ast.Attribute(ast.Attribute(ast.Name("lab"), name), "check"), arguments):
                found.append((name, tuple(ast.unparse(argument) for argument in arguments)))
    return found


def _definitions(cell: str) -> str:
    """What a cell imports and defines: functions, classes, and constants in capitals."""
    tree = _parse(cell)
    kept: list[ast.stmt] = []
    for node in tree.body if tree else ():
        match node:
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.ClassDef():
                kept.append(node)
            case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)) if name.isupper():
                kept.append(node)
    return ast.unparse(ast.Module(kept, []))


def _without_checks(cell: str) -> str:
    """A cell without its own `lab....` calls, whose object does not exist here; line numbers stay."""
    tree = _parse(cell)
    if tree is None:
        return cell
    lines = cell.split("\n")
    for node in tree.body:
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("lab."):
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = ""
    return "\n".join(lines)
