"""What learners' parameters are drawn from, where the instructor names nothing: a secret of this machine, kept.

Kept, so that grading the same notebook again asks the same of it, and comes to the same points.
"""

import os
import secrets
from pathlib import Path

from labkit.errors import LabkitError
from labkit.files import state_folder

NAME = "grading-seed"


def of_this_machine() -> str:
    """The seed in the state folder, made at its first use; nobody else can read it.

    Raises:
        LabkitError: it cannot be read, or not be made.
    """
    path = state_folder.state() / NAME
    try:
        if not path.exists():
            _make(path)
        seed = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise LabkitError(f"{path} cannot be used ({error}). Name a seed of your own: --seed TEXT.") from None
    if not seed:
        raise LabkitError(f"{path} is empty. Remove it, or name a seed of your own: --seed TEXT.")
    return seed


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{NAME}.{secrets.token_hex(8)}.new")  # two threads may be here at once
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(16) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)  # unlike a rename, this leaves the one of somebody who was faster
    except FileExistsError:
        pass
    finally:
        aside.unlink(missing_ok=True)
