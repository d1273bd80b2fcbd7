"""What a real overlay leaves in its upper layer, told as a changeset: applied to the lower layer it gives the same."""

import io
import os
import random
import shutil
import stat
import tarfile
from pathlib import Path

import pytest

from labkit import changeset, overlay
from labkit.changeset import Change
from labkit.overlay import Overlay
from labkit.process import run_in_child
from tests.kernel.test_overlay import alone, attributes_are_kept
from tests.requirements import machine_cannot

KINDS = ["first user namespace", "own user namespace"]
Tree = dict[str, tuple[object, ...]]


@pytest.fixture(params=KINDS)
def own_user_namespace(request: pytest.FixtureRequest) -> bool:
    own: bool = request.param == "own user namespace"
    if own and not run_in_child(attributes_are_kept):
        machine_cannot("keep user.* attributes in a tmpfs")
    return own


def tree_of(folder: Path) -> Tree:
    found: Tree = {}
    for path in folder.rglob("*"):
        info = path.lstat()
        what = path.read_bytes() if path.is_file() else os.readlink(path) if path.is_symlink() else b""
        found[str(path.relative_to(folder))] = (stat.filemode(info.st_mode), what)
    return found


def build(folder: Path, rng: random.Random) -> None:
    for number in range(6):
        inner = folder / f"d{number % 3}" / f"e{number}"
        inner.mkdir(parents=True)
        for name in "abc":
            (inner / name).write_text(str(rng.random()))
        (inner / "link").symlink_to(rng.choice(["a", "../..", "/etc", "nowhere"]))


def change_at_random(folder: Path, rng: random.Random) -> None:
    """Some of what programs do to files: delete, make anew, exchange kinds, rename, link, change modes."""
    for number in range(40):
        everything = sorted(folder.rglob("*"))
        one = rng.choice(everything)
        what = rng.randrange(7)
        if what == 0 and not one.is_dir():
            one.unlink()
        elif what == 1 and one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
            if rng.random() < 0.5:
                one.mkdir()
                (one / f"new{number}").write_text("new")
        elif what == 2:
            (one if one.is_dir() and not one.is_symlink() else one.parent).joinpath(f"n{number}").write_text("n")
        elif what == 3 and not one.is_dir() and not one.is_symlink():
            one.unlink()
            one.mkdir()
        elif what == 4 and not one.is_dir():
            one.rename(folder / f"moved{number}")
        elif what == 5 and one.is_file() and not one.is_symlink():
            os.link(one, folder / f"second{number}")
        elif what == 6 and not one.is_symlink():
            one.chmod(rng.choice([0o700, 0o755, 0o644, 0o600]) | (0o700 if one.is_dir() else 0))


def apply(archive: bytes, folder: Path) -> None:
    """Unpack a layer made here, for comparison: an archive from elsewhere would need more care."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extraction_filter = lambda member, _: member
        for member in tar:
            path = folder / member.name
            if path.name == changeset.OPAQUE:
                for inner in path.parent.iterdir():
                    _remove(inner)
            elif path.name.startswith(changeset.WHITEOUT):
                _remove(path.with_name(path.name.removeprefix(changeset.WHITEOUT)))
            else:
                if not (member.isdir() and path.is_dir() and not path.is_symlink()):
                    _remove(path)
                tar.extract(member, folder)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


@pytest.mark.parametrize("seed", range(6))
def test_applied_below_it_gives_what_was_merged(seed: int, own_user_namespace: bool, tmp_path: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    build(tmp_path / "lower", random.Random(seed))
    lower_before = tree_of(tmp_path / "lower")

    def body() -> tuple[Tree, bytes, list[Change]]:
        alone(own_user_namespace, None)
        overlay.mount(Overlay([tmp_path / "lower"], tmp_path / "upper", tmp_path / "work"), tmp_path / "merged")
        change_at_random(tmp_path / "merged", random.Random(seed))
        archive = io.BytesIO()
        assert changeset.as_tar(tmp_path / "upper", archive) == []
        changed = changeset.changes(tmp_path / "upper", tmp_path / "lower")
        return tree_of(tmp_path / "merged"), archive.getvalue(), changed

    merged, archive, changed = run_in_child(body)
    assert tree_of(tmp_path / "lower") == lower_before
    said = {change.path: change.kind for change in changed}
    # What is only below an opaque folder or a deleted one is not said name by name.
    gone = {path for path in lower_before.keys() - merged.keys() if str(Path(path).parent) in {".", *merged}}
    hidden = [change.path for change in changed if change.opaque]
    assert all(said.get(path) == "deleted" or any(path.startswith(f"{h}/") for h in hidden) for path in gone)
    assert {path for path, kind in said.items() if kind == "added"} >= merged.keys() - lower_before.keys()
    shutil.copytree(tmp_path / "lower", tmp_path / "again", symlinks=True)
    apply(archive, tmp_path / "again")
    assert tree_of(tmp_path / "again") == merged
