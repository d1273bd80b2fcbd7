"""What a failed cell shows: a box, a few lines, or what IPython shows by itself."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from labkit import syscalls
from labkit.course.framework import rendering, tracebacks
from labkit.course.lab import Lab
from labkit.errors import ChildDied, CommandNotFound, LabkitError, StartError, Unsupported


@pytest.fixture
def failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Run a cell that fails; return what is shown, without colours, and the exception."""
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    shell: Any = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))  # type: ignore[no-untyped-call]
    monkeypatch.setattr(rendering, "shell", lambda: shell)
    monkeypatch.setattr(rendering, "display", lambda plain, *_, **__: print(plain))
    lab = Lab("90")
    lab.predict("p", "What?", text=True).answer("this")
    shell.user_ns |= {"in_a_child": in_a_child, "syscalls": syscalls, "Unsupported": Unsupported}

    def run(cell: str) -> tuple[str, BaseException | None]:
        capsys.readouterr()
        result = shell.run_cell(cell)
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out), result.error_in_exec or result.error_before_exec

    yield run
    InteractiveShell.clear_instance()


def in_a_child(fn: Callable[[], object], frames: list[tuple[str, int, str]] | None = None) -> None:
    """Raise what `fn` raises, as `labkit.process` does it for a function in a child."""
    try:
        fn()
    except Exception as error:
        code = fn.__code__
        where = [(code.co_filename, code.co_firstlineno + 1, code.co_name)] if frames is None else frames
        error.__traceback__ = None
        error.child_frames = [*where, (syscalls.__file__, 10, "umount2")]  # type: ignore[attr-defined]
        error.add_note("In the child (process 123):\n  line 1 of f() in /somewhere")
        raise


def test_an_error_of_labkits_is_one_box(failed: Any) -> None:
    shown, error = failed("x = 1\nraise Unsupported('this machine has no such thing', 'sudo apt install thing')")
    assert shown.splitlines() == [
        "Unsupported: This machine has no such thing.",
        "What to do: sudo apt install thing",
        "Line 2 of the cell, `raise Unsupported('this machine has no such thing', 'sudo apt install thing')`.",
    ]
    assert isinstance(error, Unsupported), "to everybody but the eye the cell has failed as before"


def test_notes_and_what_to_do_are_in_the_box() -> None:
    error = CommandNotFound("'nope' was not found in the container")
    error.add_note("a note with <angles>")
    plain, html = tracebacks.as_box(error)
    assert plain.splitlines()[:2] == [
        "CommandNotFound: 'nope' was not found in the container.",
        "A note with <angles>.",
    ]
    assert "What to do: The name is looked for" in plain
    assert "A note with &lt;angles&gt;." in html
    assert "<b>That did not work</b> · CommandNotFound" in html
    assert "What to do" not in tracebacks.as_box(StartError("it could not be started"))[0]
    assert "must return" in tracebacks.as_box(ChildDied("process 5 was killed by SIGKILL"))[0]
    assert tracebacks.as_box(LabkitError("/proc is not mounted."))[0] == "LabkitError: /proc is not mounted."


@pytest.mark.parametrize("magic", ["", "%%observe p\n"])
def test_an_exception_in_a_child_is_shown_in_a_few_lines(failed: Any, magic: str) -> None:
    shown, error = failed(f"{magic}def f():\n    open('/nowhere')\n\nin_a_child(f)")
    text = shown[shown.index("FileNotFoundError") :]
    assert "In the child:\n  line 2 of f(): open('/nowhere')\n" in text
    assert "In the notebook:\n  line 4 of the cell: in_a_child(f)" in text
    assert "somewhere" not in text
    assert "run_cell_magic" not in text
    assert "umount2" not in text
    assert isinstance(error, FileNotFoundError)


def test_not_only_system_calls(failed: Any) -> None:
    shown, error = failed("def f():\n    return {}['a']\n\nin_a_child(f)")
    assert shown.startswith("KeyError: 'a'\n\nIn the child:\n  line 2 of f(): return {}['a']\n")
    assert isinstance(error, KeyError)


def test_a_system_call_refused_in_the_notebook(failed: Any) -> None:
    shown, error = failed("syscalls.setns(0)")
    assert re.match(r"OSError: .*setns\(0, 0\)\n", shown), shown
    assert shown.endswith("In the notebook:\n  line 1 of the cell: syscalls.setns(0)\n")
    assert isinstance(error, OSError)


def test_a_fault_of_ours_keeps_its_traceback(failed: Any) -> None:
    shown, _ = failed("in_a_child(lambda: 1 / 0, [])")
    assert "Traceback (most recent call last)" in shown


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("open('/nowhere')", "Traceback (most recent call last)"),
        ("1 / 0", "ZeroDivisionError"),
        ("x = (", "SyntaxError"),
        ("  x = 1\n y = 2", "IndentationError"),
        ("%%observe p\nx = (", "SyntaxError"),
        ("raise ExceptionGroup('several', [ValueError('one')])", ""),
    ],
)
def test_all_else_is_as_ipython_shows_it(failed: Any, cell: str, words: str) -> None:
    shown, error = failed(cell)
    assert words in shown
    assert "labkit" + os.sep not in shown
    assert "TB Handler failed" not in shown
    assert error is not None


def test_tb_shows_the_whole_traceback(failed: Any) -> None:
    failed("syscalls.setns(0)")
    shown, _ = failed("%tb")
    assert "syscalls.py" in shown


def test_outside_ipython_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "shell", lambda: None)
    tracebacks.register()
