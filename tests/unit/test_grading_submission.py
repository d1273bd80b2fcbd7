"""Submissions are read as data, whatever they are; and what of them is taken."""

import copy
import json
import os
import random
import socket
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import nbformat
import pytest

from labkit.course import exercise_spec
from labkit.course.authoring import release
from labkit.course.grading import discover, notebook_reader, search
from labkit.course.grading.submission import MAX_ANSWER, Found, Submission, find, read
from labkit.course.source import lab_source
from labkit.files import state_folder

ANSWER = "def isolate(hostname):\n    unshare(CLONE_NEWUTS)\n    sethostname(hostname)"


def pristine(lab: str = "05", solved: bool = False) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(release.text_of(release.build(lab_source.path_of(lab), solved=solved)))
    return notebook


def cell_of(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    return next(cell for cell in notebook["cells"] if cell["id"] == f"exercise-{name}")


def answered(**answers: str) -> dict[str, Any]:
    notebook = pristine()
    for name, text in answers.items():
        cell_of(notebook, name)["source"] = text
    return notebook


def stored(folder: Path, notebook: Any, name: str = "05_uts.ipynb") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(notebook if isinstance(notebook, str) else json.dumps(notebook))
    return folder / name


def submitted(folder: Path, notebook: Any) -> Submission:
    return read(Found("alice", "05", stored(folder, notebook)))


def summary(found: list[Found]) -> list[tuple[str, str, str]]:
    return [(one.learner, one.lab, one.path.name) for one in found]


# What is taken


def test_an_untouched_copy_has_no_answers(tmp_path: Path) -> None:
    assert submitted(tmp_path, pristine()) == Submission()


@pytest.mark.parametrize("md", lab_source.all_paths(), ids=[md.stem for md in lab_source.all_paths()])
def test_a_solved_notebook_has_all_answers(md: Path) -> None:
    number = md.stem[:2]
    found = read(Found("alice", number, release.solved_path(md)))
    assert found.answers == {one.exercise.name: one.solved for one in exercise_spec.all_of(number)}
    assert not found.refused and not found.notes


def test_only_the_source_is_taken(tmp_path: Path) -> None:
    notebook = answered(isolate=ANSWER)
    cell = cell_of(notebook, "isolate")
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "passed"}]
    cell["execution_count"] = 7
    cell["metadata"]["tags"] = ["raises-exception", "nbval-skip"]
    found = submitted(tmp_path, notebook)
    assert found.answers == {"isolate": ANSWER}
    assert found.notes == ("The cell of isolate is marked so as not to be run, or not to fail. The mark was dropped.",)


def test_a_comment_that_has_nbval_skip_the_cell_is_noted(tmp_path: Path) -> None:
    found = submitted(tmp_path, answered(isolate="# NBVAL_SKIP\n" + ANSWER))
    assert "marked so as not to be run" in found.notes[0]


def test_source_as_a_list_of_lines_and_line_ends_of_other_systems(tmp_path: Path) -> None:
    notebook = answered()
    cell_of(notebook, "isolate")["source"] = ["a = 1\r\n", "b = 2\r\n"]
    assert submitted(tmp_path, notebook).answers == {"isolate": "a = 1\nb = 2\n"}


def test_metadata_say_which_cell_it_is_where_the_id_does_not(tmp_path: Path) -> None:
    notebook = answered(isolate=ANSWER)
    cell_of(notebook, "isolate")["id"] = "1a2b3c4d"
    assert submitted(tmp_path, notebook).answers == {"isolate": ANSWER}


def test_of_two_cells_the_one_that_was_worked_in(tmp_path: Path) -> None:
    notebook = pristine()
    second = {**cell_of(notebook, "isolate"), "id": "copied", "source": ANSWER}
    notebook["cells"].insert(0, second)
    found = submitted(tmp_path, notebook)
    assert found.answers == {"isolate": ANSWER}
    assert found.notes == ("2 cells are said to answer isolate: cell 1 counts.",)


def in_cells(*sources: str) -> dict[str, Any]:
    """A notebook whose cell of `isolate` was split or copied: in JupyterLab the metadata stay, the ids do not."""
    notebook = pristine()
    first = cell_of(notebook, "isolate")
    at = notebook["cells"].index(first)
    made = [{**first, "id": f"{number:08x}", "source": text} for number, text in enumerate(sources)]
    notebook["cells"][at : at + 1] = made
    return notebook


STUB = next(one.stub for one in exercise_spec.all_of("05") if one.exercise.name == "isolate")
HELPER = "def helper(name):\n    return name"


@pytest.mark.parametrize(
    ("cells", "answer"),
    [
        (["import time", ANSWER], f"import time\n\n{ANSWER}"),
        (["# my answer", ANSWER, "# and that was it"], f"# my answer\n\n{ANSWER}\n\n# and that was it"),
        ([HELPER, ANSWER], f"{HELPER}\n\n{ANSWER}"),
        ([ANSWER, HELPER], f"{ANSWER}\n\n{HELPER}"),
        ([ANSWER, STUB], ANSWER),
        ([STUB, ANSWER], ANSWER),
        (["isolate = None", ANSWER], ANSWER),
        ([ANSWER, "isolate(1) == 2"], f"{ANSWER}\n\nisolate(1) == 2"),
        ([ANSWER, "def isolate(hostname):\n    later"], "def isolate(hostname):\n    later"),
        ([ANSWER, ""], ANSWER),
        (["first", "second"], "first"),
    ],
)
def test_a_cell_that_was_split_or_copied_counts(cells: list[str], answer: str, tmp_path: Path) -> None:
    assert submitted(tmp_path, in_cells(*cells)).answers == {"isolate": answer}


@pytest.mark.parametrize(
    ("line", "noted"),
    [
        ("!ls", True),
        ("%matplotlib inline", True),
        ("%%time", True),
        ("?os.path", True),
        ("os.path?", True),
        ("names = !ls", True),
        ("x = %pwd", True),
        ("    % name)", False),
        ("%%needs cgroups", False),
        ("x = 1 % 2", False),
        ("if a != b: pass", False),
        ('print("what?")', False),
    ],
)
def test_lines_for_ipython_are_noted(line: str, noted: bool, tmp_path: Path) -> None:
    text = f"{line}\n{ANSWER}"
    found = submitted(tmp_path, answered(isolate=text))
    assert found.answers == {"isolate": text}
    assert found.notes == (
        ("Line 1 of the answer to isolate: for IPython (!, %, ?), which grading leaves out.",) * noted
    )


@pytest.mark.timeout(20)
def test_long_lines_do_not_keep_the_search_for_definitions_busy(tmp_path: Path) -> None:
    for text in ("a" * 90_000, "a:" + " " * 90_000, "a" + " " * 90_000, "def" + " " * 90_000, "a, " * 30_000):
        submitted(tmp_path, in_cells(text, text))


def test_a_deleted_cell_and_one_that_is_no_code_cell(tmp_path: Path) -> None:
    notebook = answered(join="join = 1")
    notebook["cells"].remove(cell_of(notebook, "isolate"))
    cell_of(notebook, "join")["cell_type"] = "markdown"
    found = submitted(tmp_path, notebook)
    assert found.answers == {}
    assert "The cell of isolate is not there: not attempted." in found.notes
    assert "A cell of join is not a code cell any more; it is not graded." in found.notes


def test_code_elsewhere_is_noted_and_left_out(tmp_path: Path) -> None:
    notebook = answered(isolate=ANSWER)
    check = next(cell for cell in notebook["cells"] if cell["source"] == "lab.isolate.check(isolate)")
    check["source"] = "print('passed')"
    number = notebook["cells"].index(check) + 1
    found = submitted(tmp_path, notebook)
    assert found.answers == {"isolate": ANSWER}
    assert found.notes == (
        f"Code outside of the exercise cells was changed or added, and is not graded: cell {number}.",
    )


def test_an_answer_has_a_size_at_most(tmp_path: Path) -> None:
    found = submitted(tmp_path, answered(isolate="#" * MAX_ANSWER, join="#" * (MAX_ANSWER + 1)))
    assert list(found.answers) == ["isolate"]
    assert found.notes == ("The answer to join is bigger than 100 kB: not graded.",)


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    found = submitted(tmp_path, answered(isolate="name = '\ud83d'"))
    assert found.answers == {"isolate": "name = '?'"}
    assert len(found.notes) == 1


# What is refused


DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"{",
    "another kind of file": b"%PDF-1.7 \x00\x01",
    "not UTF-8": b'{"cells": "\xff\xfe"}',
    "UTF-16": '{"cells": []}'.encode("utf-16"),
    "nested": DEEP.encode(),
    "nested in a cell": b'{"nbformat": 4, "cells": [' + DEEP.encode() + b"]}",
    "objects nested": b'{"a":' * 90_000 + b"1" + b"}" * 90_000,
    "many lists": b'{"nbformat": 4, "cells": [], "metadata": [' + b"[]," * 1_000_000 + b"[]]}",
    "a number": b"4",
    "null": b"null",
    "a list": b"[]",
    "a digit too many": b"1" * 1_000_000,
    "no cells": b'{"nbformat": 4}',
    "cells are an object": b'{"nbformat": 4, "cells": {}}',
    "format 3": b'{"nbformat": 3, "worksheets": []}',
    "format 5": b'{"nbformat": 5, "cells": []}',
    "format true": b'{"nbformat": true, "cells": []}',
    "format is a text": b'{"nbformat": "4", "cells": []}',
    "many cells": json.dumps({"nbformat": 4, "cells": [{}] * 2001}).encode(),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_file_that_is_no_notebook_is_refused_in_a_sentence(what: str, tmp_path: Path) -> None:
    path = tmp_path / "05_uts.ipynb"
    path.write_bytes(HOSTILE[what])
    found = read(Found("alice", "05", path))
    assert found.refused.endswith(".") and found.refused.isprintable() and len(found.refused) < 350
    assert not found.answers


OLD_FORMAT = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [{"cells": []}]}
BROKEN: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "The file is empty."),
    "zeros, after a crash": (bytes(3000), "The file is empty."),
    "cut": (json.dumps(pristine()).encode()[:3000], "The file is not JSON"),
    "conflict": (b'{"cells": [\n<<<<<<< HEAD\n1\n=======\n2\n>>>>>>> theirs\n]}', "git checkout --ours FILE"),
    "archive": (b"PK\x03\x04...", "The file is a ZIP archive"),
    "export": (b"<!DOCTYPE html>\n<html></html>", "File, Download gives it."),
    "saved as UTF-16": (json.dumps(pristine()).encode("utf-16"), "Save it as UTF-8 with a text editor"),
    "old format": (json.dumps(OLD_FORMAT).encode(), "Open it in JupyterLab, save it there"),
    "large": (json.dumps(pristine()).encode() + b" " * 10_000_000, "Clear Outputs of All Cells"),
}
OPENS_ALL_THE_SAME = ("format true",)


@pytest.mark.parametrize("what", [*BROKEN, *HOSTILE])
def test_advice_is_to_open_a_file_in_jupyterlab_only_where_that_opens_it(what: str, tmp_path: Path) -> None:
    data, wanted = BROKEN[what] if what in BROKEN else (HOSTILE[what], "")
    (tmp_path / "05_uts.ipynb").write_bytes(data)
    refused = read(Found("alice", "05", tmp_path / "05_uts.ipynb")).refused
    assert wanted in refused
    try:  # as JupyterLab's server does
        nbformat.reads(data.decode("utf-8"), as_version=4)  # type: ignore[no-untyped-call]
    except Exception:
        assert "Open it in JupyterLab" not in refused and ". In JupyterLab" not in refused
    else:
        assert "JupyterLab cannot open it" not in refused or what in OPENS_ALL_THE_SAME


def test_what_is_odd_but_does_no_harm_is_read(tmp_path: Path) -> None:
    text = json.dumps(answered(isolate=ANSWER))
    odd = text[:-1] + f', "x": NaN, "y": -Infinity, "z": {"9" * 100_000}, "w": 1e999999, "x": 1}}'
    found = submitted(tmp_path, odd)
    assert found.answers == {"isolate": ANSWER} and not found.refused
    assert found.notes == ("The file names a key of its JSON twice; the last one counts, as in JupyterLab.",)


def test_cells_of_wrong_types_are_passed_over(tmp_path: Path) -> None:
    notebook = answered(isolate=ANSWER)
    wrong: list[Any] = [None, 1, "cell", [], {}, {"cell_type": []}, {"cell_type": "code"}]
    sources: list[Any] = [1, None, {}, [1], [["a"]]]
    wrong += [{"cell_type": "code", "source": one} for one in sources]
    ids: list[Any] = [1, None, [], {}]
    metadata: list[Any] = [None, [], {"labkit": 1}, {"labkit": {"exercise": {}}, "tags": 1}, {"tags": [1, None]}]
    harmless = [{"cell_type": "code", "source": "", "id": one, "metadata": two} for one in ids for two in metadata]
    notebook["cells"] += wrong + harmless
    found = submitted(tmp_path, notebook)
    assert found.answers == {"isolate": ANSWER}
    assert found.notes == (f"{len(wrong)} cells are none by the format of notebooks.",)


def test_a_big_notebook_is_not_read(tmp_path: Path) -> None:
    path = stored(tmp_path, "")
    os.truncate(path, 100_000_000)
    tracemalloc.start()
    try:
        found = read(Found("alice", "05", path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.refused.startswith("The notebook is bigger than 10 MB.")
    assert peak < 5_000_000


def test_a_file_that_grows_or_has_no_size_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of /proc say that they are empty."""
    monkeypatch.setattr(notebook_reader, "MAX_BYTES", 100)
    assert read(Found("alice", "05", Path("/proc/self/smaps"))).refused.startswith("The notebook is bigger")


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    places = {kind: tmp_path / f"{kind}.ipynb" for kind in ("link", "fifo", "socket", "folder", "missing")}
    places["link"].symlink_to("/etc/passwd")
    os.mkfifo(places["fifo"])
    places["folder"].mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(places["socket"]))
        refused = {kind: read(Found("alice", "05", path)).refused for kind, path in places.items()}
    assert refused.pop("missing") == "The file cannot be read: No such file or directory."
    assert set(refused.values()) == {"It is not a regular file. Hand in the notebook itself."}
    assert (
        read(Found("alice", "05", Path("/dev/zero"))).refused
        == "It is not a regular file. Hand in the notebook itself."
    )


def test_a_file_that_became_a_link_or_a_fifo_after_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the opening it is another file: the opening itself neither follows nor waits."""
    regular = os.stat(__file__)
    assert stat.S_ISREG(regular.st_mode)
    monkeypatch.setattr(Path, "lstat", lambda path: regular)
    (tmp_path / "link.ipynb").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo.ipynb")
    assert read(Found("a", "05", tmp_path / "link.ipynb")).refused.startswith("The file cannot be read")
    assert read(Found("a", "05", tmp_path / "fifo.ipynb")).refused.startswith("It is not a regular file")


def test_random_changes_never_raise(tmp_path: Path) -> None:
    chance = random.Random(5)
    whole = json.dumps(answered(isolate=ANSWER)).encode()
    values: list[Any] = [None, True, 4, -1.5, "", "exercise-isolate", [], {}, [[]], {"labkit": {"exercise": "isolate"}}]
    refused = 0
    for _ in range(400):
        if chance.random() < 0.5:
            data = bytearray(whole)
            for _ in range(chance.randrange(1, 20)):
                at = chance.randrange(len(data))
                data[at : at + chance.randrange(3)] = bytes([chance.randrange(256)])
        else:
            notebook = answered(isolate=ANSWER)
            for _ in range(chance.randrange(1, 5)):
                inside: Any = notebook
                while isinstance(inside, (dict, list)) and inside:
                    key = chance.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
                    if chance.random() < 0.3 or not isinstance(inside[key], (dict, list)):
                        inside[key] = copy.deepcopy(chance.choice(values))
                        break
                    inside = inside[key]
            data = bytearray(json.dumps(notebook).encode())
        path = tmp_path / "05_uts.ipynb"
        path.write_bytes(data)
        found = read(Found("alice", "05", path))
        assert all(isinstance(text, str) for text in found.answers.values())
        refused += bool(found.refused)
    assert 20 < refused < 380


# Which notebook is whose


def test_one_notebook(tmp_path: Path) -> None:
    assert summary(find([stored(tmp_path / "alice", "{}")])) == [("alice", "05", "05_uts.ipynb")]
    assert summary(find([stored(tmp_path, pristine(), "bob.ipynb")])) == [("bob", "05", "bob.ipynb")]


def test_a_folder_of_one_labs_notebooks(tmp_path: Path) -> None:
    for name in ("alice.ipynb", "bob.ipynb"):
        stored(tmp_path, pristine("11"), name)
    stored(tmp_path, "{}", "05_uts_carol.ipynb")
    assert summary(find([tmp_path])) == [
        ("alice", "11", "alice.ipynb"),
        ("bob", "11", "bob.ipynb"),
        ("carol", "05", "05_uts_carol.ipynb"),
    ]


@pytest.mark.parametrize(
    "layout", ["{}/05_uts.ipynb", "{}/labs/05_uts.ipynb", "{}/05_uts/05_uts.ipynb", "05_uts/{}/05_uts.ipynb"]
)
def test_a_folder_for_each_learner(layout: str, tmp_path: Path) -> None:
    for name in ("alice", "bob"):
        stored((tmp_path / layout.format(name)).parent, "{}")
    assert summary(find([tmp_path])) == [("alice", "05", "05_uts.ipynb"), ("bob", "05", "05_uts.ipynb")]
    if not layout.startswith("05"):
        folders = [tmp_path / "alice", tmp_path / "bob"]
        assert summary(find(folders)) == summary(find([tmp_path])), "as a shell writes FOLDER/*"


def test_nbgrader(tmp_path: Path) -> None:
    for folder in ("source", "release", "autograded/alice"):
        stored(tmp_path / folder / "week1", "{}")
    stored(tmp_path / "submitted" / "alice" / "week1", "{}")
    stored(tmp_path / "submitted" / "alice" / "week2", "{}", "06_pid.ipynb")
    wanted = [("alice", "05", "05_uts.ipynb"), ("alice", "06", "06_pid.ipynb")]
    assert summary(find([tmp_path])) == wanted
    assert summary(find([tmp_path / "submitted"])) == wanted


def test_a_fork_of_the_course_has_solved_notebooks_that_are_not_the_learners(tmp_path: Path) -> None:
    stored(tmp_path / "alice" / "labs", "{}")
    stored(tmp_path / "alice" / "tests" / "notebooks" / "solved", "{}", "06_pid.ipynb")
    (tmp_path / "alice" / "labkit").mkdir()
    for name in ("lab", "pyproject.toml"):
        stored(tmp_path / "alice", "", name)
    assert summary(find([tmp_path])) == [("alice", "05", "05_uts.ipynb")]
    assert summary(find([tmp_path / "alice"])) == [("alice", "05", "05_uts.ipynb")]


def test_ones_own_notebooks() -> None:
    course = state_folder.checkout()
    wanted = [(discover.YOU, md.stem[:2], f"{md.stem}.ipynb") for md in lab_source.all_paths()]
    said: list[str] = []
    assert summary(find([course], said.append)) == wanted
    assert summary(find([course / "labs"], said.append)) == wanted
    assert summary(find([course / "labs" / "05_uts.ipynb"], said.append)) == wanted[5:6]
    assert not said


def test_people_of_two_classes_are_not_one(tmp_path: Path) -> None:
    for folder in ("monday/alice", "tuesday/alice", "tuesday/bob"):
        stored(tmp_path / folder, "{}")
    assert [one.learner for one in find([tmp_path])] == ["monday/alice", "tuesday/alice", "tuesday/bob"]


def test_of_two_notebooks_the_one_that_is_called_as_in_the_course(tmp_path: Path) -> None:
    for name in ("05_uts-Copy1.ipynb", "05_uts (1).ipynb", "05_uts.ipynb"):
        stored(tmp_path / "alice", pristine(), name)
    stored(tmp_path / "alice" / "old", "{}")
    said: list[str] = []
    first, second = find([tmp_path], said.append)
    assert (first.learner, first.path.name, len(first.notes)) == ("alice", "05_uts.ipynb", 2)
    assert read(first).notes == first.notes
    assert second.learner == "alice/old"
    assert len(said) == 2


def test_links_and_things_that_are_no_files_are_not_followed(tmp_path: Path) -> None:
    elsewhere = stored(tmp_path / "elsewhere", pristine())
    folder = tmp_path / "class" / "mallory"
    folder.mkdir(parents=True)
    (folder / "05_uts.ipynb").symlink_to(elsewhere)
    (folder / "labs").symlink_to(elsewhere.parent)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "06_pid.ipynb")
    (folder / "folder.ipynb").mkdir()
    stored(folder / ".ipynb_checkpoints", pristine(), "05_uts-checkpoint.ipynb")
    said: list[str] = []
    assert find([tmp_path / "class"], said.append) == []
    assert [line.removeprefix(f"{folder}/") for line in said] == [
        "05_uts.ipynb: a symbolic link, which is not followed",
        "06_pid.ipynb: not a regular file",
        "labs: a symbolic link, which is not followed",
        "loop: a symbolic link, which is not followed",
        f"{folder}: there is no notebook in it",
        f"{tmp_path / 'class'}: there is no notebook in it",
    ]
    links = [folder / "05_uts.ipynb", folder / "labs"]
    assert find(links, said.append) == []
    assert said[-1] == f"{folder / 'labs'}: a symbolic link, which is not followed; give the path it leads to"


def test_what_cannot_be_found_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    stored(tmp_path, "notes", "notes.txt")
    stored(tmp_path, '{"nbformat": 4, "cells": []}', "other.ipynb")
    stored(tmp_path, DEEP, "deep.ipynb")
    names = ["missing", "notes.txt", "other.ipynb", "deep.ipynb", "a\0b", "x" * 300]
    rows = find([tmp_path / name for name in names], said.append)
    assert [(one.learner, one.lab) for one in rows] == [("deep", discover.NO_LAB), ("other", discover.NO_LAB)]
    assert rows[1].refused == "no lab's exercise is in it"
    assert [line.rpartition(": ")[2] for line in said] == [
        "there is no such file or folder",
        "not a notebook",
        "there is no such file or folder",
        "File name too long",
        "notes.txt",
    ]
    said.clear()
    assert find([tmp_path / "other.ipynb"], said.append) == [], "a single one"
    assert said == [f"{tmp_path / 'other.ipynb'}: no lab's exercise is in it"]


def test_one_learners_folder_does_not_keep_the_search_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MAX_ENTRIES", 10)
    monkeypatch.setattr(search, "MAX_UNNAMED", 3)
    for number in range(20):
        stored(tmp_path / "a-many" / f"{number:02}", "")
        stored(tmp_path / "b-unnamed", "{}", f"{number:02}.ipynb")
    deep = tmp_path / "c-deep"
    for _ in range(20):
        deep /= "deeper"
    stored(deep, "{}")
    stored(tmp_path / "zoe", "{}")
    said: list[str] = []
    found = find([tmp_path], said.append)
    assert found[-1].learner == "zoe"
    assert len([one for one in found if one.learner == "b-unnamed"]) == 1, "a row with the reason"
    assert [one.learner for one in found] == ["a-many", "b-unnamed", "c-deep", "zoe"]
    assert [line for line in said if line.endswith("too many files; the others were not looked at")]
    assert [line for line in said if line.endswith("one of too many notebooks without a lab's name; not looked at")]
    assert [line for line in said if line.endswith("too deep to look into")]


@pytest.mark.parametrize("name", ["=cmd()", "<script>", "a\nb", "\x1b[31m", "📦", "a,b;c", "-rf"])
def test_names_are_kept_as_they_are(name: str, tmp_path: Path) -> None:
    stored(tmp_path / name, "{}")
    assert [one.learner for one in find([tmp_path])] == [name]


def test_a_hidden_folder_is_said(tmp_path: Path) -> None:
    for name in (".alice", ".git", ".ipynb_checkpoints"):
        stored(tmp_path / name, "{}")
    said: list[str] = []
    assert find([tmp_path], said.append) == []
    assert said[0] == f"{tmp_path / '.alice'}: a hidden folder, which is not looked into"
    assert len(said) == 2, "that one, and that there is nothing else"


def test_a_name_that_is_no_text_can_be_written_down(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/al\xffice"
    os.mkdir(folder)
    stored(Path(os.fsdecode(folder)), pristine())
    found = find([tmp_path])
    assert [one.learner for one in found] == ["al\\xffice"]
    assert not read(found[0]).refused
