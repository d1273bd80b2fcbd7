"""Whether the commands that a workflow or a page names exist."""

import re
import subprocess
import sys
from functools import cache

from labkit.course.commands import cli
from labkit.files import state_folder

CHECKOUT = state_folder.checkout()
EXPRESSION = re.compile(r"\$\{\{.*?\}\}")


@cache
def options_of(command: str) -> str:
    """What `./lab COMMAND --help` says."""
    argv = [sys.executable, "-P", "-m", "labkit.course.commands", command, "--help"]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True).stdout


def wrong_commands(script: str) -> list[str]:
    """The commands of this repository that a script calls and that do not exist, or not with these options."""
    wrong = []
    for line in script.splitlines():
        words = EXPRESSION.sub("X", line).split()
        for word in words:
            named = re.match(r"(\.ci|\.github|\.devcontainer)/[\w./-]+$", word)
            if named and not (CHECKOUT / word).exists():
                wrong.append(f"no file {word}")
        if "./lab" not in words:
            continue
        rest = words[words.index("./lab") + 1 :]
        command = rest.pop(0) if rest and not rest[0].startswith("-") else "open"
        if command not in {*cli.COMMANDS, "setup"}:
            wrong.append(f"no command ./lab {command}")
            continue
        ends = [number for number, word in enumerate(rest) if word in ("--", "&&", "||", "|", ";", ">>", ">")]
        rest = rest[: ends[0]] if ends else rest
        flags = {word.split("=")[0] for word in rest if word.startswith("--")}
        known = set() if command == "setup" else set(re.findall(r"--[\w-]+", options_of(command)))
        wrong += [f"no option {flag} of ./lab {command}" for flag in sorted(flags - known)]
    return wrong
