"""The outcomes of a check: passed, not yet, not attempted; and "not checked", which is nobody's answer.

A check returns one of the first three. The fourth is made here alone, when the check itself broke or the machine
lacks what it needs: then nothing was learned about the learner's code, and nothing is recorded.
"""

from dataclasses import dataclass
from typing import ClassVar


class _Quiet:
    """An outcome is shown by `check()` at the moment it is known; as the value of a cell it is not shown again."""

    def _ipython_display_(self) -> None:
        return None


@dataclass(frozen=True)
class Passed(_Quiet):
    """The kernel's state is what was asked for. `seen` says what was looked at, `why` why it matters."""

    word: ClassVar[str] = "passed"
    seen: str
    why: str


@dataclass(frozen=True)
class NotYet(_Quiet):
    """Something was tried and falls short. `seen` says what was found, `why` why that is not enough yet.

    `share`, below 1, is how much of it is right, where that can be said: seven of eight, 0.875. It counts in grading.
    """

    word: ClassVar[str] = "not yet"
    seen: str
    why: str
    share: float = 0.0


@dataclass(frozen=True)
class NotAttempted(_Quiet):
    """The stub is untouched, or gives nothing that could be looked at. `text` says where to start."""

    word: ClassVar[str] = "not attempted"
    text: str


@dataclass(frozen=True)
class NotChecked(_Quiet):
    """The check could not look: the course is at fault, or the machine lacks something. `text` says which."""

    word: ClassVar[str] = "not checked"
    text: str


Verdict = Passed | NotYet | NotAttempted
Outcome = Passed | NotYet | NotAttempted | NotChecked
