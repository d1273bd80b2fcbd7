"""Who handed in is found, whatever they are called and whatever a course system makes of the names."""

from pathlib import Path

import pytest

from labkit.course.grading import discover, lms_names, notebook_reader
from labkit.course.grading.discover import Found, Tally, find
from tests.unit.test_grading_submission import pristine, stored


def people(folder: Path, tally: Tally | None = None, said: list[str] | None = None) -> list[tuple[str, str]]:
    say = said.append if said is not None else lambda sentence: None
    return [(one.learner, one.lab) for one in find([folder], say, tally)]


def adds_up(tally: Tally, found: list[Found] | list[tuple[str, str]]) -> bool:
    return tally.files == len(found) + len(tally.passed_over) + len(tally.others)


@pytest.mark.parametrize(
    "names",
    [
        ("submitted", "alice"),
        ("labs", "labkit", "alice"),
        ("source", "release", "alice", "submitted"),
        ("tests", "labs", "labkit", "lab", "alice"),
    ],
)
def test_nobody_hides_the_class_by_a_name(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        stored(tmp_path / name, "{}")
    found = find([tmp_path])
    assert {one.path.parent.name for one in found} == set(names)
    stored(tmp_path / "submitted" / "alice", "{}")  # and nobody hands in for another
    assert [one.path for one in find([tmp_path]) if one.learner == "alice"] == [tmp_path / "alice/05_uts.ipynb"]


def test_an_unreadable_notebook_that_is_named_after_its_learner_has_a_row(tmp_path: Path) -> None:
    stored(tmp_path, pristine(), "alice.ipynb")
    stored(tmp_path, "not JSON at all", "bob.ipynb")
    tally = Tally()
    assert people(tmp_path, tally) == [("alice", "05"), ("bob", "05")]
    assert tally.left == 2
    stored(tmp_path, pristine("06"), "carol.ipynb")
    tally, said = Tally(), list[str]()
    found = people(tmp_path, tally, said)
    assert found == [("alice", "05"), ("carol", "06")]
    assert adds_up(tally, found)
    assert [path.name for path, _ in tally.passed_over] == ["bob.ipynb"]
    assert "not JSON" in said[0], "of which lab it is nobody can tell"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            [
                "doejane_12345_67890_05_uts.ipynb",
                "doejane_LATE_12345_67999_06_pid-1.ipynb",
                "doejane_777_67891_05_uts.ipynb",
            ],
            [("doejane_12345", "05"), ("doejane_12345", "06"), ("doejane_777", "05")],
        ),
        (
            [
                "Jane Doe_111_assignsubmission_file_/05_uts.ipynb",
                "Jane Doe_222_assignsubmission_file/06_pid.ipynb",
                "John Roe_333_assignsubmission_file_05_uts.ipynb",
            ],
            [("Jane Doe", "05"), ("Jane Doe", "06"), ("John Roe", "05")],
        ),
        (
            ["Jane Doe_111_assignsubmission_file_/05_uts.ipynb", "Jane Doe_112_assignsubmission_file_/05_uts.ipynb"],
            [("Jane Doe 111", "05"), ("Jane Doe 112", "05")],
        ),
        (
            [
                "Lab 05_jdoe_attempt_2026-05-01-10-00-00_05_uts.ipynb",
                "Lab 06_jdoe_attempt_2026-05-08-10-00-00_06_pid.ipynb",
                "Lab 05_j_roe_attempt_2026-05-01-10-00-00_mine.ipynb",
                "Lab 05_k_roe_attempt_2026-05-01-10-00-00_mine.ipynb",
            ],
            [("j_roe", "05"), ("jdoe", "05"), ("jdoe", "06"), ("k_roe", "05")],
        ),
    ],
    ids=["Canvas", "Moodle", "Moodle, two of one name", "Blackboard"],
)
def test_course_systems_have_one_person_each(names: list[str], expected: list[tuple[str, str]], tmp_path: Path) -> None:
    for name in names:
        path = tmp_path / name
        stored(path.parent, pristine("06" if "06_pid" in name else "05"), path.name)
    tally = Tally()
    assert people(tmp_path, tally) == expected
    assert adds_up(tally, expected)


@pytest.mark.parametrize(
    "names",
    [
        ("Lab_jdoe_attempt_2026-05-01-10-00-00_05_uts.ipynb", "Lab_jdoe_attempt_2026-05-02-09-00-00_05_uts.ipynb"),
        ("doejane_1_99_05_uts.ipynb", "doejane_1_100_05_uts.ipynb"),
    ],
)
def test_the_last_attempt_counts_and_the_others_are_told(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        stored(tmp_path, pristine(), name)
    tally = Tally()
    (found,) = find([tmp_path], tally=tally)
    assert found.path.name == names[1]
    assert [path.name for path, _ in tally.passed_over] == [names[0]]
    assert adds_up(tally, [found])


def test_names_that_no_system_gave_are_not_taken_apart() -> None:
    for name in ("05_uts_alice", "alice_05", "alice", "ann_lee_05_uts", "2026_05_uts"):
        assert lms_names.read(name) is None, name


@pytest.mark.parametrize("ending", [".ipynb.txt", ".ipynb.json", ".IPYNB", ".Ipynb.TXT"])
def test_other_endings_are_notebooks_as_well(ending: str, tmp_path: Path) -> None:
    stored(tmp_path / "alice", pristine(), f"05_uts{ending}")
    stored(tmp_path, pristine(), f"bob{ending}")
    assert people(tmp_path) == [("alice", "05"), ("bob", "05")]


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    stored(tmp_path / "alice", pristine())
    stored(tmp_path / "alice", pristine(), "05_uts-Copy1.ipynb")
    stored(tmp_path / "alice", "x", "notes.txt")
    stored(tmp_path / "alice", "x", ".DS_Store")
    stored(tmp_path / "bob", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}', "mine.ipynb")
    stored(tmp_path / "carol", pristine("06"), "x.ipynb")
    tally, said = Tally(), list[str]()
    found = people(tmp_path, tally, said)
    assert (tally.files, len(found), len(tally.passed_over), len(tally.others)) == (6, 2, 2, 2)
    assert [line for line in said if line.startswith("2 files are no notebooks: ")]


def test_large_files_without_a_name_are_not_parsed_to_find_their_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{"cells": [{"id": "exercise-isolate", "x": [' + ", ".join(["[0]"] * 1_000_000) + "]}]}"
    for number in range(4):
        stored(tmp_path / f"learner{number}", text, "mine.ipynb")
    parsed: list[Path] = []
    monkeypatch.setattr(notebook_reader, "read", parsed.append)
    assert people(tmp_path) == [(f"learner{number}", "05") for number in range(4)]
    assert parsed == []
    assert discover._EXERCISE.findall(b'"exercise": "join"') == [b"join"]


def test_what_lies_in_a_learners_folder_is_that_learners_whatever_it_is_called(tmp_path: Path) -> None:
    """The names of folders are Moodle's, and those of the files in them are the learner's to choose."""
    stored(tmp_path / "Bob Roe_1_assignsubmission_file_", "{}")
    stored(tmp_path / "Mallory_2_assignsubmission_file_", "{}", "Bob Roe_9_assignsubmission_file_05_uts.ipynb")
    found = {one.learner: one.path.parent.name for one in find([tmp_path])}
    assert found == {name: f"{name}_{id_}_assignsubmission_file_" for name, id_ in (("Bob Roe", 1), ("Mallory", 2))}


def test_nobody_hands_in_for_another_by_a_name_that_a_course_system_would_give(tmp_path: Path) -> None:
    stored(tmp_path, pristine(), "bob_1_10_05_uts.ipynb")
    stored(tmp_path / "mallory", pristine(), "bob_1_99999_05_uts.ipynb")
    stored(tmp_path / "monday", pristine(), "ann_2_11_05_uts.ipynb")
    stored(tmp_path / "monday", pristine(), "eve_3_12_05_uts.ipynb")
    found = {one.learner: one.path.name for one in find([tmp_path])}
    assert found == {
        "bob_1": "bob_1_10_05_uts.ipynb",
        "mallory/bob_1": "bob_1_99999_05_uts.ipynb",
        "monday/ann_2": "ann_2_11_05_uts.ipynb",
        "monday/eve_3": "eve_3_12_05_uts.ipynb",
    }
