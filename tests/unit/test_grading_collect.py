"""Who handed in is found, whatever they are called and whatever a course system makes of the names."""

import random
from pathlib import Path

import pytest

from labkit.course.grading import lms_names, notebook_reader, report, which_lab
from labkit.course.grading.discover import NO_LAB, Found, Tally, find
from labkit.course.grading.submission import read
from tests.gradings import result
from tests.unit.test_grading_submission import pristine, stored


def people(folder: Path, tally: Tally | None = None, said: list[str] | None = None) -> list[tuple[str, str]]:
    say = said.append if said is not None else lambda sentence: None
    return [(one.learner, one.lab) for one in find([folder], say, tally)]


def adds_up(tally: Tally, found: list[Found] | list[tuple[str, str]]) -> bool:
    return tally.left == len(found)


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
    assert found == [("alice", "05"), ("bob", NO_LAB), ("carol", "06")]
    assert adds_up(tally, found)
    assert (tally.passed_over, said) == ([], [])
    (refused,) = [read(one).refused for one in find([tmp_path]) if one.learner == "bob"]
    assert "not JSON" in refused, "of which lab it is nobody can tell"


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
            ["Participant_7_assignsubmission_file_/05_uts.ipynb", "Participant 3_8_assignsubmission_file_06_pid.ipynb"],
            [("Participant 3 8", "06"), ("Participant 7", "05")],
        ),
        (
            [
                "05/Teilnehmerin_7_assignsubmission_file_/05_uts.ipynb",
                "06/Teilnehmerin_9_assignsubmission_file_/06_pid.ipynb",
            ],
            [("Teilnehmerin 7", "05"), ("Teilnehmerin 9", "06")],
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
    ids=["Canvas", "Moodle", "Moodle, two of one name", "Moodle, blind", "Moodle, blind, in German", "Blackboard"],
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
    assert found == [("alice", "05"), ("bob", NO_LAB), ("carol", "06")]
    assert (tally.files, len(tally.passed_over), len(tally.others)) == (6, 1, 2)
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
    assert which_lab._EXERCISE.findall(b'"exercise": "join"') == [b"join"]


def test_what_lies_in_a_learners_folder_is_that_learners_whatever_it_is_called(tmp_path: Path) -> None:
    """The names of folders are Moodle's, and those of the files in them are the learner's to choose."""
    stored(tmp_path / "Bob Roe_1_assignsubmission_file_", "{}")
    stored(tmp_path / "Mallory_2_assignsubmission_file_", "{}", "Bob Roe_9_assignsubmission_file_05_uts.ipynb")
    found = {one.learner: one.path.parent.name for one in find([tmp_path])}
    assert found == {name: f"{name}_{id_}_assignsubmission_file_" for name, id_ in (("Bob Roe", 1), ("Mallory", 2))}


def test_the_lab_of_what_lies_in_a_learners_folder_is_not_told_by_a_name_that_a_course_system_would_give(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "Mallory_2_assignsubmission_file_"
    stored(folder, pristine("05"), "Bob Roe_9_assignsubmission_file_06_pid.ipynb")
    assert people(tmp_path) == [("Mallory", "05")]


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


# Who handed in has a row, whatever it was


@pytest.mark.parametrize("one_lab", [True, False], ids=["a class of one lab", "of two"])
@pytest.mark.parametrize(
    ("name", "learner", "reason"),
    [
        ("bob/mine.ipynb", "bob", "is not JSON"),
        ("bob/report.pdf", "bob", "is a PDF"),
        ("monday/bob/work/report.pdf", "monday/bob", "is a PDF"),
        ("bob.pdf", "bob", "is a PDF"),
        ("05_uts_bob.zip", "bob", "is a ZIP"),
        ("doejane_12345_67890_report.pdf", "doejane_12345", "is a PDF"),
        ("Bob Roe_111_assignsubmission_file_/report.pdf", "Bob Roe", "is a PDF"),
        ("Participant_7_assignsubmission_file_/report.pdf", "Participant 7", "is a PDF"),
        ("bob/05_uts.txt", "bob", "is not JSON"),
        ("bob/", "bob", "there is no notebook in it"),
        ("bob/05_uts.ipynb@", "bob", "a symbolic link"),
        ("bob@", "bob", "a symbolic link"),
        ("bob.ipynb@", "bob", "a symbolic link"),
        ("bob/1/2/3/4/5/6/7/8/05_uts.ipynb", "bob", "too deep"),
    ],
)
def test_who_handed_in_has_a_row(name: str, learner: str, reason: str, one_lab: bool, tmp_path: Path) -> None:
    stored(tmp_path / "alice", pristine())
    stored(tmp_path / "monday" / "eve", pristine())
    if not one_lab:
        stored(tmp_path / "carol", pristine("06"), "06_pid.ipynb")
    path = tmp_path / name.rstrip("@")
    if name.endswith("@"):
        path.parent.mkdir(exist_ok=True)
        path.symlink_to("/etc/passwd")
    elif name.endswith("/"):
        path.mkdir()
    else:
        stored(path.parent, {".pdf": "%PDF-1.7", ".zip": "PK\x03\x04"}.get(path.suffix, "nothing"), path.name)
    tally = Tally()
    found = find([tmp_path], tally=tally)
    (row,) = [one for one in found if one.learner not in ("alice", "carol", "monday/eve")]
    assert (row.learner, row.lab) == (learner, "05" if one_lab else NO_LAB)
    assert reason in read(row).refused
    assert adds_up(tally, found), vars(tally)


def test_a_folder_without_a_notebook_has_a_row_among_several_that_were_asked_for(tmp_path: Path) -> None:
    stored(tmp_path / "alice", pristine())
    stored(tmp_path / "bob", "%PDF", "report.pdf")
    stored(tmp_path / "carol" / "work", "%PDF", "report.pdf")
    stored(tmp_path, "%PDF", "eve.pdf")
    (tmp_path / "dan").mkdir()
    tally = Tally()
    found = find(sorted(tmp_path.iterdir()), tally=tally)
    assert [one.learner for one in found] == ["alice", "bob", "carol", "dan", "eve"]
    assert adds_up(tally, found)


def test_the_numbers_add_up_whatever_lies_where(tmp_path: Path) -> None:
    chance = random.Random(4)
    folders = ["alice", "labs", "05_uts", "submitted", "source", "Jane Doe_1_assignsubmission_file_", "release", "bob"]
    files = {"05_uts.ipynb": "{}", "x.pdf": "%PDF", "05_uts-Copy1.ipynb": "{}", "mine.ipynb": "{{", ".DS_Store": "x"}
    for number in range(60):
        whole = tmp_path / str(number)
        for _ in range(chance.randint(1, 9)):
            name = chance.choice([*files])
            stored(whole.joinpath(*chance.choices(folders, k=chance.choice([0, 1, 1, 1, 2, 3]))), files[name], name)
        for wanted in ([whole], sorted(whole.iterdir())):
            tally = Tally()
            found = find(wanted, tally=tally)
            assert adds_up(tally, found), sorted(whole.rglob("*"))
            assert len({(one.learner, one.lab) for one in found}) == len(found)


def test_what_lies_beside_notebooks_makes_no_rows(tmp_path: Path) -> None:
    stored(tmp_path / "alice", pristine())
    stored(tmp_path / "alice" / "images", "x", "a.png")
    stored(tmp_path / "monday" / "bob", pristine("06"), "06_pid.ipynb")
    stored(tmp_path / "monday", "x", "names.csv")
    stored(tmp_path / "Jane Doe_1_assignsubmission_file_", pristine())
    stored(tmp_path / "Jane Doe_1_assignsubmission_onlinetext_", "x", "onlinetext.html")
    stored(tmp_path, "x", "Lab 05_jdoe_attempt_2026-05-01-10-00-00.txt")
    stored(tmp_path, pristine(), "Lab 05_jdoe_attempt_2026-05-01-10-00-00_05_uts.ipynb")
    for name in ("README.txt", "scores.csv", ".hidden.pdf"):
        stored(tmp_path, "x", name)
    stored(tmp_path / "__MACOSX" / "zed", "x", "._05_uts.ipynb")
    tally = Tally()
    found = people(tmp_path, tally)
    assert found == [("Jane Doe", "05"), ("alice", "05"), ("jdoe", "05"), ("monday/bob", "06")]
    assert adds_up(tally, found)
    stored(tmp_path / "alice", "%PDF", "report.pdf")
    assert people(tmp_path / "alice") == [("alice", "05")], "one learner's folder alone"


def test_a_learner_with_a_row_has_another_for_what_cannot_be_read(tmp_path: Path) -> None:
    stored(tmp_path / "alice", pristine())
    stored(tmp_path / "alice", "not JSON", "mine.ipynb")
    stored(tmp_path / "alice", '{"nbformat": 4, "metadata": {}, "cells": []}', "scratch.ipynb")
    stored(tmp_path / "bob", pristine("06"), "06_pid.ipynb")
    tally = Tally()
    found = people(tmp_path, tally)
    assert found == [("alice", "05"), ("alice", NO_LAB), ("bob", "06")]
    assert [path.name for path, _ in tally.passed_over] == ["scratch.ipynb"]
    assert adds_up(tally, found)


def test_two_of_one_name_are_two_where_one_has_handed_in_no_notebook(tmp_path: Path) -> None:
    stored(tmp_path / "Jane Doe_1_assignsubmission_file_", pristine())
    stored(tmp_path / "Jane Doe_2_assignsubmission_file_", "%PDF", "report.pdf")
    assert people(tmp_path) == [("Jane Doe 1", "05"), ("Jane Doe 2", "05")]
    stored(tmp_path / "bob", pristine("06"), "06_pid.ipynb")
    stored(tmp_path / "Jane Doe_3_assignsubmission_file_", "%PDF", "report.pdf")
    found = people(tmp_path)
    assert found == [("Jane Doe", "05"), ("Jane Doe", NO_LAB), ("Jane Doe 3", NO_LAB), ("bob", "06")]


@pytest.mark.parametrize("each", [False, True], ids=["their folder", "as a shell writes FOLDER/*"])
@pytest.mark.parametrize(
    "names", [("labs", "ann"), ("05_uts", "ann"), ("submitted", "ann"), ("labs", "05_uts", "ann"), ("source", "ann")]
)
def test_learners_who_are_called_as_the_courses_folders_are_learners(
    names: tuple[str, ...], each: bool, tmp_path: Path
) -> None:
    for name in names:
        stored(tmp_path / name, pristine())
    folders = [tmp_path / name for name in names] if each else [tmp_path]
    assert [(one.learner, one.path.parent.name) for one in find(folders)] == sorted((name, name) for name in names)


@pytest.mark.parametrize("below", ["", "mine"])
def test_two_learners_who_are_called_submitted_and_source_are_no_course_of_nbgraders(
    below: str, tmp_path: Path
) -> None:
    for name in ("submitted", "source"):
        stored(tmp_path / name / below, pristine())
    found = find([tmp_path])
    assert {one.path.relative_to(tmp_path).parts[0] for one in found} == {"submitted", "source"}
    assert {one.learner.split("/")[0] for one in found} == {"submitted", "source"}


def test_what_of_nbgraders_is_not_looked_into_is_said(tmp_path: Path) -> None:
    stored(tmp_path / "submitted" / "alice" / "week1", pristine())
    stored(tmp_path / "source" / "week1", pristine())
    said = list[str]()
    assert people(tmp_path, said=said) == [("alice", "05")]
    assert said == [f"{tmp_path}: taken for nbgrader's course folder; not looked into: source"]


def test_an_earlier_report_in_the_folder_is_nobodys(tmp_path: Path) -> None:
    stored(tmp_path / "alice", pristine())
    report.write([result("alice")], tmp_path / "graded")
    tally, said = Tally(), list[str]()
    found = people(tmp_path, tally, said)
    assert found == [("alice", "05")]
    assert said == [f"{tmp_path / 'graded'}: the report of an earlier grading, which is not looked into"]
    assert adds_up(tally, found)


@pytest.mark.parametrize("other", ["carol/05_uts.ipynb", "Bob Roe_1_assignsubmission_file_/r.pdf"])
def test_a_notebook_of_the_instructors_beside_learners_folders_hides_nobody(other: str, tmp_path: Path) -> None:
    stored(tmp_path, pristine())
    stored((tmp_path / other).parent, pristine(), Path(other).name)
    stored(tmp_path / "alice", "%PDF", "report.pdf")
    assert {one for one, _ in people(tmp_path)} >= {"alice", "carol" if "carol" in other else "Bob Roe"}
