"""Why a process of a container could not be started, said to the caller."""

import errno

from labkit.container.config import Config, Process
from labkit.errors import ChildNotStarted, CommandNotFound, CommandNotRunnable, StartError
from labkit.launch.steps import CHANGING_DIRECTORY, EXECUTING

_MISSING = (errno.ENOENT, errno.ENOTDIR)
_NOT_RUNNABLE = (errno.EACCES, errno.ENOEXEC, errno.EISDIR, errno.EPERM)


def start_error(process: Process, failed: ChildNotStarted) -> StartError:
    """The error for a step that failed."""
    step, number, text, notes = failed.step, failed.number, failed.text, list(failed.notes)
    command = process.args[0]
    kind: type[StartError] = StartError
    if step == EXECUTING and number in _MISSING:
        kind, text = CommandNotFound, f"{command!r} was not found in the container"
        if "/" in command:
            notes.append("The file, or the interpreter or loader that its first bytes name, is not in the root.")
    elif step == EXECUTING and number in _NOT_RUNNABLE:
        kind = CommandNotRunnable
        text = f"{command!r} may not or cannot be executed in the container ({text})"
    elif step == CHANGING_DIRECTORY:
        text = f"the working directory {process.cwd} cannot be entered ({text})"
    else:
        what = "the container" if isinstance(process, Config) else "the process"
        text = f"{what} could not be started: {text}" + (f", at: {step}" if step else "")
    error = kind(text)
    for note in notes:
        error.add_note(note)
    return error


def most_telling(errnos: list[int]) -> int:
    """Of the errnos of several places tried, one where something was found tells more than a last ENOENT."""
    return next((number for number in errnos if number not in _MISSING), errnos[-1])
