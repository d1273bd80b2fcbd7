"""The command line: `python -m labkit.vm [OPTIONS] [-- COMMAND ARGUMENT...]`; without a command, a shell."""

import argparse
import contextlib
import getpass
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType

from labkit.arguments import Parser
from labkit.errors import LabkitError
from labkit.vm import trial
from labkit.vm.boot import TimedOut
from labkit.vm.run_command import KINDS, kinds, run

EXIT_TIMED_OUT = 124  # as timeout(1)
EXIT_NO_MACHINE = 125  # as env(1) and docker-run(1): the command was never run


def parser() -> Parser:
    options = Parser(
        prog="lab vm",
        description="Run a command in a virtual machine that has this machine's own files. What it changes there is "
        "forgotten when it ends, except in folders given with --writable.",
        epilog="The exit code is the command's (128 + n if signal n ended it), 124 if its time ran out, 125 if the "
        "machine could not be started. Where a system lets you make no namespaces, a program that sets out to "
        "can write to your files from a uml machine: run none there that you do not trust.",
    )
    options.add_argument(
        "--kind", choices=list(KINDS), help="the kind of machine; the first that can run here if not given"
    )
    options.add_argument("--memory", type=int, default=1024, metavar="MIB", help="memory of the machine (1024)")
    options.add_argument("--timeout", type=float, metavar="SECONDS", help="end the command after that time")
    options.add_argument(
        "--writable", action="append", default=[], metavar="FOLDER", help="keep changes to this folder"
    )
    options.add_argument("--forward", action="append", default=[], type=_ports, metavar="HOST:GUEST",
                         help="let 127.0.0.1:HOST reach port GUEST in the machine")  # fmt: skip
    options.add_argument("--user", nargs="?", const="", metavar="NAME", help="run as this user (yourself), not as root")
    options.add_argument("--cwd", metavar="FOLDER", help="the folder to run in (the current one)")
    options.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="set an environment variable")
    options.add_argument("--list", action="store_true", help="say which kinds of machine can run here, and end")
    options.add_argument("command", nargs="*", metavar="COMMAND", help="the command and its arguments (a shell)")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lab vm` with these arguments; returns the exit code."""
    options = parser().parse_args(argv)
    if options.list:
        for name, lack in kinds().items():
            boots = f"can run here: it booted in {trial.of(KINDS[name]).seconds:.0f} s" if lack is None else lack
            print(f"{name:6} {boots}")
        return 0
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with _sigterm_raises(), _raw(terminal):
        try:
            return run(
                options.command or ["/bin/sh"],
                kind=options.kind,
                cwd=options.cwd,
                env=dict(_variable(text) for text in options.env),
                user=_user(options.user),
                memory_mib=options.memory,
                timeout=options.timeout,
                writable=options.writable,
                forward=options.forward,
                stdin=sys.stdin.fileno(),
                terminal=terminal,
            ).exit_code
        except LabkitError as error:
            print(f"lab vm: {error}", file=sys.stderr, end="\r\n" if terminal else "\n")
            return EXIT_TIMED_OUT if isinstance(error, TimedOut) else EXIT_NO_MACHINE
        except KeyboardInterrupt:
            return 128 + signal.SIGINT


def _ports(text: str) -> tuple[int, int]:
    host, _, guest = text.partition(":")
    try:
        return int(host), int(guest or host)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not two port numbers as in 8888:8888") from None


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise LabkitError(f"{text!r} is not an environment variable as in NAME=VALUE")
    return name, value


def _user(name: str | None) -> str | None:
    """`--user` without a name is the caller, or nobody if that is root."""
    return name if name != "" else getpass.getuser() if os.geteuid() else "nobody"


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """Let every key, Ctrl-C too, go to the guest's terminal as it is; it is the guest's that then acts on it."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """End the machine in order when this process is asked to end."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
