"""results.json: all that grading found, from which every page can be made anew; and whose folder it lies in."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from labkit.course.grading.results import Result
from labkit.errors import LabkitError

NAME = "results.json"
FORMAT = "labkit grading 1"


def to_text(results: Iterable[Result], told: Sequence[str] = ()) -> str:
    """As JSON, in ASCII alone: half a surrogate pair in somebody's text has no other form in a file.

    `told` is what was said of files that were handed in and not graded, and of a grading that was stopped.
    """
    found = {"format": FORMAT, "said": list(told), "results": [one.to_json() for one in results]}
    return json.dumps(found, indent=1) + "\n"


def read(folder: Path) -> list[Result]:
    """The results of an earlier grading.

    Raises:
        LabkitError: there are none in that folder, or they cannot be read.
    """
    return _read(folder)[0]


def said(folder: Path) -> list[str]:
    """What an earlier grading has said of files that were not graded. Raises as `read` does."""
    return _read(folder)[1]


def _read(folder: Path) -> tuple[list[Result], list[str]]:
    path = folder / NAME
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise ValueError(f"its format is {found['format']!r}")
        return [Result.from_json(one) for one in found["results"]], [str(one) for one in found.get("said", ())]
    except FileNotFoundError:
        raise LabkitError(f"There are no results in {folder}: grade into it first, with --out {folder}.") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LabkitError(f"{path} cannot be read ({error}). Grade again with --out {folder}.") from None


def claim(folder: Path) -> None:
    """Make the folder of a report, or find it: empty, or an earlier report's.

    Raises:
        LabkitError: it holds something else, which must not be mixed up with a report.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / NAME).is_file():
            raise LabkitError(
                f"{folder} holds files, and none of them is {NAME}, so it is not from an earlier grading and nothing "
                "was written there. Name another folder with --out."
            )
    except (FileExistsError, NotADirectoryError):
        raise LabkitError(f"{folder} is no folder. Name one with --out.") from None
    except OSError as error:
        raise LabkitError(f"{folder} cannot be used for the report: {error.strerror}. Name another one.") from None
