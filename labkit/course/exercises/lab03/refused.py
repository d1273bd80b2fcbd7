"""What a filter on a program has refused, told by that program, and by what it could make."""

import errno
import json
import os
import time
from contextlib import suppress

from labkit import procfs
from labkit.course.exercises.common.left_behind import Ear
from labkit.course.framework import pace
from labkit.course.framework.outcomes import NotYet
from labkit.process import Child

#: Tries to make a folder in both ways, and a file; tells an `outside.Ear` what became of it, and waits to be looked at.
MAKES = """
import json, os, signal, socket, sys
folder, ear = sys.argv[1:3]
def attempt(make, *words, **named):
    try:
        make(*words, **named)
    except OSError as error:
        return error.errno
    return 0
here = os.open(folder, os.O_RDONLY)
found = {"mkdir": attempt(os.mkdir, os.path.join(folder, "one")),
    "mkdirat": attempt(os.mkdir, "two", dir_fd=here),
    "others": attempt(open, os.path.join(folder, "file"), "w")}
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(json.dumps(found).encode(), chr(0) + ear)
signal.pause()
"""


def report_of(child: Child, command: list[str], ear: Ear, seconds: float) -> dict[str, int] | NotYet | None:
    """What `command` has told, which `child` was to become; None: it has ended, or its function has returned, without.

    It counts only where that very process has told it, with the program and the filter on it at that moment.
    """
    deadline = time.monotonic() + pace.scaled(seconds)
    while time.monotonic() < deadline:
        gone = child.answered(0.02)
        with suppress(TimeoutError):
            child.wait(timeout=0.02)
        if said := ear.heard():
            return _believed(child, command, *said)
        if gone:
            return None
    late = f"The command had not ended after {pace.scaled(seconds):.3g} seconds."
    return NotYet(late, "Does it run at all, or wait?")


def _believed(child: Child, command: list[str], words: bytes, by: int) -> dict[str, int] | NotYet:
    if by != child.pid or not child.alive or procfs.cmdline(child.pid) != command:
        return NotYet(
            "The command has run, and not in the process that called your function.",
            "The process itself must become the command, with the filter on: `os.execvp(command[0], command)`.",
        )
    try:
        found = json.loads(words)
        report = {name: int(found[name]) for name in ("mkdir", "mkdirat", "others")}
    except (ValueError, KeyError, TypeError):
        return NotYet("The command has told nothing that it would tell.", "Is it the command that was given?")
    if procfs.status(child.pid)["Seccomp"] != "2" and report["mkdir"] and report["mkdirat"]:
        return NotYet(
            "The command could not make a folder, and there is no filter on it (Seccomp: 0).",
            "Was it refused by something else? Asked for is a filter: `seccomp.load`.",
        )
    return report


def no_report(returned: bool, status: int | None) -> NotYet:
    if returned:
        return NotYet(
            "Your function has returned, and the command never ran.",
            "The process itself must become the command, with the filter on: `os.execvp(command[0], command)`.",
        )
    if status is not None and (status < 0 or status > 128):
        return NotYet(
            "The command was ended by a signal before it could report.",
            "Some actions of a filter end the process (`KILL`, `TRAP`). Asked for is an error that the program sees.",
        )
    return NotYet(
        f"The command ended with exit code {status}, and without its report.",
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
