"""Notebooks that nobody vouches for, run by nbval in a room: each gets the result that it deserves, and an end."""

import json
from pathlib import Path

import psutil
import pytest
from nbformat import NotebookNode, v4

from labkit import rootfs
from labkit.course import exercise_spec
from labkit.course.authoring import release
from labkit.course.grading import sandbox
from labkit.course.grading.assemble import rebuild
from labkit.course.grading.nbval_run import MAX_CELL_OUTPUT, MAX_OUTPUT, replay
from labkit.course.grading.results import CellRun, Replay
from labkit.course.grading.sandbox import Ended
from labkit.course.grading.submission import Found, read
from labkit.course.source import lab_source
from labkit.errors import Unsupported

pytestmark = pytest.mark.usefixtures("rooms")

pytestmark = pytest.mark.timeout(300)


def toy(*sources: str) -> NotebookNode:
    """A notebook of these cells, below a title."""
    cells = [v4.new_code_cell(one, execution_count=1) for one in sources]  # type: ignore[no-untyped-call]
    cells[1].id = "exercise-toy"
    made = v4.new_notebook(cells=[v4.new_markdown_cell("# Toy"), *cells])  # type: ignore[no-untyped-call]
    assert isinstance(made, NotebookNode)
    return made


def run(answer: str, lab: str = "", **limits: float) -> tuple[CellRun, list[CellRun], Replay]:
    """How a notebook goes with this answer: the run of its cell, of the cells after it, and all.

    It is that of `lab`, with the answer to its exercise `isolate`; or a small one, where it need not be a lab.
    """
    notebook = rebuild(lab, {"isolate": answer}) if lab else toy("kept = 1", answer, "print(kept)", "print(kept + 1)")
    number = next(number for number, cell in enumerate(notebook.cells, 1) if cell.source == answer)
    done = replay(notebook, **limits)  # type: ignore[arg-type]
    found = [cell for cell in done.cells if cell.number == number]
    assert len(found) == 1, done
    assert found[0].source == answer
    return found[0], [cell for cell in done.cells if cell.number > number], done


@pytest.mark.parametrize("lab", ["00", "05", "06", "07"])
def test_an_honest_notebook(lab: str) -> None:
    if lab == "07":
        try:
            rootfs.find("busybox")
        except Unsupported as lack:
            pytest.skip(str(lack))
    answers = {one.exercise.name: one.solved for one in exercise_spec.all_of(lab)}
    notebook = rebuild(lab, answers)
    done = replay(notebook)
    assert done.ok, done
    code = [(number, cell.source) for number, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"]
    assert [(cell.number, cell.source) for cell in done.cells] == code
    assert "passed" in "".join(cell.output for cell in done.cells)


def test_a_notebook_without_answers_runs_to_its_end() -> None:
    done = replay(rebuild("05", {}))
    assert [cell for cell in done.cells if not cell.ok] == [], done.trouble
    assert "not attempted" in "".join(cell.output for cell in done.cells)


def test_a_cell_that_raises_fails_and_the_others_run() -> None:
    cell, after, done = run("raise ValueError('wrong')")
    assert not cell.ok and "ValueError: wrong" in cell.output
    assert after and not done.trouble and not done.ok
    assert after[-1].ok


@pytest.mark.parametrize("mark", ["NBVAL_SKIP", "NBVAL_RAISES_EXCEPTION", "NBVAL_CHECK_OUTPUT", "NBVAL_IGNORE_OUTPUT"])
def test_marks_have_no_effect(mark: str) -> None:
    cell, _, _ = run(f"# {mark}\nprint('it ran')\nraise ValueError")
    assert not cell.ok and "it ran" in cell.output
    if mark == "NBVAL_CHECK_OUTPUT":
        cell, _, _ = run(f"# {mark}\nprint('what it likes')")
        assert cell.ok


def test_what_lies_beside_the_notebook_and_in_it_is_not_there(tmp_path: Path) -> None:
    """A folder full of what Python and pytest would pick up; and a notebook that says it was run, and may fail."""
    planted = "import pathlib; pathlib.Path('/tmp/planted').touch(); raise SystemExit(0)"
    names = ("conftest.py", "sitecustomize.py", "usercustomize.py", "judge.py", "labkit.py", "nbval.py", "pytest.py")
    for name in names:
        (tmp_path / name).write_text(planted)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
    (tmp_path / "answers").symlink_to("/etc/passwd")
    notebook = json.loads(release.text_of(release.build(lab_source.path_of("05"), solved=False)))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell in code:
        cell["metadata"]["tags"] = ["nbval-skip", "raises-exception", "nbval-ignore-output", "skip-execution"]
        cell["execution_count"] = 1
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "passed"}]
        if cell["id"] == "exercise-isolate":
            cell["source"] = f"import os\nprint(os.listdir(), {[name[:-3] for name in names]})\nraise ValueError"
    notebook["cells"] = [cell for cell in notebook["cells"] if ".check(" not in cell["source"]]
    notebook["metadata"]["kernelspec"] = {"name": "planted", "display_name": "x", "language": "x"}
    (tmp_path / "05_uts.ipynb").write_text(json.dumps(notebook))
    submission = read(Found("mallory", "05", tmp_path / "05_uts.ipynb"))
    cell, after, done = run(submission.answers["isolate"], "05")
    assert not cell.ok and "['.ipython', 'state'] ['conftest'" in cell.output, (
        "the folder holds what labkit keeps, and nothing else"
    )
    assert not Path("/tmp/planted").exists()
    assert not done.trouble
    checks = [one for one in after if ".check(" in one.source]
    assert len(checks) == 4, "the checks are there again"
    assert not any("passed" in one.output for one in checks)


def test_a_kernel_that_ends_is_noticed_at_once() -> None:
    cell, after, done = run("import os\nos._exit(0)", seconds_per_cell=200.0, seconds=250.0)
    assert not cell.ok and "died" in cell.output
    assert after and not any(one.ok for one in after)
    assert not done.trouble


def test_a_cell_without_an_end_is_interrupted() -> None:
    cell, after, done = run("import time\nprint('begun')\ntime.sleep(1000)", seconds_per_cell=3.0)
    assert not cell.ok and "begun" in cell.output and "Timeout of 3 seconds" in cell.output
    assert after[-1].ok and not done.trouble


def test_a_cell_that_computes_without_an_end_is_interrupted_sooner() -> None:
    cell, after, done = run("while True: pass", cpu_seconds_per_cell=2.0)
    assert not cell.ok and "more than 2 s of processor time" in cell.output
    assert after[-1].ok and not done.trouble


def test_a_cell_of_the_lab_itself_may_compute_for_longer() -> None:
    code = "import time\nwhile time.process_time() < kept + 4: pass"
    done = replay(toy("kept = 1", "pass", code), cpu_seconds_per_cell=1.0)
    assert [cell for cell in done.cells if not cell.ok] == [], done.trouble


def test_processor_time_of_the_cells_children_counts() -> None:
    code = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'while True: pass'])"
    cell, _, done = run(code, cpu_seconds_per_cell=2.0)
    assert not cell.ok and not done.trouble


@pytest.mark.parametrize("quiet", [True, False], ids=["quiet", "printing"])
def test_a_cell_that_catches_the_interrupt_and_goes_on(quiet: bool) -> None:
    does = "time.sleep(0.1)" if quiet else "time.sleep(0.1); print('on', flush=True)"
    code = f"import time\nwhile True:\n  try:\n    {does}\n  except KeyboardInterrupt:\n    pass"
    cell, after, done = run(code, seconds_per_cell=2.0)
    assert not cell.ok and not any(one.ok for one in after)
    assert not done.trouble


def test_a_cell_that_catches_the_interrupt_and_ends() -> None:
    code = "import time\ntry:\n  time.sleep(1000)\nexcept KeyboardInterrupt:\n  print('all is well')"
    cell, _, _ = run(code, seconds_per_cell=2.0)
    assert not cell.ok and "time limit" in cell.output


PRINTS = {
    "in pieces": "for _ in range(300): print('x' * 1_000_000)",
    "at once": "print('x' * 300_000_000)",
    "small pieces": "import sys\nfor _ in range(10**8): print('x', flush=True)",
    "displayed": "for _ in range(300): display('x' * 1_000_000)",
    "by a child": "!yes | head -c 300000000",
    "as errors": "raise ValueError('x' * 300_000_000)",
    "past the kernel": "import os\nfor _ in range(300): os.write(1, b'x' * 1_000_000)",
    "in the background": "import threading\ndef on():\n  while True: print('x' * 10_000)\n"
    "threading.Thread(target=on).start()",
}


@pytest.mark.parametrize("how", PRINTS)
def test_three_hundred_megabytes_of_output(how: str) -> None:
    before = psutil.Process().memory_info().rss
    cell, after, done = run(PRINTS[how])
    assert not done.trouble
    assert len(cell.output) < MAX_CELL_OUTPUT + 200
    assert sum(len(one.output) for one in done.cells) < MAX_OUTPUT + 200 * len(done.cells)
    if how == "as errors":
        assert not cell.ok
    if how not in ("in pieces", "at once", "as errors", "past the kernel"):  # which it has not the memory to send on
        ended = next(one for one in (cell, *after) if not one.ok)
        assert "printed more than 1,000,000 bytes" in ended.output
        assert not any(one.ok for one in after[after.index(ended) if ended in after else 0 :])
    assert psutil.Process().memory_info().rss - before < 100_000_000


def test_a_kernel_cannot_touch_nbval() -> None:
    """It is another user, whose processes nbval's are not: what nbval says cannot be forged, nor nbval be ended."""
    code = """
import os, signal
tried = {}
for name, act in {
    "kill": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "read": lambda: os.listdir(f"/proc/{os.getppid()}/fd"),
    "memory": lambda: open(f"/proc/{os.getppid()}/mem", "rb"),
    "notebook": lambda: open("/tmp/nbval/notebook.ipynb", "w"),
    "plant": lambda: open("/tmp/nbval/conftest.py", "w"),
    "kernels": lambda: open("/tmp/nbval/jupyter/kernels/enclosed/kernel.json", "w"),
}.items():
    try:
        act()
        tried[name] = "done"
    except OSError as error:
        tried[name] = type(error).__name__
print(set(tried.values()), os.getuid(), os.getppid())
"""
    cell, after, _ = run(code)
    assert cell.ok and "{'PermissionError'} 0 1" in cell.output, cell.output
    assert after[-1].ok


def test_a_kernel_that_changes_how_cells_are_understood_harms_itself_alone() -> None:
    code = "get_ipython().input_transformers_post.append(lambda lines: ['pass\\n'])"
    cell, after, done = run(code)
    assert cell.ok and not done.trouble, "it can have all cells do nothing, which earns nothing"
    assert not any(one.output for one in after)
    assert [one.output for one in run("pass")[1]] == ["1\n", "2\n"], "and the next notebook is none the worse"


def test_a_fork_bomb_and_a_hog_end_with_the_room() -> None:
    bomb = "import os\nwhile True:\n  try:\n    os.fork()\n  except OSError:\n    pass"
    for code in (bomb, "x = []\nwhile True: x.append(bytearray(10_000_000))"):
        done = replay(toy("1", code), cpu_seconds_per_cell=5.0, seconds=30.0)
        assert not done.ok
        assert done.cells and done.cells[0].ok, "what ran before is told all the same"


# What comes out of a room is not believed


@pytest.mark.parametrize(
    "said",
    [
        "x",
        "[]",
        "null",
        '{"cell": false, "ok": true, "output": ""}',
        '{"cell": 0, "ok": 1, "output": ""}',
        '{"cell": 0, "ok": true, "output": 1}',
        '{"cell": 1, "ok": true, "output": ""}',
        '{"cell": -1, "ok": true, "output": ""}',
        "[" * 100_000,
    ],
)
def test_what_has_not_the_form_is_trouble(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "run", lambda *args, **named: Ended(0, said, "", ""))
    done = replay(rebuild("05", {}))
    assert done.cells == () and done.trouble


def test_more_than_there_are_cells_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = rebuild("05", {})
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    said = "\n".join(json.dumps({"cell": n, "ok": True, "output": "\ud800" + "x" * 50_000}) for n in range(count + 1))
    monkeypatch.setattr(sandbox, "run", lambda *args, **named: Ended(0, said, "", ""))
    done = replay(notebook)
    assert len(done.cells) == count and done.trouble
    assert sum(len(cell.output) for cell in done.cells) < MAX_OUTPUT + 100 * count
    json.dumps([cell.output for cell in done.cells], ensure_ascii=False).encode()


def test_a_room_that_was_ended_leaves_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.dumps({"cell": 0, "ok": True, "output": "x"}) + '\n{"cell": 1, "o'
    monkeypatch.setattr(sandbox, "run", lambda *args, **named: Ended(137, said, "", "it used too much"))
    done = replay(rebuild("05", {}))
    assert [cell.ok for cell in done.cells] == [True] and done.trouble == "it used too much"
