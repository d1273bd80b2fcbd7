"""Read the file of a notebook that anybody may have made: as data, with a limit on everything. Nothing of it is run.

The file may be no file, endless, not JSON, JSON built to exhaust whoever parses it, or JSON that is no notebook. All of
these are `Refused`, with a sentence for the learner. What is read of a notebook is its cells' kinds, ids and
sources; its outputs and what else is in it are never kept.
"""

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 10_000_000  #: of the file
MAX_NESTED = 200_000  #: lists and objects in it: each costs up to a hundred times the two bytes it takes in the file
MAX_CELLS = 2_000
_SAVE = "Open it in JupyterLab, save it there, and hand it in again."  # only for what JupyterLab opens
_CLEAR = "In JupyterLab, choose Edit, Clear Outputs of All Cells; save it, and hand it in again."
_INSTEAD = (
    "JupyterLab cannot open it either. Hand in the .ipynb file from your folder labs/; if that does not open, "
    "the last saved copy of it, from labs/.ipynb_checkpoints/."
)
_DOWNLOAD = "Hand in the notebook itself: in JupyterLab, File, Download gives it."
_UTF_16 = "The file is UTF-16 text. Save it as UTF-8 with a text editor, and hand it in again."
#: How files of other kinds begin, and what to say of them.
_OTHERS = (
    (b"PK\x03\x04", "The file is a ZIP archive, or a document that is made like one. Hand in the .ipynb file itself."),
    (b"%PDF", f"The file is a PDF. {_DOWNLOAD}"),
    (b"<!", f"The file is a web page. {_DOWNLOAD}"),
    (b"<html", f"The file is a web page. {_DOWNLOAD}"),
    (b"\x1f\x8b", "The file is compressed. Unpack it, and hand in the .ipynb file that is in it."),
    (b"\xff\xfe", _UTF_16),
    (b"\xfe\xff", _UTF_16),
)
_CONFLICT = (
    "The file has two versions in it, with git's marks of a merge conflict (<<<<<<<). Choose one of them in the folder "
    "where you merged: git checkout --ours FILE, or --theirs; then hand it in again."
)


class Refused(Exception):
    """The file cannot be taken as a notebook; says why, and what to do."""


@dataclass(frozen=True)
class RawCell:
    """What grading looks at of one cell."""

    number: int  #: among all cells, from 1 on
    kind: str
    id: str
    exercise: str  #: what its metadata say that it answers
    tags: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class RawNotebook:
    """What grading looks at of one notebook."""

    lab: str  #: what its metadata say that it is a copy of
    cells: tuple[RawCell, ...]
    oddities: tuple[str, ...]  #: what was wrong with it and has been put right


def read(path: Path) -> RawNotebook:
    """The notebook in a file. `Refused`: it is none that could be graded; nothing else is raised for what is in it."""
    data = bytes_of(path)
    if not data.strip(b" \t\r\n\0"):
        raise Refused(f"The file is empty. {_INSTEAD}")
    for beginning, said in _OTHERS:
        if data.startswith(beginning):
            raise Refused(said)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(f"The file is not UTF-8 text, as a notebook is. {_INSTEAD}") from None
    if data.count(b"{") + data.count(b"[") > MAX_NESTED:
        raise Refused(f"The file has more than {MAX_NESTED:,} lists and objects in it. If it opens: {_CLEAR}")
    oddities: list[str] = []
    try:
        found = _parse(text, oddities)
    except RecursionError:
        raise Refused(f"The file is nested too deeply. {_INSTEAD}") from None
    except ValueError as error:
        if b"\n<<<<<<< " in data:
            raise Refused(_CONFLICT) from None
        raise Refused(f"The file is not JSON, as a notebook is ({_short(str(error))}). {_INSTEAD}") from None
    return _checked(found, oddities)


def bytes_of(path: Path) -> bytes:
    """The content of a regular file of no more than `MAX_BYTES`. Nothing else is opened: not a device, not a link."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise Refused("It is not a regular file. Hand in the notebook itself.")
        # Should it have become something else by now, then the open neither follows a link nor waits for a writer.
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise Refused(f"The file cannot be read: {error.strerror}.") from None
    except ValueError:
        raise Refused("The file cannot be read: its name has a null character in it.") from None
    with os.fdopen(opened, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise Refused("It is not a regular file. Hand in the notebook itself.")
        try:
            data = file.read(MAX_BYTES + 1 if found.st_size <= MAX_BYTES else 100)
        except OSError as error:
            raise Refused(f"The file cannot be read: {error.strerror}.") from None
        if max(len(data), found.st_size) > MAX_BYTES:
            advice = _CLEAR if data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") else _INSTEAD
            raise Refused(f"The notebook is bigger than {MAX_BYTES // 1_000_000} MB. {advice}")
        return data


def _parse(text: str, oddities: list[str]) -> Any:
    """JSON as JupyterLab understands it: of a key that is there twice, the last counts. Numbers are not kept."""
    twice = False

    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        made = dict(pairs)
        twice |= len(made) != len(pairs)
        return made

    found = json.loads(
        text,
        object_pairs_hook=as_object,
        parse_int=lambda digits: int(digits) if len(digits) < 10 else 0,  # one of a million digits would take minutes
        parse_float=lambda digits: 0.0,
        parse_constant=lambda name: 0.0,  # NaN and Infinity, which some libraries leave in outputs
    )
    if twice:
        oddities.append("The file names a key of its JSON twice; the last one counts, as in JupyterLab.")
    return found


def _checked(found: Any, oddities: list[str]) -> RawNotebook:
    if not isinstance(found, dict) or not isinstance(found.get("cells"), list):
        if _is_of_format_3(found):
            raise Refused(f"The notebook is of an old format. {_SAVE}")
        raise Refused(f"The file is not a notebook. {_INSTEAD}")
    if found.get("nbformat") != 4:
        raise Refused(f"The notebook's format is not 4, the one that JupyterLab writes. {_INSTEAD}")
    if len(found["cells"]) > MAX_CELLS:
        raise Refused(f"The notebook has more than {MAX_CELLS:,} cells. Delete those that are not part of the lab.")
    cells = tuple(_cells(found["cells"]))
    if left_out := len(found["cells"]) - len(cells):
        oddities.append(f"{left_out} {'cell is' if left_out == 1 else 'cells are'} none by the format of notebooks.")
    lab = _dict(_dict(found.get("metadata")).get("labkit")).get("lab")
    return RawNotebook(lab if isinstance(lab, str) else "", cells, tuple(oddities))


def _is_of_format_3(found: Any) -> bool:
    """Whether it is what JupyterLab converts to format 4 as it opens it."""
    return (
        isinstance(found, dict)
        and found.get("nbformat") == 3
        and isinstance(found.get("worksheets"), list)
        and isinstance(found.get("metadata"), dict)
    )


def _cells(found: list[Any]) -> Iterator[RawCell]:
    for number, cell in enumerate(found, 1):
        if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
            continue
        text = cell.get("source")
        if isinstance(text, list) and all(isinstance(line, str) for line in text):
            text = "".join(text)
        if not isinstance(text, str):
            continue
        metadata = _dict(cell.get("metadata"))
        exercise, tags = _dict(metadata.get("labkit")).get("exercise"), metadata.get("tags")
        yield RawCell(
            number,
            cell["cell_type"],
            _text(cell.get("id")),
            _text(exercise),
            tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
            text,
        )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _short(text: str) -> str:
    """A message about JSON, which may quote the file, in printable characters and few of them."""
    return "".join(one if one.isprintable() else "?" for one in text[:120])
