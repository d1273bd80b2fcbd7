"""How a lab poses its exercises, as data: the cell that is answered, what comes before it, what its check is given.

Taken from the course's own source alone. What a learner has written is parsed nowhere here but in `without_checks`,
which belongs where the answer runs: the parser of Python can be made to eat memory, and to crash.
"""

import ast
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from labkit.course.framework.exercise import Exercise
from labkit.course.lab import exercises_of
from labkit.course.source import lab_source


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

    def definitions_before(self) -> tuple[str, ...]:
        """What each of the cells before it imports and defines, as Python; "" where that is nothing."""
        return tuple(definitions(cell) for cell in self.cells_before)

    def to_json(self) -> dict[str, Any]:
        """As plain values: all that is needed to try an answer, but the answer."""
        return {
            "lab": self.written_in.stem.split("_")[0],
            "name": self.exercise.name,
            "title": self.exercise.title,
            "points": self.exercise.points,
            "before": list(self.definitions_before()),
            "arguments": list(self.arguments),
            "stub": self.stub,
            "needs": list(dict.fromkeys([*lab_source.needs(self.written_in), *self.needs])),
        }


def posed(number: str, exercise: str) -> Posed:
    """One exercise of a lab of the course. `SourceError`: the lab does not pose it."""
    for one in all_of(number):
        if one.exercise.name == exercise:
            return one
    raise lab_source.SourceError(f"lab {number} poses no exercise {exercise!r}")


def all_of(number: str) -> tuple[Posed, ...]:
    """Every exercise of a lab of the course, in its order; read again only where the lab's source has changed."""
    md = lab_source.path_of(number)
    return _all_of(md, md.stat().st_mtime_ns)


@lru_cache(maxsize=64)
def _all_of(md: Path, changed_ns: int) -> tuple[Posed, ...]:
    return tuple(all_posed(md, exercises_of(md.stem.split("_")[0])))


def all_posed(md: Path, exercises: list[type[Exercise]]) -> list[Posed]:
    """Every exercise of a lab. `SourceError`: one has no cell of its own, or is never checked."""
    cells = [cell for cell in lab_source.read(md) if cell.kind == "code"]
    checks = {name: arguments for cell in cells for name, arguments in _checks(cell.solved)}
    found = []
    for exercise in exercises:
        places = [index for index, cell in enumerate(cells) if cell.exercise == exercise.name]
        if len(places) != 1:
            raise lab_source.SourceError(f"{md}: {len(places)} cells with `:exercise: {exercise.name}`, expected one")
        if exercise.name not in checks:
            raise lab_source.SourceError(f"{md}: no cell calls lab.{exercise.name}.check(...)")
        before = tuple(cell.solved for cell in cells[: places[0]])
        cell = cells[places[0]]
        found.append(Posed(md, exercise, before, cell.solved, cell.learner, checks[exercise.name]))
    return found


def definitions(cell: str) -> str:
    """What a cell of the course imports and defines: functions, classes, and constants in capitals."""
    tree = _parse(cell)
    kept: list[ast.stmt] = []
    for node in tree.body if tree else ():
        match node:
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.ClassDef():
                kept.append(node)
            case ast.Assign(targets=[ast.Name(name)]) | ast.AnnAssign(target=ast.Name(name)) if name.isupper():
                kept.append(node)
    return ast.unparse(ast.Module(kept, []))


def without_checks(cell: str) -> str:
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
