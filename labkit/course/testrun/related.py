"""Which tests go with a file that was changed."""

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from labkit.course.testrun import jobs
from labkit.course.testrun.jobs import Job
from labkit.course.testrun.lanes import PROGRAMS


def jobs_of(files: Sequence[str], checkout: Path) -> list[Job]:
    """The jobs for these files, which are paths or pytest's names: tests themselves; of others, the tests that import
    their room or bear their name; for Python and shell files the lane lint besides."""
    names = [_relative(file, checkout) for file in files]
    tests = [name for name in names if name.startswith("tests/") and "/test_" in name]
    wanted: set[str] = set()
    for name in names:
        if name not in tests:
            wanted.update(_tests_of(name, checkout))
    found = jobs.of_tests(tests) + jobs.of_files(sorted(wanted))
    return (jobs.of_lane(PROGRAMS[0], checkout) if wanted else []) + found


def _relative(file: str, checkout: Path) -> str:
    path, mark, test = file.partition("::")
    absolute = (checkout / path) if (checkout / path).exists() else Path(path).absolute()
    try:
        return f"{absolute.resolve().relative_to(checkout.resolve())}{mark}{test}"
    except ValueError:
        raise ValueError(f"'{file}' does not lie in this checkout.") from None


def _tests_of(file: str, checkout: Path) -> Iterator[str]:
    """The files of tests, as `lane/test_name.py`, that go with one file."""
    path = Path(file)
    module = ".".join(path.with_suffix("").parts).removesuffix(".__init__") if path.suffix == ".py" else ""
    room = module.rpartition(".")[0] if module.count(".") > 1 else module
    # A file may be called what many are (`exercises.py`): then its folder says what it is about.
    words = {path.stem.partition("_")[0]} if path.parts[0] == "labs" else {path.stem, path.parent.name}
    for test in sorted((checkout / "tests").rglob("test_*.py")):
        imported = _imports(test)
        for helper in [name for name in imported if name.startswith("tests.")]:
            source = checkout / f"{helper.replace('.', '/')}.py"
            imported = imported | _imports(source) if source.is_file() else imported
        touches = any(name in (module, room) or name.startswith(f"{module}.") for name in imported)
        if (module and touches) or any(len(word) > 1 and word in test.stem for word in words):
            yield str(test.relative_to(checkout / "tests"))


@cache
def _imports(path: Path) -> frozenset[str]:
    """The modules that a file imports, by their dotted names; of `from x import y` both x and x.y."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    return frozenset(found)
