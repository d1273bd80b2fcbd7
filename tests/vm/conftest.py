"""Fixtures of the VM lane: each kind of machine that can run here, and a way to see what a run left behind."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from labkit import vm


def require(kind: str) -> str:
    lack = vm.kinds()[kind]
    if lack is not None:
        pytest.skip(f"no {kind} machine here: {lack}")
    return kind


@pytest.fixture(scope="session", params=["uml", "qemu"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of machine in turn."""
    return require(request.param)


@pytest.fixture(scope="session")
def quick() -> str:
    """The kind that boots fastest here, for what does not depend on the kind."""
    found = vm.offer()
    if found is None:
        pytest.skip(f"no virtual machine can run here: {vm.kinds()}")
    return found


class Traces:
    """What runs that keep their temporary files in `folder` have left: processes that name it, and files in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def processes(self) -> list[str]:
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != os.getpid():
                with contextlib.suppress(OSError):
                    words = Path("/proc", entry, "cmdline").read_bytes()
                    if os.fsencode(self.folder) in words:
                        found.append(f"{entry} {words!r}")
        return found

    def assert_none(self, within_s: float = 10) -> None:
        end = time.monotonic() + within_s
        while (left := [*self.processes(), *self.folder.iterdir()]) and time.monotonic() < end:
            time.sleep(0.05)  # a killed machine ends when its keeper has seen it: there is nothing to wait on here
        assert not left


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Traces]:
    """Temporary files of machines go to a folder of this test; at its end none may be left, nor any process."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    seen = Traces(folder)
    yield seen
    seen.assert_none()
    monkeypatch.setattr("tempfile.tempdir", None)


@pytest.fixture(scope="session")
def computer() -> Iterator[vm.Computer]:
    """One computer that stays, for all tests that do it no harm."""
    require("qemu")
    with vm.start() as running:
        yield running
