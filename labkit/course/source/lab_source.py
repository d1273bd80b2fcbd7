"""The single source of a lab: a MyST notebook in `labs/source/`, with the solutions between markers.

In a code cell::

    def isolate(hostname: str) -> None:
        \"\"\"Give the calling process a hostname of its own.\"\"\"
        ### BEGIN SOLUTION
        unshare(CLONE_NEWUTS)
        sethostname(hostname)
        ### STUB
        #| ...  # your code here
        ### END SOLUTION

What stands between BEGIN and END is the solution. The learner's copy has the lines under `### STUB` instead (without
their `#| `), or `...  # your code here` where there are none. A line that ends in `### SOLVED ONLY` is in the solved
notebook alone. A cell with `:exercise: NAME` among its options is where exercise NAME is answered.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from labkit.course.needs import KNOWN
from labkit.files import state_folder

BEGIN, STUB, END, ONLY = "### BEGIN SOLUTION", "### STUB", "### END SOLUTION", "### SOLVED ONLY"
PYTHON_MAGICS = ("%%observe", "%%needs")  # what follows them in a cell is Python
_MARKER = re.compile(r"#{2,}\s*(BEGIN|END|STUB|SOLVED|SOLUTION)\b", re.IGNORECASE)
_UNCOMPARED = {"nbval-skip", "nbval-ignore-output", "skip-execution"}
_STUB_PREFIX = "#|"
_YOUR_CODE = "...  # your code here"


class SourceError(Exception):
    """A lab's source is not as it must be; says `file:line: what`."""


@dataclass(frozen=True)
class Cell:
    """One cell of a lab's source."""

    kind: str  #: "code" or "markdown"
    solved: str  #: its text in the solved notebook
    learner: str  #: its text in the learner's copy
    exercise: str | None  #: the exercise that is answered in it
    metadata: dict[str, Any]

    @property
    def has_solution(self) -> bool:
        """Whether the learner's copy lacks something of it."""
        return self.solved != self.learner


def folder() -> Path:
    """Where the sources of the course's labs lie."""
    return state_folder.checkout() / "labs" / "source"


def all_paths() -> list[Path]:
    """The sources of all labs, in the order of their numbers."""
    return sorted(folder().glob("[0-9][0-9]_*.md"))


def path_of(number: str) -> Path:
    """The source of lab `number`, such as "05"."""
    found = sorted(folder().glob(f"{number}_*.md"))
    if len(found) != 1:
        raise SourceError(f"{folder()}: {len(found)} sources of lab {number}, expected one")
    return found[0]


def title(path: Path) -> str:
    """A lab's title, its first heading, without its number."""
    found = re.search(r"^# (?:[0-9]+ )?(.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].strip() if found else path.stem


def needs(path: Path, key: str = "needs") -> tuple[str, ...]:
    """What a machine must have for the lab to be worth its while: `needs:` in the front matter, a list of words.

    `SourceError`: a word that `labkit.course.needs` does not know.
    """
    import jupytext

    found = jupytext.reads(path.read_text(encoding="utf-8"), fmt="md:myst").metadata.get(key, [])
    words = [found] if isinstance(found, str) else list(found)
    if unknown := [word for word in words if word not in KNOWN]:
        raise SourceError(f"{path}: {key} {unknown[0]!r}, which is none of: {', '.join(KNOWN)}")
    return tuple(words)


def needs_anywhere(path: Path) -> tuple[str, ...]:
    """What a machine must have to run every cell: `needs`, and `needs_in_part:`, a list of words of single cells."""
    return tuple(dict.fromkeys([*needs(path), *needs(path, "needs_in_part")]))


def read(path: Path) -> list[Cell]:
    """The cells of a lab's source. `SourceError`: a marker without its partner, a cell that is not Python, ..."""
    import jupytext

    text = path.read_text(encoding="utf-8")
    lines = _code_lines(path, text)
    notebook = jupytext.reads(text, fmt="md:myst")
    cells = []
    for cell in notebook.cells:
        metadata = dict(cell.metadata)
        exercise = metadata.pop("exercise", None)
        if cell.cell_type != "code":
            cells.append(Cell(cell.cell_type, cell.source, cell.source, None, metadata))
            continue
        line = next(lines, 1)
        if "NBVAL_" in cell.source or _UNCOMPARED & set(metadata.get("tags", ())):
            raise SourceError(f"{path}:{line}: a cell that asks not to be run or compared; print what is invariant")
        solved, learner = split(cell.source, f"{path}", line)
        for variant in (solved, learner):
            _must_compile(variant, path, line)
        cells.append(Cell("code", solved, learner, exercise, metadata))
    return cells


def _code_lines(path: Path, text: str) -> Iterator[int]:
    """The line numbers at which code cells' own text begins; also refuses markers outside of code cells."""
    fence: str | None = None
    head = yaml = False  # in a code cell before its text, and there between two lines of ---
    starts = []
    for number, line in enumerate(text.splitlines(), 1):
        if fence is None:
            if opened := re.match(r"(`{3,}|~{3,})(.*)", line):
                fence, head = opened[1], opened[2].startswith("{code-cell}")
            elif _MARKER.match(line.strip()):
                raise SourceError(f"{path}:{number}: a solution marker outside of a code cell")
        elif line.strip() == fence:
            if head:
                starts.append(number)  # a cell without text
            fence, head = None, False
        elif head and line.strip() == "---":
            yaml = not yaml
        elif head and line.strip() and not yaml and not re.match(r":[\w-]+:", line):
            starts.append(number)
            head = False
    return iter(starts)


def split(text: str, file: str = "cell", first_line: int = 1) -> tuple[str, str]:
    """The text of a cell as (solved, learner's). `SourceError` names the file and line of a marker that is wrong."""
    solved: list[str] = []
    learner: list[str] = []
    stub: list[str] | None = None  # the stub's lines, while in a solution
    in_stub, opened = False, (0, "")

    def wrong(number: int, what: str) -> SourceError:
        return SourceError(f"{file}:{number}: {what}")

    for number, line in enumerate(text.split("\n"), first_line):
        bare, indent = line.strip(), line[: len(line) - len(line.lstrip())]
        if bare == BEGIN:
            if stub is not None:
                raise wrong(number, f"{BEGIN} inside the solution that begins in line {opened[0]}")
            stub, in_stub, opened = [], False, (number, indent)
        elif bare in (STUB, END):
            if stub is None:
                raise wrong(number, f"{bare} without {BEGIN}")
            if indent != opened[1]:
                raise wrong(number, f"{bare} is not indented as its {BEGIN} in line {opened[0]}")
            if bare == STUB:
                if in_stub:
                    raise wrong(number, f"a second {STUB} in one solution")
                in_stub = True
            else:
                learner += stub if in_stub else [indent + _YOUR_CODE]
                stub = None
        elif bare.endswith(ONLY):
            solved.append(line.rstrip()[: -len(ONLY)].rstrip())
        elif _MARKER.search(line):
            raise wrong(number, f"not a marker: {bare!r}; there are {BEGIN}, {STUB}, {END} and {ONLY}")
        elif stub is None:
            solved.append(line)
            learner.append(line)
        elif in_stub:
            if not bare.startswith(_STUB_PREFIX):
                raise wrong(number, f"a line under {STUB} must begin with {_STUB_PREFIX!r}")
            stub.append((indent + bare[len(_STUB_PREFIX) :].removeprefix(" ")).rstrip())
        else:
            solved.append(line)
    if stub is not None:
        raise wrong(opened[0], f"{BEGIN} without {END}")
    return "\n".join(solved).strip("\n"), "\n".join(learner).strip("\n")


def _must_compile(text: str, path: Path, line: int) -> None:
    if text.lstrip().startswith("%%") and not text.lstrip().startswith(PYTHON_MAGICS):
        return
    lines = text.split("\n")
    python = "\n".join("pass" if re.match(r"\s*[%!]", one) else one for one in lines)
    try:
        compile(python, str(path), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        raise SourceError(f"{path}:{line + (error.lineno or 1) - 1}: {error.msg}") from None


def read_cached(path: Path) -> tuple[Cell, ...]:
    """As `read`; once for as long as the file is not changed."""
    return _read_once(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _read_once(path: Path, changed_ns: int) -> tuple[Cell, ...]:
    return tuple(read(path))


def solution(path: Path, exercise: str) -> str:
    """The solved text of the cell in which `exercise` is answered. `SourceError`: there is none, or several."""
    cells = read_cached(path)
    found = [cell for cell in cells if cell.exercise == exercise]
    if len(found) != 1:
        raise SourceError(f"{path}: {len(found)} cells with `:exercise: {exercise}`, expected one")
    return found[0].solved
