"""Run an executed notebook again with nbval and compare: does it still give what it gave?"""

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from labkit.course.authoring import execute
from labkit.files import state_folder


@dataclass(frozen=True)
class Replay:
    """How a replay went: the exit code of pytest (0: everything as stored), and what it said.

    `state` was its LABKIT_STATE, a folder that is gone by now: whatever process still names it was left behind.
    """

    exit_code: int
    text: str
    state: Path


def replay(notebook: Path, *, folder: Path, sanitize: Path, seconds_per_cell: int = 60, imports: str = "") -> Replay:
    """Run `notebook` in `folder` with a new kernel and fresh progress, and compare its outputs with the stored ones.

    `sanitize` is nbval's file of what differs every time; this machine's paths are added to it. `imports` is a folder
    that the notebook may import from.
    """
    with tempfile.TemporaryDirectory(prefix="labkit-replay-") as temporary:
        scratch = Path(temporary)
        (scratch / "state").mkdir()
        environ = execute.environment(scratch / "state")
        environ["LABKIT_NOTEBOOK_FOLDER"] = str(folder)
        environ["NO_COLOR"] = "1"
        if imports:
            environ["PYTHONPATH"] = os.pathsep.join([imports, environ["PYTHONPATH"]])
        rules = scratch / "sanitize.cfg"
        rules.write_text(sanitize.read_text(encoding="utf-8") + _paths_of_this_machine(), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "--nbval", f"--nbval-sanitize-with={rules}"]
        command += [f"--nbval-cell-timeout={seconds_per_cell}", "--nbval-kernel-startup-timeout=60"]
        command += ["-p", "labkit.course.authoring.nbval_plugin", "-p", "no:cacheprovider", "-q", "--color=no"]
        command += ["-c", os.devnull, f"--rootdir={notebook.parent}", str(notebook)]
        done = subprocess.run(command, env=environ, cwd=scratch, capture_output=True, text=True, check=False)
        return Replay(done.returncode, done.stdout + done.stderr, scratch / "state")


def _paths_of_this_machine() -> str:
    return "".join(
        f"\n[{name}]\nregex: {re.escape(path)}\nreplace: {name}\n"
        for path, name in ((str(state_folder.checkout()), "<checkout>"), (f"{Path.home()}/", "~/"))
    )
