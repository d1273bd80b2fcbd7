"""What a learner is shown when a cell fails: what they can mend, and where; not how labkit works inside.

An error of labkit's own (`labkit.errors.LabkitError`) becomes one box: the sentence, its notes, what to do. An
exception of the learner's code in a child, and a system call that the kernel refused, stay exceptions, shown in a few
lines: the error, the likely cause, and the lines that the learner wrote. Every other exception is shown as IPython
shows it, and `%tb` shows the whole traceback of each.
"""

import linecache
import os
import re
import sys
import sysconfig
import textwrap
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from labkit.course.framework import rendering
from labkit.errors import ChildDied, ChildNotStarted, CommandNotFound, InvalidConfig, LabkitError, Unsupported
from labkit.explain import cgroup

_LABKIT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_SYSCALLS = os.path.join(_LABKIT, "syscalls.py")
_LIBRARIES = tuple(
    os.path.join(path, "") for name, path in sysconfig.get_paths().items() if name in ("stdlib", "purelib", "platlib")
)
_COLUMNS = 100
_RED, _PLAIN = "\x1b[31m", "\x1b[39m"  # as IPython colours an exception's name; JupyterLab's themes have their own red

# What to do, for errors that do not say so themselves; the first kind that fits counts.
_TO_DO: tuple[tuple[type[LabkitError], str], ...] = (
    (InvalidConfig, "Nothing was started. Correct it, and run the cell again."),
    (CommandNotFound, "The name is looked for in the container's own root, not on this machine. Is it there?"),
    (
        ChildDied,
        "A function in a child must return. `os._exit`, a signal or the end of the lab host ends it before that.",
    ),
    (ChildNotStarted, "Run the cell again; if that does not help, `host.reset()` makes a new lab host."),
)


def register() -> None:
    """Have the running IPython show failures so; nothing in plain Python. Again is harmless."""
    shell = rendering.shell()
    if shell is not None:
        shell.set_custom_exc((Exception,), _shown)


def _shown(
    shell: Any, kind: type[Exception], error: Exception, frames: TracebackType | None, tb_offset: int | None = None
) -> None:
    """What IPython calls when a cell has raised."""
    if traceback.extract_tb(frames)[-1].name == "ast_parse":
        # The cell, or that of an `%%observe`, could not be compiled: shown as IPython does by itself.
        shell.showindentationerror() if isinstance(error, IndentationError) else shell.showsyntaxerror()
        return
    if isinstance(error, OSError):
        cgroup.annotate(error)
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, frames  # what `%tb` and `%debug` look at
    if isinstance(error, LabkitError):
        plain, html = as_box(error)
        rendering.display(plain, html)
        shell._last_traceback = [plain]  # what the kernel answers to whoever asked for the cell to be run
    elif is_learners(error):
        shell._showtraceback(kind, error, as_lines(error))
    else:
        shell.showtraceback((kind, error, frames), tb_offset=tb_offset, running_compiled_code=True)


def as_box(error: LabkitError) -> tuple[str, str]:
    """An error of labkit's as text and as HTML."""
    name = type(error).__name__
    said = _sentence(error.what if isinstance(error, Unsupported) else str(error))
    notes = [_sentence(note) for note in _causes(error)]
    to_do = error.mend if isinstance(error, Unsupported) else _to_do(error)
    # The innermost of the lines that the learner wrote.
    places = _in_child(error) or _here(error)
    where = f"Line {places[-1][0]} of {_described(places[-1])}." if places else ""
    plain = [f"{name}: {said}", *notes]
    plain += [f"What to do: {to_do}"] if to_do else []
    plain += [where] if where else []
    parts = [rendering.inline(said), *(rendering.inline(note) for note in notes)]
    parts += [rendering.labelled("What to do", to_do), rendering.labelled("Where", where)]
    return "\n".join(plain), rendering.box("failed", name, *parts)


def is_learners(error: Exception) -> bool:
    """Whether a few lines say it all: it is of the learner's code in a child, or a system call that was refused."""
    if isinstance(error, ExceptionGroup | SyntaxError):
        return False
    if hasattr(error, "child_frames"):
        return isinstance(error, OSError) or bool(_in_child(error))
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, OSError) and bool(frames) and frames[-1].filename == _SYSCALLS


def as_lines(error: Exception) -> list[str]:
    """An exception of the learner's as lines: the error, the likely cause, their code where it arose."""
    name, text = type(error).__name__, str(error)
    lines = [f"{_RED}{name}{_PLAIN}: {text}" if text else f"{_RED}{name}{_PLAIN}"]
    # JupyterLab would break an exception's long lines in the middle of a word.
    lines += [textwrap.fill(cause, _COLUMNS, break_long_words=False) for cause in _causes(error)]
    for heading, places in (("In the child:", _in_child(error)), ("In the notebook:", _here(error))):
        if places:
            lines += ["", heading]
        for number, function, source in places:
            lines.append(f"  line {number} of {function}" + (f": {source}" if source else ""))
    return lines


def _causes(error: Exception) -> list[str]:
    """Its notes, without the one that lists all frames of the child."""
    return [note for note in getattr(error, "__notes__", ()) if not note.startswith("In the child (")]


def _to_do(error: LabkitError) -> str:
    return next((text for kind, text in _TO_DO if isinstance(error, kind)), "")


def _in_child(error: Exception) -> list[tuple[int, str, str]]:
    return list(_learners(getattr(error, "child_frames", ())))


def _here(error: Exception) -> list[tuple[int, str, str]]:
    frames = traceback.extract_tb(error.__traceback__)
    return list(_learners((frame.filename, frame.lineno or 0, frame.name) for frame in frames))


def _learners(frames: Any) -> Iterator[tuple[int, str, str]]:
    """Of (file, line, function), the frames of code that the learner wrote, as (line, `function()`, source)."""
    for file, line, function in frames:
        made = file == "<string>" or file.startswith("<frozen ")  # a dataclass's methods, the import system
        if made or "-packages" + os.sep in file or os.path.abspath(file).startswith((_LABKIT, *_LIBRARIES)):
            continue
        source = linecache.getline(file, line).strip()
        if not source.startswith("get_ipython().run_cell_magic("):  # an `%%observe` cell: its own lines follow
            called = "the cell" if function.startswith(("<module", "<cell line")) else f"{function}()"
            yield line, called, source


def _described(place: tuple[int, str, str]) -> str:
    _, function, source = place
    return f"{function}, `{source}`" if source else function


def _sentence(text: str) -> str:
    """An error's text as a sentence: with a capital, unless it begins with a name, and with a full stop."""
    if re.match(r"[a-z]+ ", text):
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "?", "!", ":")) or not text else f"{text}."
