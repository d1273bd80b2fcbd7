"""A tree's list of files: each kind of change is told by the name of the file, and a copy counts as the same."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from labkit.files import manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/sh").write_text("a shell")
    (root / "bin/ls").symlink_to("sh")
    manifest.save(root)
    return root


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda root: (root / "bin/sh").unlink(), ["bin/sh is missing"]),
        (lambda root: shutil.rmtree(root / "bin"), ["bin is missing", "bin/ls is missing", "bin/sh is missing"]),
        (lambda root: (root / "bin/sh").write_text("another"), ["bin/sh was changed"]),
        (lambda root: (root / "bin/sh").chmod(0o700), ["bin/sh was changed"]),
        (lambda root: (root / "bin/b1").touch(), ["bin/b1 was added"]),
        (lambda root: os.mkfifo(root / "pipe"), ["pipe was added"]),
        (lambda root: ((root / "bin/ls").unlink(), (root / "bin/ls").symlink_to("no")), ["bin/ls was changed"]),
        (lambda root: (root / "bin/sh").write_text("a shell"), []),
    ],
)
def test_each_change_is_told(root: Path, change: Callable[[Path], object], told: list[str]) -> None:
    assert manifest.changes(root) == []
    change(root)
    assert sorted(manifest.changes(root)) == told


def test_a_copy_is_the_same(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "copy", symlinks=True, copy_function=shutil.copyfile)
    (tmp_path / "copy/bin/sh").chmod(0o644)
    (root.parent / "copy.files").write_bytes((root.parent / "root.files").read_bytes())
    assert manifest.changes(tmp_path / "copy") == []


def test_without_a_list_there_is_no_yes(root: Path) -> None:
    (root.parent / "root.files").write_text("{")
    assert manifest.changes(root)[0].startswith("it cannot be compared")
    (root.parent / "root.files").unlink()
    assert "No such file" in manifest.changes(root)[0]
