"""The commands of `./lab` and of `labkit`. Each command's module is imported only when it is called."""

import importlib
import os
import sys
from collections.abc import Sequence

from labkit import arguments

# command: (module, function, one line)
COMMANDS = {
    "open": ("labkit.course.commands.jupyter", "main", "open the course in JupyterLab"),
    "doctor": ("labkit.course.doctor.doctor", "main", "what this machine can do, and how to mend the rest"),
    "service": ("labkit.course.commands.service", "main", "run the course as a service of yours, from boot on"),
    "reset": ("labkit.course.commands.reset", "main", "end everything the labs left running"),
    "test": ("labkit.course.testrun.command", "main", "run every test"),
    "bench": ("labkit.course.commands.cli", "bench", "times, rates and memory beside crun, runc and bubblewrap"),
    "vm": ("labkit.vm", "main", "run a command, or the labs, in a small virtual machine"),
    "grade": ("labkit.course.grading.cli", "main", "grade notebooks that were handed in, in containers"),
    "release": ("labkit.course.authoring.release", "main", "make the notebooks anew from their sources"),
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
    from labkit.errors import LabkitError
    from labkit.files import state_folder

    if not (state_folder.checkout() / "labs").is_dir():
        print("lab: this works from a checkout of the course: git clone it, then ./lab in it.", file=sys.stderr)
        return 1
    if name in NEEDS_GROUPS:
        from labkit.course.commands import systemd_scope

        systemd_scope.enter()
    module, function, _ = COMMANDS[name]
    if name == "vm" and rest[:1] == ["--labs"]:
        module, rest = "labkit.course.commands.open_in_vm", rest[1:]
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
    from labkit.files import state_folder

    os.chdir(state_folder.checkout())
    os.execv(sys.executable, [sys.executable, "-m", "bench", *argv])
