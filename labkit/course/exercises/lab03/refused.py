"""What a filter on a program has refused: what the kernel answered to its calls, as seen by who traces it."""

import errno
import os
import pickle
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from labkit import procfs, ptrace, syscalls
from labkit.course.exercises.common.left_behind import loads_more
from labkit.course.framework.outcomes import NotYet

#: Tries to make a folder in both ways, twice: the second time without a name, which the kernel has another answer to
#: than a filter. Then a file; its exit code is `_DONE` and the errno of that.
MAKES = """
import os, sys
folder = sys.argv[1]
def attempt(make, *words, **named):
    try:
        make(*words, **named)
    except OSError as error:
        return error.errno
    return 0
here = os.open(folder, os.O_RDONLY)
attempt(os.mkdir, os.path.join(folder, "one"))
attempt(os.mkdir, "two", dir_fd=here)
attempt(os.mkdir, "")
attempt(os.mkdir, "", dir_fd=here)
sys.exit(100 + attempt(open, os.path.join(folder, "file"), "w"))
"""
_DONE = 100
_MAKING = ("mkdir", "mkdirat")


class Traced(NamedTuple):
    """What was seen of the process that called the learner's function, until it ended."""

    became: list[str]  #: the command line that it was given with the program that it has executed last; [] for none
    as_asked: bool  #: whether that program is the file that was asked for, and nothing is loaded besides
    answers: list[tuple[str, int]]  #: its calls that make a folder, since then: each with its result
    status: int  #: its exit code; -N: ended by signal N


def traced(call: bytes, program: str) -> tuple[list[str], bool, list[tuple[str, int]], int]:
    """In a child: a pickled (function, its arguments) in a process that is traced, and that is to execute `program`.

    The fields of a `Traced`.

    What a process shows of itself it may have written itself, but not at the stop after an execve: there the kernel has
    just laid down the command line, and no instruction of the new program has run.
    """
    asked = os.stat(program)  # before anything can be mounted over it
    pid = ptrace.start(lambda: call_apart(call), ptrace.TRACESYSGOOD)
    ptrace.resume(pid)
    became: list[str] = []
    as_asked = False
    answers: list[tuple[str, int]] = []
    making = ""
    for number, status in _stops(pid):
        if number == ptrace.SYSCALL_STOP:
            info = ptrace.syscall_info(pid)
            if making and isinstance(info, ptrace.Leaving):
                answers.append((making, info.result))
            name = ptrace.name(info.number) if isinstance(info, ptrace.Entering) else ""
            making = name if name in _MAKING else ""
        elif number == signal.SIGTRAP and ptrace.event(status) == ptrace.EVENT_EXEC:
            became, answers = procfs.cmdline(pid), []
            as_asked = os.path.samestat(os.stat(f"/proc/{pid}/exe"), asked) and not loads_more(pid)
    return became, as_asked, answers, os.waitstatus_to_exitcode(status)


def call_apart(call: bytes) -> None:
    """In a fork of one of our own processes: close what that one has open, its answer's way above all; then call."""
    syscalls.close_range(3)
    function, *arguments = pickle.loads(call)
    function(*arguments)


def _stops(pid: int) -> Iterator[tuple[int, int]]:
    """The signal and the status of each stop of `pid`, which goes on after each; at last 0 and that of its end."""
    while True:
        _, status = os.waitpid(pid, ptrace.WALL)
        if not os.WIFSTOPPED(status):
            yield 0, status
            return
        number = os.WSTOPSIG(status)
        yield number, status
        of_the_tracer = number == ptrace.SYSCALL_STOP or ptrace.event(status)
        with suppress(ProcessLookupError):  # it was killed while we looked
            ptrace.resume(pid, 0 if of_the_tracer else number)


def report_of(seen: Traced, command: list[str], made: list[str]) -> dict[str, int] | NotYet | None:
    """What the kernel answered to each of the calls of `command`; None: it has ended before it had made them all."""
    if seen.became != command or not seen.as_asked:
        if made or seen.became:
            return NotYet(
                "The command has run, and not in the process that called your function, or not as it was given.",
                "The process itself must become the command, with the filter on: `os.execvp(command[0], command)`.",
            )
        return None
    if len(seen.answers) != 4 or seen.answers[1][0] != "mkdirat" or seen.status < _DONE:
        return None
    one, two, *without_name = (-result for _, result in seen.answers)
    if one == two == errno.EPERM and without_name != [errno.EPERM, errno.EPERM]:
        return NotYet(
            "The command could not make a folder, and no filter has refused it.",
            "Was it refused by something else? Asked for is a filter: `seccomp.load`.",
        )
    return {"mkdir": one, "mkdirat": two, "others": seen.status - _DONE}


def no_report(seen: Traced) -> NotYet:
    if not seen.became:
        return NotYet(
            "Your function has returned, and the command never ran.",
            "The process itself must become the command, with the filter on: `os.execvp(command[0], command)`.",
        )
    if seen.status < 0:
        return NotYet(
            "The command was ended by a signal before it had tried everything.",
            "Some actions of a filter end the process (`KILL`, `TRAP`). Asked for is an error that the program sees.",
        )
    return NotYet(
        f"The command ended with exit code {seen.status}, before it had tried everything.",
        "Something that it needs was refused, too. What is the default action, and which calls does the rule name?",
    )


def refused_too_little(found: dict[str, int], made: list[str]) -> NotYet | None:
    if found["others"]:
        return NotYet(
            f"The command could not make a file either ({os.strerror(found['others'])}).",
            "Only the calls that make folders are to be refused. What does the rule name, and what is the default?",
        )
    open_ways = [way for way in ("mkdir", "mkdirat") if found[way] == 0]
    if len(open_ways) == 2:
        return NotYet(
            f"The command has made two folders: {', '.join(name for name in made if name != 'file')}.",
            "No filter was on it that refuses them. It must be loaded before `os.execvp`, in the same process.",
        )
    if open_ways:
        other = {"mkdir": "mkdirat", "mkdirat": "mkdir"}[open_ways[0]]
        return NotYet(
            f"`{other}` was refused, and by `{open_ways[0]}` the command has made its folder all the same.",
            "Two system calls make folders. A rule can name several.",
        )
    wrong = {found[way] for way in ("mkdir", "mkdirat")} - {errno.EPERM}
    if wrong:
        number = wrong.pop()
        return NotYet(
            f"The command was told {errno.errorcode.get(number, number)}: {os.strerror(number)}.",
            "Asked for is EPERM, “not permitted”. It is the third part of the rule.",
        )
    return None
