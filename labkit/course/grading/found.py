"""A submission, as it was found: whose, of which lab, and where."""

from dataclasses import dataclass
from pathlib import Path

NO_LAB = "?"  #: of which lab it is cannot be told
NO_TITLE = "of which lab cannot be told"


@dataclass(frozen=True, order=True)
class Found:
    """One submission."""

    learner: str
    lab: str  #: its number, such as "05", or `NO_LAB`
    path: Path
    notes: tuple[str, ...] = ()  #: what to say with its result
    attempt: str = ""  #: which one, where a course system tells: the last counts
    id: str = ""  #: where a course system tells two of one name apart by it
    refused: str = ""  #: why it cannot be graded, where that is known already
