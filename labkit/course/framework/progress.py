"""What a learner has done so far, kept in `progress.json` in the course's state folder.

The file is read and written under a lock (two notebooks may be open), written aside, synced and renamed, so that it is
whole whenever the machine stops. A file that cannot be understood is set aside under another name and said; a folder
that cannot be written costs the record and never the lab.
"""

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from labkit.files import atomic, state_folder

VERSION = 1


class ExerciseRecord(TypedDict):
    """One exercise: how often it was checked, the latest outcome, and what help was taken."""

    attempts: int
    outcome: str
    passed: bool
    hints: int
    solution_opened: bool


class LabRecord(TypedDict):
    """One lab: its exercises and the predictions made in it, by name."""

    exercises: dict[str, ExerciseRecord]
    predictions: dict[str, str | float]


class Record(TypedDict):
    """The whole file."""

    version: int
    labs: dict[str, LabRecord]


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


class Progress:
    """The record of one learner. Every method reads the file anew; only what cannot be saved is kept in memory."""

    def __init__(self, folder: Path | None = None, say: Callable[[str], None] = _warn) -> None:
        self._given = folder
        self._say = say
        self._unsaved: Record | None = None

    @property
    def path(self) -> Path:
        """Where the record is kept: looked up at each use, since a test may move it."""
        return (self._given or state_folder.state()) / "progress.json"

    def lab(self, number: str) -> LabRecord:
        """The record of one lab; an empty one where nothing was done yet."""
        return self._load()["labs"].get(number, {"exercises": {}, "predictions": {}})

    def exercise(self, number: str, name: str) -> ExerciseRecord:
        """The record of one exercise; a fresh one where it was never checked."""
        return self.lab(number)["exercises"].get(name, _fresh())

    def record_check(self, number: str, name: str, outcome: str) -> None:
        """Note the outcome of one check, and count it if something was attempted. Once passed stays passed."""
        with self._change(number) as lab:
            record = lab["exercises"].setdefault(name, _fresh())
            record["attempts"] += outcome != "not attempted"
            record["outcome"] = outcome
            record["passed"] = record["passed"] or outcome == "passed"

    def record_hint(self, number: str, name: str, step: int) -> None:
        """Remember the highest hint that was read; `step` counts from 1."""
        with self._change(number) as lab:
            record = lab["exercises"].setdefault(name, _fresh())
            record["hints"] = max(record["hints"], step)

    def record_solution(self, number: str, name: str) -> None:
        """Remember that the solution was opened. It costs nothing."""
        with self._change(number) as lab:
            lab["exercises"].setdefault(name, _fresh())["solution_opened"] = True

    def record_prediction(self, number: str, name: str, answer: str | float) -> None:
        """Remember the answer to a prediction; a later answer replaces it."""
        with self._change(number) as lab:
            lab["predictions"][name] = answer

    @contextmanager
    def _change(self, number: str) -> Iterator[LabRecord]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock_fd = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            self._keep_unsaved(error)
            lock_fd = -1
        try:
            if lock_fd >= 0:
                fcntl.flock(lock_fd, fcntl.LOCK_EX)
            record = self._load()
            yield record["labs"].setdefault(number, {"exercises": {}, "predictions": {}})
            if self._unsaved is None:
                try:
                    atomic.replace(self.path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
                except OSError as error:
                    self._keep_unsaved(error)
            if self._unsaved is not None:
                self._unsaved = record
        finally:
            if lock_fd >= 0:
                os.close(lock_fd)

    def _keep_unsaved(self, error: OSError) -> None:
        """From here on the record lives in memory only; said once."""
        if self._unsaved is None:
            self._unsaved = self._load()
            self._say(
                f"Your progress cannot be saved ({error.strerror}: {self.path.parent}). The lab works all the same; "
                "make that folder writable, then restart the notebook, to keep a record."
            )

    def _load(self) -> Record:
        if self._unsaved is not None:
            return self._unsaved
        empty: Record = {"version": VERSION, "labs": {}}
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return empty
        except OSError:
            return empty
        except ValueError:
            found = None
        if _is_record(found):
            return found  # type: ignore[no-any-return]  # its shape was just checked
        self._set_aside()
        return empty

    def _set_aside(self) -> None:
        for number in range(1, 1000):
            aside = self.path.with_name(f"progress.broken-{number}.json")
            if not aside.exists():
                break
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return  # another notebook was quicker
        except OSError as error:
            self._say(f"The record of your progress cannot be read, nor moved away ({error.strerror}: {self.path}).")
            return
        self._say(f"The record of your progress could not be read; it is now {aside}, and a new one is begun.")


def _fresh() -> ExerciseRecord:
    return {"attempts": 0, "outcome": "not attempted", "passed": False, "hints": 0, "solution_opened": False}


def _is_record(found: Any) -> bool:
    """Whether what was read has the shape of `Record`, all the way down."""
    if not (isinstance(found, dict) and found.get("version") == VERSION and isinstance(found.get("labs"), dict)):
        return False
    like = _fresh()
    for lab in found["labs"].values():
        if not (isinstance(lab, dict) and set(lab) == {"exercises", "predictions"}):
            return False
        if not (isinstance(lab["exercises"], dict) and isinstance(lab["predictions"], dict)):
            return False
        if not all(isinstance(answer, str | int | float) for answer in lab["predictions"].values()):
            return False
        for record in lab["exercises"].values():
            if not (isinstance(record, dict) and set(record) == set(like)):
                return False
            if not all(type(record[key]) is type(value) for key, value in like.items()):
                return False
    return True
