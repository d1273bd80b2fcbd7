"""A learner's answer as the judge holds it: never executed in the judge's own process.

What the learner wrote is text. A child on the lab host executes it, below what the lab's earlier cells define, and says
what came of it: plain values come back as they are, everything else (functions above all) as a `Submitted`, which
stands for it. A check hands that on as if it were the function: in the child that gets it, it is one; called in the
judge, it is called in a child.
"""

import ast
import inspect
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labkit import syscalls
from labkit.constants import PR_SET_DUMPABLE
from labkit.course.exercise_spec import without_checks
from labkit.course.framework.stub import is_placeholder, is_stub
from labkit.course.grading.ipython_cells import Absent, python
from labkit.process import run_in_child, worker

_PLAIN = (str, bytes, int, float, bool, type(None), type(...))
_DEPTH = 20


@dataclass(frozen=True)
class Written:
    """The texts that make an answer: of the cells before it, the learner's own, and the arguments of its check."""

    name: str  #: of the exercise
    before: tuple[str, ...]
    answer: str
    arguments: tuple[str, ...]

    @property
    def file(self) -> str:
        """What the learner's text is called in tracebacks."""
        return f"<{self.name}>"


class Submitted:
    """One thing that the learner has handed in, as it is known outside of the processes in which it exists."""

    def __init__(self, written: Written, number: int, name: str, stub: bool) -> None:
        self._written, self._number = written, number
        self.__name__ = name
        self.stands_for_stub = stub
        self.written_in = written.file

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return run_in_child(self, *args, **kwargs)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _made, (self._written, self._number)

    def __repr__(self) -> str:
        return f"<{self.__name__} of the submission>"


def answers(written: Written) -> list[Any]:
    """What the check is to be given. Raises what the learner's text raised when it was executed in the child."""
    linecache.cache[written.file] = (len(written.answer), None, written.answer.splitlines(keepends=True), written.file)
    found = []
    for number, (kind, value, stub) in enumerate(run_in_child(_described, written)):
        if kind == "plain":
            found.append(value)
        else:
            found.append(Submitted(written, number, f"{value}"[:80], bool(stub)))
    return found


# In a child

_here: dict[Written, list[Any]] = {}


def _made(written: Written, number: int) -> Any:
    syscalls.prctl(PR_SET_DUMPABLE, 1)  # a closed child (`process.spawn_closed`) is nobody's helper from here on
    return _all(written)[number]


def _described(written: Written) -> list[tuple[str, Any, bool]]:
    found: list[tuple[str, Any, bool]] = []
    for argument, value in zip(written.arguments, _all(written), strict=True):
        if is_placeholder(value):
            found.append(("plain", None, True))
        elif _is_plain(value):
            found.append(("plain", value, False))
        else:
            name = getattr(value, "__name__", argument)
            found.append(("made", name if isinstance(name, str) else argument, is_stub(value)))
    return found


def _is_plain(value: Any, depth: int = 0) -> bool:
    if type(value) in _PLAIN:
        return True
    if depth > _DEPTH:
        return False
    if type(value) in (list, tuple, set, frozenset):
        return all(_is_plain(one, depth + 1) for one in value)
    return type(value) is dict and all(_is_plain(one, depth + 1) for pair in value.items() for one in pair)


def _all(written: Written) -> list[Any]:
    if written not in _here:
        worker.open_imports()  # nobody's helper from here on
        namespace: dict[str, Any] = {"__name__": "__main__", "get_ipython": Absent}
        for number, text in enumerate(written.before):
            exec(compile(text, f"<cell {number} of the lab>", "exec"), namespace)
        _execute(without_checks(python(written.answer)), written.file, namespace)
        _here[written] = [eval(argument, namespace) for argument in written.arguments]
    return _here[written]


def _execute(text: str, file: str, namespace: dict[str, Any]) -> None:
    """As IPython does: a cell may await something."""
    code = compile(text, file, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    coroutine = eval(code, namespace)
    if inspect.iscoroutine(coroutine):
        import asyncio

        asyncio.run(coroutine)
