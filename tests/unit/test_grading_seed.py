"""The seed that grading keeps, so that grading again asks the same."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from labkit.course.grading import exam_seed
from labkit.errors import LabkitError


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LABKIT_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_the_seed_is_made_once_and_kept_from_others(state: Path) -> None:
    first = exam_seed.of_this_machine()
    assert len(first) == 32 and exam_seed.of_this_machine() == first
    assert os.listdir(state) == [exam_seed.NAME]
    assert stat.S_IMODE((state / exam_seed.NAME).stat().st_mode) == 0o600


def test_two_at_once_agree_on_one(state: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: exam_seed.of_this_machine(), range(64)))) == 1


def test_a_seed_that_cannot_be_used_is_said(state: Path) -> None:
    state.mkdir()
    (state / exam_seed.NAME).write_text("\n")
    with pytest.raises(LabkitError, match=r"is empty\. Remove it"):
        exam_seed.of_this_machine()
    (state / exam_seed.NAME).unlink()
    (state / exam_seed.NAME).mkdir()
    with pytest.raises(LabkitError, match=r"cannot be used .* --seed TEXT"):
        exam_seed.of_this_machine()
