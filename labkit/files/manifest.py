"""What a folder tree holds, kept as a list beside it, so that a later look tells whether anybody has changed it.

A line for each file: its path, what it is, and for a regular file a hash of its contents. Times and owners are left
out, since a copy of a checkout has others. Set-up uses this before anything is installed, so it takes the standard
library only.
"""

import hashlib
import json
import os
import stat
from pathlib import Path


def listing(root: Path) -> dict[str, str]:
    """All files of the tree `root` by their path in it, each with what it is. `OSError`: it cannot be read."""
    found = {}
    for folder, folders, files in os.walk(root, onerror=_refuse):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = _what(path)
    return found


def save(root: Path) -> None:
    """Keep the list of the tree `root` beside it."""
    new = _place(root).with_suffix(".new")
    new.write_text(json.dumps(listing(root), indent=0, sort_keys=True))
    new.replace(_place(root))


def is_kept(root: Path) -> bool:
    """Whether there is a list of the tree `root`."""
    return _place(root).exists()


def changes(root: Path) -> list[str]:
    """What is no longer as it was when the list was kept: `["bin/sh is missing", "etc/passwd was changed"]`."""
    try:
        kept = json.loads(_place(root).read_text())
        now = listing(root)
    except (OSError, ValueError) as error:
        return [f"it cannot be compared: {error}"]
    missing = [f"{path} is missing" for path in kept if path not in now]
    changed = [f"{path} was changed" for path in kept if path in now and now[path] != kept[path]]
    return missing + changed + [f"{path} was added" for path in now if path not in kept]


def _place(root: Path) -> Path:
    return root.with_name(f"{root.name}.files")


def _what(path: str) -> str:
    found = os.lstat(path)
    mode = oct(found.st_mode)
    if stat.S_ISREG(found.st_mode):
        with open(path, "rb") as file:
            return f"{mode} {hashlib.file_digest(file, 'sha256').hexdigest()}"
    if stat.S_ISLNK(found.st_mode):
        return f"{mode} {os.readlink(path)}"
    return f"{mode} {found.st_rdev}" if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode) else mode


def _refuse(error: OSError) -> None:
    raise error
