"""The commands of `./lab` and of `labkit`. Each command's module is imported only when it is called."""

import importlib
import os
import sys
from collections.abc import Sequence

from labkit import arguments

# command: (module, function, one line)
COMMANDS = {
    "open": ("labkit.lab.serve", "main", "open the course in JupyterLab"),
    "doctor": ("labkit.lab.doctor", "main", "what this machine can do, and how to mend the rest"),
    "service": ("labkit.lab.service", "main", "run the course as a service of yours, from boot on"),
    "reset": ("labkit.lab.reset", "main", "end everything the labs left running"),
    "test": ("labkit.lab.testrun.command", "main", "run every test"),
    "bench": ("labkit.lab.cli", "bench", "times, rates and memory beside crun, runc and bubblewrap"),
    "vm": ("labkit.vm", "main", "run a command, or the labs, in a small virtual machine"),
    "grade": ("labkit.lab.grading.command", "main", "grade notebooks that were handed in, in containers"),
    "release": ("labkit.lab.notebooks.release", "main", "make the notebooks anew from their sources"),
}
NEEDS_GROUPS = ("doctor", "test", "bench", "grade")  # `open` sees to it by itself


def usage() -> str:
    lines = [f"  {name:<9} {summary}" for name, (_, _, summary) in COMMANDS.items()]
    return "Usage: labkit COMMAND [...]\n\n" + "\n".join(lines) + "\n\nlabkit COMMAND --help says more."


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. No traceback reaches the user for what they can mend themselves."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    name, *rest = words
    if name not in COMMANDS:
        print(f"lab: {arguments.unknown(name, COMMANDS)} (./lab --help lists the commands)", file=sys.stderr)
        return 2
    from labkit import paths
    from labkit.errors import LabkitError

    if not (paths.checkout() / "labs").is_dir():
        print("lab: this works from a checkout of the course: git clone it, then ./lab in it.", file=sys.stderr)
        return 1
    if name in NEEDS_GROUPS:
        from labkit.lab import scope

        scope.enter()
    module, function, _ = COMMANDS[name]
    if name == "vm" and rest[:1] == ["--labs"]:
        module, rest = "labkit.lab.invm", rest[1:]
    try:
        code = int(getattr(importlib.import_module(module), function)(rest) or 0)
        sys.stdout.flush()
        return code
    except LabkitError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has gone
        _drop_stdout()
        return 0
    except OSError as error:
        _drop_stdout()
        what = f" ({error.filename})" if error.filename else ""
        print(f"lab: {error.strerror or error}{what}.", file=sys.stderr)
        return 1


def _drop_stdout() -> None:
    """What is still to be written to standard output is dropped, or Python would try once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def bench(argv: Sequence[str]) -> int:
    """Hands over to the benchmarks, which lie in the checkout, beside the package."""
    from labkit import paths

    os.chdir(paths.checkout())
    os.execv(sys.executable, [sys.executable, "-m", "bench", *argv])
