"""The busybox root filesystem: what is in it, that it is the same each time, and that a failed build breaks nothing."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.files import state_folder

RECIPE = state_folder.checkout() / "rootfs/busybox/build.py"


def build(target: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", RECIPE, target],
        capture_output=True,
        text=True,
        env=dict(os.environ) | environment,
        timeout=120,
    )


def listing(root: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, time and content of everything in a tree."""
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        if path.is_symlink():
            content = os.readlink(path)
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(root))] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("built") / "rootfs/busybox"
    run = build(target)
    assert run.returncode == 0, run.stderr
    return target


def test_it_holds_what_programs_expect(root: Path) -> None:
    assert subprocess.run([root / "bin/busybox", "true"]).returncode == 0
    for name in ("sh", "ls", "mount", "ps", "hostname"):
        link = root / "bin" / name
        assert link.is_symlink() and link.resolve() == root / "bin/busybox", "links must hold inside a chroot too"
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((root / "root").stat().st_mode) == 0o700
    for name in ("proc", "sys", "dev"):
        assert not list((root / name).iterdir())
    assert (root / "etc/passwd").read_text().startswith("root:x:0:0:")
    assert (root / "etc/resolv.conf").is_file()


def test_every_link_is_relative_and_leads_to_busybox(root: Path) -> None:
    links = [path for path in root.rglob("*") if path.is_symlink()]
    assert len(links) > 200
    for link in links:
        assert not os.readlink(link).startswith("/")
        assert link.resolve() == root / "bin/busybox"


def test_two_builds_are_equal(root: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    old_mask = os.umask(0o077)
    try:
        assert build(again).returncode == 0
    finally:
        os.umask(old_mask)
    assert listing(again) == listing(root)


def test_it_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "busybox"
    (target / "old").mkdir(parents=True)
    (tmp_path / ".busybox.killed").mkdir()
    assert build(target).returncode == 0
    assert not (target / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["busybox"]


def test_a_failed_build_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "root"
    target.mkdir()
    (target / "old").touch()
    broken = tmp_path / "bin"
    broken.mkdir()
    # A static program that is no busybox: it cannot list its names.
    (broken / "busybox").write_bytes(Path("/bin/busybox").read_bytes()[:4096])
    (broken / "busybox").chmod(0o755)
    assert build(target, PATH=f"{broken}:/usr/bin:/bin").returncode != 0
    assert (target / "old").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "root"]


def test_wrong_use_is_one_line() -> None:
    run = subprocess.run([sys.executable, "-I", RECIPE], capture_output=True, text=True)
    assert run.returncode != 0 and run.stderr == "usage: python3 build.py FOLDER\n"
