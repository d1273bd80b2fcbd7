"""Names that course systems give to what was handed in: who it is, and which attempt.

    Canvas      doejane_LATE_12345_67890_05_uts-1.ipynb             a user's id, then the submission's
    Moodle      Jane Doe_1234567_assignsubmission_file_/05_uts.ipynb  or _05_uts.ipynb, without a folder of one's own
    Blackboard  Lab 05_jdoe_attempt_2026-05-01-10-00-00_05_uts.ipynb

Moodle's number is another one in each assignment, so its names are people's full names. Where it marks blindly there
is no name but "Participant", in the site's language, and the number: whether two of these in two assignments are one
person nobody can tell, so the number is part of who it is.
"""

import re
from dataclasses import dataclass

_CANVAS = re.compile(r"(?P<who>[^_\W]+)(?:_LATE)?_(?P<id>\d+)_(?P<attempt>\d+)_(?P<rest>.+)", re.IGNORECASE)
_MOODLE = re.compile(r"(?P<who>.+?)_(?P<id>\d+)_assignsubmission_(?:file|onlinetext)_?(?P<rest>.*)")
_BLIND = re.compile(
    r"(?:participant|teilnehmer(?:/?in)?|participante|partecipante|deelnemer|uczestnik|deltager|deltagare)[ _]?\d*",
    re.IGNORECASE,
)
_BLACKBOARD = re.compile(r"[^_]+_(?P<who>.+)_attempt_(?P<attempt>\d{4}(?:-\d\d){5})(?:_(?P<rest>.*))?")


@dataclass(frozen=True)
class Named:
    """What a name says."""

    who: str  #: the learner
    rest: str  #: the name of the file as the learner had it, without its ending; "" where it is a folder's
    attempt: str = ""  #: later ones sort behind earlier ones
    id: str = ""  #: tells two of the same name apart within one assignment


def read(name: str) -> Named | None:
    """What a file's name without its ending, or a folder's, says; None where no course system has given it."""
    if found := _MOODLE.fullmatch(name):
        if _BLIND.fullmatch(found["who"]):
            return Named(f"{found['who']} {found['id']}", found["rest"])
        return Named(found["who"], found["rest"], id=found["id"])
    if found := _BLACKBOARD.fullmatch(name):
        return Named(found["who"], found["rest"] or "", found["attempt"])
    if found := _CANVAS.fullmatch(name):
        # Canvas shortens names: the id is part of who it is.
        return Named(f"{found['who']}_{found['id']}", found["rest"], found["attempt"].zfill(20))
    return None
