"""The record of what a learner has done: whole whatever happens, and never in the way."""

import json
import os
import threading
from pathlib import Path

import pytest

from labkit.course.framework.progress import Progress


def test_records_what_was_done(tmp_path: Path) -> None:
    progress = Progress(tmp_path)
    progress.record_check("05", "isolate", "not yet")
    progress.record_check("05", "isolate", "passed")
    progress.record_check("05", "isolate", "not yet")
    progress.record_hint("05", "isolate", 2)
    progress.record_hint("05", "isolate", 1)
    progress.record_solution("05", "isolate")
    progress.record_prediction("05", "stays", "the old name")
    progress.record_prediction("05", "count", 3.0)
    again = Progress(tmp_path)
    assert again.exercise("05", "isolate") == {
        "attempts": 3,
        "outcome": "not yet",
        "passed": True,
        "hints": 2,
        "solution_opened": True,
    }
    assert again.lab("05")["predictions"] == {"stays": "the old name", "count": 3.0}
    assert again.exercise("06", "other")["attempts"] == 0


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "[]",
        '{"version": 99, "labs": {}}',
        '{"version": 1, "labs": []}',
        '{"version": 1, "labs": {"05": {}}}',
        '{"version": 1, "labs": {"05": {"exercises": {"a": {"attempts": "three"}}, "predictions": {}}}}',
        '{"version": 1, "labs": {"05": {"exercises": {}, "predictions": {"a": []}}}}',
    ],
)
def test_a_broken_file_is_set_aside_and_said(tmp_path: Path, broken: str) -> None:
    (tmp_path / "progress.json").write_text(broken)
    said: list[str] = []
    progress = Progress(tmp_path, say=said.append)
    progress.record_check("05", "isolate", "passed")
    assert progress.exercise("05", "isolate")["passed"]
    assert (tmp_path / "progress.broken-1.json").read_text() == broken
    assert len(said) == 1
    assert "progress.broken-1.json" in said[0]


def test_not_utf8_is_a_broken_file_too(tmp_path: Path) -> None:
    (tmp_path / "progress.json").write_bytes(b"\xff\xfe")
    Progress(tmp_path, say=lambda _: None).record_prediction("05", "a", "b")
    assert (tmp_path / "progress.broken-1.json").exists()


def test_where_nothing_can_be_written_the_lab_goes_on(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").write_text("a file, where the folder should be")
    said: list[str] = []
    progress = Progress(tmp_path / "in-the-way", say=said.append)
    progress.record_check("05", "isolate", "not yet")
    progress.record_check("05", "isolate", "passed")
    assert progress.exercise("05", "isolate")["attempts"] == 2
    assert len(said) == 1
    assert "cannot be saved" in said[0]


def test_two_notebooks_at_once_lose_nothing(tmp_path: Path) -> None:
    def check_ten_times(name: str) -> None:
        progress = Progress(tmp_path)
        for _ in range(10):
            progress.record_check("05", "shared", "not yet")
            progress.record_check("05", name, "not yet")

    threads = [threading.Thread(target=check_ten_times, args=(f"own{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lab = Progress(tmp_path).lab("05")["exercises"]
    assert lab["shared"]["attempts"] == 40
    assert all(lab[f"own{n}"]["attempts"] == 10 for n in range(4))


def test_the_old_record_stands_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress(tmp_path, say=lambda _: None)
    progress.record_check("05", "isolate", "passed")
    before = (tmp_path / "progress.json").read_text()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    progress.record_check("05", "isolate", "not yet")
    assert (tmp_path / "progress.json").read_text() == before
    assert json.loads(before)["version"] == 1
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".new")] == []
    assert progress.exercise("05", "isolate")["attempts"] == 2, "kept in memory"
