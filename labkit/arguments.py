"""Command lines: argparse, without abbreviations, and with the right spelling for a word that is nearly one.

For what is typed at `./lab`; it takes the standard library only, since set-up runs before anything is installed.
"""

import argparse
import difflib
import sys
from collections.abc import Iterable
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(prog, description=description, epilog=epilog, allow_abbrev=False)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; a word that it does not know ends the program with exit code 2."""
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            word = next((word for word in rest if word.startswith("-")), rest[0])
            self.error(unknown(word, self._option_string_actions if word.startswith("-") else ()))
        return options

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and end."""
        end = "" if message.endswith("?") else "."
        print(f"lab: {message.rstrip('.')}{end} {self.prog} --help says what there is.", file=sys.stderr)
        sys.exit(2)


def unknown(word: str, known: Iterable[str]) -> str:
    """That there is no such word, and which one may have been meant."""
    near = difflib.get_close_matches(word.partition("=")[0], list(known), 1, 0.5)
    return f"there is no '{word}' here" + (f"; did you mean '{near[0]}'?" if near else "")
