"""Have nbval run a rebuilt notebook from top to bottom, in a room. For people to look at: no points come from it.

The answers run in a kernel that is another user than nbval, so it cannot end it, or write what nbval says (see
`replayer`, which is the half of this in the room). It can lie about its own cells, as any kernel can: what comes out of
the room is text of the learner's, cut here to a size and checked for its form.
"""

import json
from collections.abc import Iterator
from typing import Any

from nbformat import NotebookNode

from labkit.course.grading import sandbox
from labkit.course.grading.results import CellRun, Replay

MAX_CELL_OUTPUT = 20_000  #: characters that are kept of what one cell prints
MAX_OUTPUT = 150_000  #: likewise of all cells together
_MIB = 1 << 20


def replay(
    notebook: NotebookNode,
    *,
    seconds_per_cell: float = 120.0,
    cpu_seconds_per_cell: float = 30.0,
    seconds: float = 600.0,
    printed_bytes: int = 1_000_000,
) -> Replay:
    """Run a notebook that `rebuilt` has put together, to its end or to one of the limits.

    A cell that takes longer is interrupted (the processor time is that of a cell with an answer; a lab's own cells may
    need more of it), and the kernel ended where it does not heed that, or where the notebook
    prints more than `printed_bytes`. `Unsupported`: this machine cannot make rooms. `LabkitError`: no room came about.
    """
    code = dict(enumerate(n for n, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code"))
    task = {
        "notebook": notebook,
        "seconds_per_cell": seconds_per_cell,
        "cpu_seconds_per_cell": cpu_seconds_per_cell,
        "answers": [index for index, number in code.items() if notebook.cells[number - 1].id.startswith("exercise-")],
        "printed_bytes": printed_bytes,
    }
    allowance = sandbox.Allowance(
        wall_seconds=seconds,
        cpu_seconds=seconds / 2,
        memory_bytes=1024 * _MIB,
        pids=64,
        output_bytes=2 * _MIB,
    )
    ended = sandbox.run(
        sandbox.python("labkit.course.grading.nbval_main"), stdin=json.dumps(task).encode(), allowance=allowance
    )
    cells: list[CellRun] = []
    left = MAX_OUTPUT
    for index, ok, output in _lines(ended.stdout):
        if index != len(cells) or index not in code:
            return Replay(tuple(cells), "what nbval said of a cell could not be understood")
        text = cut(output, min(left, MAX_CELL_OUTPUT))
        left -= len(text)
        cells.append(CellRun(code[index], ok, notebook.cells[code[index] - 1].source, text))
    trouble = ended.trouble
    if not trouble and len(cells) < len(code):
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        trouble = f"nbval ended before the notebook did (exit code {ended.exit_code}: {cut(last, 200)})"
    return Replay(tuple(cells), trouble)


def cut(text: str, most: int) -> str:
    """The beginning of a text, and a word on how much is missing; at most `most` characters and that word."""
    most = max(most, 0)
    return text if len(text) <= most else f"{text[:most]}\n[{len(text) - most} more characters]"


def _lines(text: str) -> Iterator[tuple[int, bool, str]]:
    """What is said of each cell: one JSON text in a line. Ends with the first line that is anything else."""
    for line in text.splitlines():
        try:
            said: Any = json.loads(line)
        except (ValueError, RecursionError):
            return
        match said:
            case {"cell": int(index), "ok": bool(ok), "output": str(output)} if not isinstance(index, bool):
                yield index, ok, output.encode("utf-8", "replace").decode()
            case _:
                return
