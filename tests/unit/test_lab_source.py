"""The single source of a lab: what is solved, what is the learner's, and what is refused with its line."""

import re
from pathlib import Path

import pytest

from labkit.course.source import lab_source
from labkit.course.source.lab_source import SourceError, split

CELL = """\
def f(a):
    first(a)
    ### BEGIN SOLUTION
    second(a)

    third(a)
    ### END SOLUTION
"""


def test_default_stub() -> None:
    solved, learner = split(CELL)
    assert solved == "def f(a):\n    first(a)\n    second(a)\n\n    third(a)"
    assert learner == "def f(a):\n    first(a)\n    ...  # your code here"


def test_a_stub_of_ones_own() -> None:
    cell = "### BEGIN SOLUTION\nx = 3\n### STUB\n#| x = None\n#|\n#|   # indented\n### END SOLUTION\nprint(x)"
    assert split(cell) == ("x = 3\nprint(x)", "x = None\n\n  # indented\nprint(x)")


def test_an_empty_stub_and_two_solutions() -> None:
    cell = "a\n### BEGIN SOLUTION\nb\n### STUB\n### END SOLUTION\nc\n### BEGIN SOLUTION\nd\n### END SOLUTION"
    assert split(cell) == ("a\nb\nc\nd", "a\nc\n...  # your code here")


def test_solved_only_lines() -> None:
    assert split('ask()\nanswer("x")  ### SOLVED ONLY') == ('ask()\nanswer("x")', "ask()")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("a\n### BEGIN SOLUTION\nb", "lab.md:11: ### BEGIN SOLUTION without"),
        ("a\n### END SOLUTION", "lab.md:11: ### END SOLUTION without"),
        ("### STUB", "lab.md:10: ### STUB without"),
        ("### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION", "lab.md:11: ### BEGIN SOLUTION inside"),
        ("### BEGIN SOLUTION\n  ### END SOLUTION", "lab.md:11: ### END SOLUTION is not indented"),
        ("### BEGIN SOLUTION\n### STUB\n### STUB\n### END SOLUTION", "lab.md:12: a second"),
        ("### BEGIN SOLUTION\n### STUB\nx\n### END SOLUTION", "lab.md:12: a line under"),
        ("### begin solution", "lab.md:10: not a marker"),
        ("## END SOLUTION", "lab.md:10: not a marker"),
        ("x = 1  ### BEGIN SOLUTION", "lab.md:10: not a marker"),
    ],
)
def test_wrong_markers_are_said_with_their_line(cell: str, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        split(cell, "lab.md", 10)
    assert str(caught.value).startswith(message)


def written(tmp_path: Path, body: str) -> Path:
    head = "---\nkernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n"
    path = tmp_path / "90_x.md"
    path.write_text(head + body)
    return path


def test_cells_with_their_exercise(tmp_path: Path) -> None:
    body = "# Title\n\ntext\n\n```{code-cell} ipython3\n:exercise: f\n:tags: [a]\n\nf = 1\n```\n"
    markdown, code = lab_source.read(written(tmp_path, body))
    assert (markdown.kind, markdown.solved) == ("markdown", "# Title\n\ntext")
    assert (code.kind, code.exercise, code.metadata, code.solved) == ("code", "f", {"tags": ["a"]}, "f = 1")


def test_fences_in_markdown_are_not_cells(tmp_path: Path) -> None:
    body = "```mermaid\ngraph LR\n```\n\n```{code-cell} ipython3\n1\n```\n\n```python\nnot python (\n```\n"
    assert [cell.kind for cell in lab_source.read(written(tmp_path, body))] == ["markdown", "code", "markdown"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("```{code-cell} ipython3\n1\n```\n\n```{code-cell} ipython3\n:exercise: f\n\nx = (\n```\n", ":14: "),
        ("```{code-cell} ipython3\na = 1\n### END SOLUTION\n```\n", ":9: ### END SOLUTION without"),
        ("text\n\n### BEGIN SOLUTION\n", ":9: a solution marker outside"),
        (
            "```{code-cell} ipython3\ndef f():\n    ### BEGIN SOLUTION\n    1\n    ### STUB\n    ### END SOLUTION\n```",
            ":8: ",
        ),
        ("```{code-cell} ipython3\n# NBVAL_SKIP\n1\n```\n", ":8: a cell that asks"),
        ("```{code-cell} ipython3\n:tags: [nbval-skip]\n\n1\n```\n", ":10: a cell that asks"),
    ],
)
def test_wrong_sources_are_said_with_their_line(tmp_path: Path, body: str, message: str) -> None:
    path = written(tmp_path, body)
    with pytest.raises(SourceError) as caught:
        lab_source.read(path)
    assert str(caught.value).startswith(f"{path}{message}"), caught.value


def test_solution_is_the_solved_cell(tmp_path: Path) -> None:
    path = written(tmp_path, f"```{{code-cell}} ipython3\n:exercise: f\n\n{CELL}```\n")
    assert lab_source.solution(path, "f") == split(CELL)[0]
    with pytest.raises(SourceError, match="0 cells"):
        lab_source.solution(path, "g")


def test_a_lab_says_what_it_needs(tmp_path: Path) -> None:
    lab = tmp_path / "90_x.md"
    for line, wanted in (("", ()), ("needs: [cgroup-v2]\n", ("cgroup-v2",)), ("needs: cgroup-v2\n", ("cgroup-v2",))):
        lab.write_text(f"---\nkernelspec:\n  display_name: Python 3\n  name: python3\n{line}---\n\n# A lab\n")
        assert lab_source.needs(lab) == lab_source.needs_anywhere(lab) == wanted
    head = "---\nkernelspec:\n  display_name: Python 3\n  name: python3\n"
    lab.write_text(f"{head}needs: [kvm]\nneeds_in_part: [guest, kvm]\n---\n\n# A lab\n")
    assert (lab_source.needs(lab), lab_source.needs_anywhere(lab)) == (("kvm",), ("kvm", "guest"))
    lab.write_text("---\nkernelspec:\n  display_name: Python 3\n  name: python3\nneeds: [wings]\n---\n\n# A lab\n")
    with pytest.raises(SourceError, match=r"90_x.md: needs 'wings', which is none of: cgroup-v2"):
        lab_source.needs(lab)


def test_what_a_cell_needs_its_lab_declares() -> None:
    """Else its solved notebook could be made where that is missing, with the lack in place of the outputs."""
    asked = re.compile(r"^%%(?:needs|observe .*? needs) (.+)$", re.MULTILINE)
    found = {
        md.stem: {word for line in asked.findall(md.read_text()) for word in line.split()}
        for md in lab_source.all_paths()
    }
    assert found["12_box"] == {"lxc"}
    for md in lab_source.all_paths():
        assert found[md.stem] <= set(lab_source.needs_anywhere(md)), md.name


def test_a_cell_of_the_labs_own_magics_is_python(tmp_path: Path) -> None:
    lab = tmp_path / "90_x.md"
    head = "---\nkernelspec:\n  display_name: Python 3\n  name: python3\n---\n\n"
    for magic in ("%%observe x", "%%needs cgroup-v2"):
        lab.write_text(f"{head}```{{code-cell}} ipython3\n{magic}\nx = (\n```\n")
        with pytest.raises(SourceError, match="was never closed"):
            lab_source.read(lab)
