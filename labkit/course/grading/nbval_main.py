"""In a room: run nbval on a notebook, one line of JSON for each code cell. `python -m labkit.course.grading.nbval_main`

Standard input has the task. This process is root of the room. The notebook's kernel is started by `kernel`, which makes
it another user; folders and environment of the kernel are its own, and nothing of the learner's lies in them.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import nbval.plugin
import pytest

from labkit.course.grading import nbval_limits, sandbox, sandbox_ids
from labkit.course.grading.nbval_run import MAX_CELL_OUTPUT, MAX_OUTPUT, cut
from labkit.files import state_folder

_TASK_BYTES_MAX = 20 << 20
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def main() -> None:
    """Read the task, run nbval, write what it finds as it finds it."""
    task = json.loads(sys.stdin.buffer.read(_TASK_BYTES_MAX))
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")  # not inherited by the kernel, unlike 1 and 2
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    nbval_limits.limits = nbval_limits.Limits(task["cpu_seconds_per_cell"], task["printed_bytes"])
    answers = frozenset(task["answers"])
    notebook, work = _folders(task["notebook"])
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ["LABKIT_NOTEBOOK_FOLDER"] = str(work)
    options = ["--nbval-lax", "--nbval-kernel-name=enclosed", f"--nbval-cell-timeout={task['seconds_per_cell']}"]
    options += [
        "-p",
        "nbval.plugin",
        "-p",
        "labkit.course.authoring.nbval_plugin",
        "-p",
        "labkit.course.grading.nbval_limits",
    ]
    options += ["-p", "no:cacheprovider", "-q", "-c", os.devnull, f"--rootdir={notebook.parent}", "--color=no"]
    code = pytest.main([*options, str(notebook)], plugins=[Reporter(said, answers)])
    said.close()
    os._exit(0 if code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else int(code))


def _folders(notebook: dict[str, Any]) -> tuple[Path, Path]:
    """The notebook's file, in a folder that only this process may write to; and the kernel's working folder."""
    ours, work = Path("/tmp/nbval"), Path("/tmp/work")
    kernels, runtime = ours / "jupyter" / "kernels" / "enclosed", ours / "runtime"
    for folder in (kernels, runtime, work / "state"):
        folder.mkdir(parents=True)
    _root_filesystems(work / "state" / "rootfs")
    for folder in (work, work / "state"):
        os.chown(folder, sandbox_ids.LEARNER, sandbox_ids.LEARNER)
    environ = {
        **sandbox.environment(),
        "HOME": str(work),
        "PYTHONPATH": str(state_folder.checkout()),
        "LABKIT_STATE": str(work / "state"),
    }
    command = [*sandbox.python("labkit.course.grading.enclosed_kernel"), "{connection_file}"]
    spec = {"argv": command, "display_name": "enclosed", "language": "python", "env": environ}
    (kernels / "kernel.json").write_text(json.dumps(spec))
    os.environ["JUPYTER_PATH"] = str(ours / "jupyter")
    os.environ["JUPYTER_RUNTIME_DIR"] = str(runtime)
    file = ours / "notebook.ipynb"
    file.write_text(json.dumps(notebook))
    return file, work


def _root_filesystems(folder: Path) -> None:
    """Those that were built, as links. Of busybox, which labs copy, a copy that the kernel's root owns: in here the
    files of the machine's root are nobody's, and its private folders closed to all.
    """
    folder.mkdir()
    for built in (state_folder.state() / "rootfs").glob("*"):
        if built.name != "busybox":
            (folder / built.name).symlink_to(built)
            continue
        for above, folders, files in os.walk(built):
            copied = folder / Path(above).relative_to(built.parent)
            copied.mkdir()
            for name in files + [name for name in folders if Path(above, name).is_symlink()]:
                shutil.copy2(Path(above, name), copied / name, follow_symlinks=False)
                os.chown(copied / name, sandbox_ids.LEARNER, sandbox_ids.LEARNER, follow_symlinks=False)
            os.chown(copied, sandbox_ids.LEARNER, sandbox_ids.LEARNER)
            os.chmod(copied, os.stat(above).st_mode)


class Reporter:
    """A pytest plugin that writes down what became of each cell, and lets no cell ask to be treated otherwise."""

    def __init__(self, said: Any, answers: frozenset[int]) -> None:
        self._said = said
        self._answers = answers
        self._left = MAX_OUTPUT

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Have every cell run, and fail where it raises, whatever its comments say."""
        for item in items:
            item.options = {"skip": False, "check": False, "check_exception": False}  # type: ignore[attr-defined]

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Say whether the cell that comes now has an answer in it."""
        nbval_limits.is_answer = getattr(item, "cell_num", None) in self._answers

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
        """One line once a cell has run, or could not be run."""
        yield
        if not isinstance(item, nbval.plugin.IPyNbCell):
            return
        if call.when == "call" or (call.when == "setup" and call.excinfo is not None):
            printed = "".join(_text_of(output) for output in item.test_outputs or ())
            if call.excinfo is not None and not isinstance(call.excinfo.value, pytest.skip.Exception):
                printed += _why(call.excinfo.value, printed) + getattr(item.parent.kernel, "trouble", "")
            text = cut(_ANSI.sub("", printed), min(self._left, MAX_CELL_OUTPUT))
            self._left -= len(text)
            said = {"cell": item.cell_num, "ok": call.excinfo is None, "output": text}
            self._said.write(json.dumps(said) + "\n")
            self._said.flush()


def _text_of(output: Any) -> str:
    """What one output says, as text."""
    match output:
        case {"output_type": "stream", "text": str(text)}:
            return text
        case {"output_type": "error", "traceback": [*lines]}:
            return "\n".join(str(line) for line in lines) + "\n"
        case {"data": {"text/plain": str(text)}}:
            return text + "\n"
    return ""


def _why(error: BaseException, printed: str) -> str:
    """Why nbval says that a cell failed, where the cell's own output does not say it."""
    text = str(error)
    return "" if "Cell execution caused an exception" in text and printed else f"{text}\n"


if __name__ == "__main__":
    main()
