"""Tests that take long and cover a few files: left to the long run while those are as they were when the tests passed.

What they passed on is a digest in the tree, beside the tests. A run in which they pass writes it; it is committed.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

#: A file of tests below `tests/`, and what it covers, files or folders, itself among them.
COVERS = {
    "vm/test_vagrant.py": (
        "Vagrantfile",
        "lab",
        "labkit/arguments.py",
        "labkit/course/doctor/doctor.py",
        "labkit/course/setup/reference",
        "labkit/course/commands/service.py",
        "labkit/course/setup/setup.py",
        "labkit/course/setup/debian.py",
        "labkit/course/setup/log.py",
        "labkit/course/setup/rootfs.py",
        "labkit/course/setup/environment.py",
        "labkit/files/manifest.py",
        "rootfs",
        "tests/vm/test_vagrant.py",
        "tests/vm/vagrant",
    ),
}


def unchanged(file: str, checkout: Path) -> bool:
    """Whether nothing that the tests `file` cover has changed since they passed."""
    if file not in COVERS:
        return False
    try:
        return _record(file, checkout).read_text().strip() == digest(file, checkout)
    except OSError:
        return False


def passed(file: str, checkout: Path) -> None:
    """Keep what the tests `file` have passed on."""
    if file in COVERS and not unchanged(file, checkout):
        _record(file, checkout).write_text(digest(file, checkout) + "\n")


def digest(file: str, checkout: Path) -> str:
    """The SHA-256 of the names and contents of all that the tests `file` cover."""
    found = hashlib.sha256()
    for path in sorted(_files(file, checkout)):
        content = path.read_bytes()
        found.update(f"{path.relative_to(checkout)} {len(content)}\n".encode() + content)
    return found.hexdigest()


def _files(file: str, checkout: Path) -> Iterator[Path]:
    for name in COVERS[file]:
        path = checkout / name
        inside = path.rglob("*") if path.is_dir() else [path]
        yield from (one for one in inside if one.is_file() and one.suffix not in (".pyc", ".sha256"))


def _record(file: str, checkout: Path) -> Path:
    return checkout / "tests" / Path(file).parent / f"{Path(file).stem.removeprefix('test_')}_passed_on.sha256"
