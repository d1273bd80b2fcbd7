"""What the notebook tests share: fresh progress for each test, and proof that nothing is left behind."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import host, procfs
from labkit.course.experiments import notebook_vm
from labkit.files import state_folder


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a learner's own progress out of the tests; what `./lab setup` built stays in reach."""
    state = tmp_path / "state"
    state.mkdir()
    for name in state_folder.BUILT:
        built = state_folder.state().resolve() / name
        if built.is_dir():
            (state / name).symlink_to(built)
    monkeypatch.setenv("LABKIT_STATE", str(state))


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a process, a mount or a descriptor."""
    before = _held()
    yield
    assert _held() == before


def _held() -> tuple[list[int], list[str], set[str]]:
    host.reset()
    notebook_vm.end()
    gc.collect()
    mounts = sorted(mount.mount_point for mount in procfs.mountinfo())
    return procfs.children(os.getpid()), mounts, _descriptors()


def _descriptors() -> set[str]:
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{fd.name} {os.readlink(fd)}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found
