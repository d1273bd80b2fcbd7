"""How long a container takes to start, run `true` and be waited for: from a process as large as a Jupyter kernel, and
from a cell of a real notebook kernel. All ways of both kinds go in one interleaved run."""

from collections.abc import Collection

from bench.cell import Notebook
from bench.sampling import CALLER_MIB, REFERENCE, Row, filled, interleaved, large_caller, row, tried
from bench.ways import LABKIT, Ways

BALLAST_MIB = 1200  # for the question whether time grows with the caller's memory


def measure(rounds: int, kinds: Collection[str] = ("start", "cell")) -> list[Row]:
    """The rows of "start" (in process) and "cell", those of `kinds`, fastest first; what could not run last."""
    with Ways() as ways, large_caller(), Notebook(ways if "cell" in kinds else None) as notebook:
        given = {"start": ways.running_true() if "start" in kinds else {}, "cell": notebook.running_true()}
        together = {(kind, name): way for kind, named in given.items() for name, way in named.items()}
        working, why = tried(together)
        samples = interleaved(working, rounds)
        rows = [row(kind, name, taken, samples.get((kind, REFERENCE))) for (kind, name), taken in samples.items()]
        if "start" in kinds:
            ballast = filled(BALLAST_MIB)
            again = interleaved(
                {name: way for (kind, name), way in working.items() if kind == "start"}, rounds // 2 + 1
            )
            rows.append(row("start", larger(), again[LABKIT], again.get(REFERENCE)))
            del ballast
        notes = [Row(kind, name, "ms", note=note) for kind in kinds for name, note in ways.notes.items()]
        notes += [Row(kind, name, "ms", note=note) for (kind, name), note in why.items()]
    return sorted(rows, key=lambda found: (list(kinds).index(found.benchmark), found.median or 0)) + notes


def larger() -> str:
    """What the row of a caller with much memory is called."""
    return f"{LABKIT}, caller of {CALLER_MIB + BALLAST_MIB} MB"
