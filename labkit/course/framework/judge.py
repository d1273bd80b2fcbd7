"""Run one check and say how it went, whatever the learner's code does in it.

An endless loop ends at the time limit, an exception becomes "not yet" with its explanation, a fault in the check itself
is said to be the course's. What the learner's function left running on the lab host is ended.
"""

import linecache
import os
import select
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FunctionType
from typing import Any

from labkit import syscalls
from labkit.course.framework import pace, time_limit
from labkit.course.framework.exercise import Exercise
from labkit.course.framework.outcomes import NotAttempted, NotChecked, NotYet, Outcome, Passed
from labkit.course.framework.stub import is_placeholder, is_stub
from labkit.errors import ChildDied, Unsupported

_one_at_a_time = threading.Lock()
_NOTICEABLY = 1.5  # times slower than an idle machine: then it is said


def judge(exercise: type[Exercise], *answers: Any) -> Outcome:
    """Check `answers` and return the outcome. Shows and records nothing. KeyboardInterrupt goes through."""
    if untouched := _untouched(exercise, answers):
        return untouched
    factor = 1.0
    with _one_at_a_time, _nothing_left():
        try:
            with pace.measured() as factor, time_limit.of(exercise.seconds * factor, answers) as limit:
                verdict: object = exercise().check(*answers)
        except time_limit.TimeUp:
            return _too_long(exercise, answers, factor, limit.began)
        except Unsupported as error:
            return NotChecked(f"This machine cannot run the check: {error}")
        except Exception as error:
            return _explain(error, exercise, answers)
    if isinstance(verdict, NotYet) and not exercise.in_room:
        return replace(verdict, share=0.0)  # it is for grading: while one tries, it would tell each right entry
    if isinstance(verdict, Passed | NotYet | NotAttempted):
        return verdict
    return _our_fault(exercise, f"the check returned {verdict!r}")


def _untouched(exercise: type[Exercise], answers: tuple[Any, ...]) -> NotAttempted | None:
    if not exercise.skip_stubs:
        return None
    for answer in answers:
        if is_stub(answer):
            return NotAttempted(
                f"`{getattr(answer, '__name__', 'The function')}()` is still the empty stub. {_begin(exercise)}".strip()
            )
        if is_placeholder(answer):
            return NotAttempted(f"There is nothing to check yet. {_begin(exercise)}".strip())
    return None


def _begin(exercise: type[Exercise]) -> str:
    return exercise.start or "Write its body, run its cell, and check again. `.hint()` says where to begin."


def _named(answers: tuple[Any, ...]) -> str:
    functions = [one for one in answers if isinstance(one, FunctionType) or hasattr(one, "stands_for_stub")]
    return f"`{functions[0].__name__}()`" if len(functions) == 1 else "Your code"


def _too_long(exercise: type[Exercise], answers: tuple[Any, ...], factor: float, began: bool) -> Outcome:
    slow = ""
    if factor >= _NOTICEABLY:
        slow = f" That is {factor:.1f} times the usual limit, since this machine is slow at the moment."
    if not began:
        seconds = time_limit.setup_seconds(exercise.seconds * factor)
        return NotChecked(
            f"The check had not come to {_named(answers)} after {seconds:.0f} seconds: this machine is too slow at the "
            "moment. Close what else runs on it, then check again."
        )
    return NotYet(
        f"{_named(answers)} had not returned after {exercise.seconds * factor:.3g} seconds, so it was stopped.{slow}",
        "It must do its work and return. Is there a loop without an end, a wait for something that never comes, or a "
        "read from something that nobody writes to?",
    )


def _our_fault(exercise: type[Exercise], what: str) -> NotChecked:
    return NotChecked(
        f"The check of `{exercise.name}` broke: {what}. That is a fault of the course, not of your code, and "
        "nothing was recorded. Please report it with this text."
    )


def _explain(error: Exception, exercise: type[Exercise], answers: tuple[Any, ...]) -> Outcome:
    """Whose exception is this? The learner's if their code was running, here or in a child."""
    notes: list[str] = list(getattr(error, "__notes__", []))
    # What is noted may tell what the function was given: the learner's code has written it, or the kernel.
    causes = [] if exercise.is_hidden else [note for note in notes if not note.startswith("In the child")]
    line = _learners_line(error, answers)
    if isinstance(error, ChildDied):
        return NotYet(
            f"{_named(answers)} did not return: {error}.",
            "The function runs in a child process that the check looks at afterwards, so it must return: it must not "
            "call os._exit, kill itself, or end by a signal.",
        )
    if line is None:
        return _our_fault(exercise, _one_line(error) + _where(error))
    if isinstance(error, NotImplementedError):
        return NotAttempted(f"{_named(answers)} still says that it is not implemented. {_begin(exercise)}")
    return NotYet(
        f"{_named(answers)} raised {_one_line(error)}, at {line}.",
        "\n\n".join(causes) or "An exception ended the function before it had done its work.",
    )


def _one_line(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""


def _learners_line(error: Exception, answers: tuple[Any, ...]) -> str | None:
    """The line of the learner's code at which `error` arose, as words; None where none of it was running."""
    files = {code.co_filename for code in time_limit.codes_of(answers)}
    files |= {one.written_in for one in answers if hasattr(one, "stands_for_stub")}
    here = [(frame.filename, frame.lineno or 0) for frame in traceback.extract_tb(error.__traceback__)]
    in_child = [(file, line) for file, line, _ in getattr(error, "child_frames", [])]
    theirs = [(file, line) for file, line in (*here, *in_child) if file in files]
    if not theirs:
        return None
    file, line = theirs[-1]
    source = linecache.getline(file, line).strip()
    return f"line {line} (`{source}`)" if source else f"line {line}"


@contextmanager
def _nothing_left() -> Iterator[None]:
    """End what the body has started on the lab host and not ended: daemons of the learner's, children of a check."""
    before = time_limit.on_the_lab_host()
    try:
        yield
    finally:
        for _ in range(5):  # a process killed may have been about to fork
            left = time_limit.on_the_lab_host() - before
            if not left:
                break
            _wait_for_end(left)


def _wait_for_end(pids: set[int]) -> None:
    pidfds = []
    for pid in pids:
        with suppress(ProcessLookupError):
            pidfds.append(syscalls.pidfd_open(pid))
    time_limit.kill(pids)
    try:
        poll = select.poll()
        for pidfd in pidfds:
            poll.register(pidfd, select.POLLIN)
        waiting = len(pidfds)
        while waiting and (ended := poll.poll(1000)):
            for pidfd, _ in ended:
                poll.unregister(pidfd)
            waiting -= len(ended)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)
