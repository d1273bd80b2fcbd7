"""The recipe of the servers' root filesystems: what it says when it cannot build, and that the old tree stays whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.course.experiments.servers import trees
from labkit.errors import LabkitError
from labkit.files import state_folder

RECIPE = state_folder.checkout() / "rootfs/debian/build_debian.py"


def build(target: Path, *names: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | ({"PATH": str(path)} if path else {})
    return subprocess.run(
        [sys.executable, "-I", RECIPE, target, *names], capture_output=True, text=True, timeout=120, env=environment
    )


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A folder with a tree of before, and what a killed build has left."""
    (tmp_path / "trees/web/bin").mkdir(parents=True)
    (tmp_path / "trees/.debian.killed/archives").mkdir(parents=True)
    return tmp_path / "trees"


def programs(folder: Path, **scripts: str) -> Path:
    """A PATH of these programs alone."""
    folder.mkdir()
    for name, script in scripts.items():
        (folder / name.replace("_", "-")).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name.replace("_", "-")).chmod(0o755)
    return folder


def is_whole(old: Path) -> bool:
    return sorted(path.name for path in old.iterdir() if path.name != ".debian-lock") == ["web"]


def test_without_apt(old: Path, tmp_path: Path) -> None:
    run = build(old, "web", path=programs(tmp_path / "bin"))
    assert run.returncode == 1
    assert run.stderr == ("not built: apt-get is missing: these trees are built from Debian's or Ubuntu's packages\n")
    assert is_whole(old)


def test_without_network(old: Path, tmp_path: Path) -> None:
    refuses = 'echo "E: Unable to locate package nginx" >&2; exit 100'
    path = programs(tmp_path / "bin", apt_get=refuses, dpkg_deb="exit 1")
    run = build(old, "web", path=path)
    assert run.returncode == 1
    assert run.stdout == "fetching the lists of packages\n"
    assert run.stderr == (
        "not built: apt-get could not fetch the packages (Unable to locate package nginx); is there a network?\n"
    )
    assert is_whole(old)


def test_without_room(old: Path, tmp_path: Path) -> None:
    line = f"'http://somewhere/a_1_amd64.deb' a_1_amd64.deb {10**18} SHA256:0"
    run = build(old, "web", path=programs(tmp_path / "bin", apt_get=f'echo "{line}"', dpkg_deb="exit 1"))
    assert run.returncode == 1 and "MB free, and this needs" in run.stderr
    assert is_whole(old)


def test_a_package_that_cannot_be_unpacked(old: Path, tmp_path: Path) -> None:
    line = "'http://somewhere/a_1_amd64.deb' a_1_amd64.deb 10 SHA256:0"
    path = programs(tmp_path / "bin", apt_get=f'echo "{line}"', dpkg_deb="exit 2", tar="read all; exit 0")
    run = build(old, "web", path=path)
    assert run.returncode == 1
    assert run.stderr == "not built: a_1_amd64.deb could not be unpacked: dpkg-deb ended with 2\n"
    assert is_whole(old)


def test_a_recipe_that_is_not_there_and_wrong_use(tmp_path: Path) -> None:
    assert build(tmp_path, "mail").stderr == "not built: there is no recipe rootfs/mail/packages\n"
    assert build(tmp_path).stderr == "usage: python3 build_debian.py FOLDER NAME...\n"


def test_a_tree_of_another_recipe_counts_as_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path))
    recipe = trees._recipe()
    stamp = tmp_path / "rootfs/web" / recipe.STAMP
    stamp.parent.mkdir(parents=True)
    stamp.write_text(recipe.recipe("web"))
    assert trees.missing() == ["file", "database", "application"]
    stamp.write_text("another\n")
    assert "web" in trees.missing()


def test_what_the_recipe_says_reaches_the_learner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("PATH", str(programs(tmp_path / "bin")))
    said: list[str] = []
    with pytest.raises(LabkitError, match="could not be built: apt-get is missing"):
        trees.build(["web"], said.append)
    assert said[0].startswith("Building the servers web: at most ")


def test_a_killed_build_leaves_the_old_tree_and_the_next_one_clears_up(old: Path, tmp_path: Path) -> None:
    line = "'http://somewhere/a_1_amd64.deb' a_1_amd64.deb 10 SHA256:0"
    path = programs(tmp_path / "bin", apt_get=f'echo "{line}"', dpkg_deb="exit 0", tar="kill -KILL $PPID")
    assert build(old, "web", path=path).returncode == -9
    assert (old / "web/bin").is_dir() and not is_whole(old), "what it had begun is still there"
    build(old, "web", path=programs(tmp_path / "refusing", apt_get="exit 100", dpkg_deb="exit 1"))
    assert is_whole(old)
