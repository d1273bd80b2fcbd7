"""What a filter on a program has refused, told by that program, and by what it could make."""

import errno
import os
import time
from contextlib import suppress

from labkit.lab import NotYet
from labkit.process import Child

#: Tries to make a folder in both ways, and a file; tells in a file what became of it.
MAKES = """
import json, os, sys
folder, report = sys.argv[1:3]
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
with open(report, "w") as file: json.dump(found, file)
"""


def became_and_ended(child: Child, seconds: float) -> bool:
    """Wait until `child` has ended, which may have become another program meanwhile, or its function has returned."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if child.answered(0.02):
            return True
        with suppress(TimeoutError):
            child.wait(timeout=0.02)
    return False


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
