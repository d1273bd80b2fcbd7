"""What a start costs beside 1, 50 and 500 containers that are running already."""

import time

from bench.sampling import REFERENCE, Row, interleaved, large_caller, row, tried
from bench.ways import Ways
from labkit.container import start
from labkit.container.container import Container

RUNNING = (1, 50, 500)


def measure(rounds: int) -> list[Row]:
    """Rows of milliseconds, by how many idle containers of labkit's are there. Then they are ended, which is timed."""
    rows: list[Row] = []
    idle: list[Container] = []
    with Ways() as ways, large_caller():
        try:
            working, why = tried(ways.running_true())
            for count in RUNNING:
                idle += [start(["sleep", "1000000"], root=ways.root) for _ in range(count - len(idle))]
                samples = interleaved(working, max(3, rounds // 3))
                rows += [row("scale", name, taken, samples.get(REFERENCE), at=count) for name, taken in samples.items()]
        finally:
            begun = time.perf_counter()
            for container in idle:
                container.kill()
            ended_s = time.perf_counter() - begun
        why |= ways.notes
    rows.sort(key=lambda found: (found.at or 0, found.median or 0))
    rows.append(Row("scale", "ending them all", "ms", round(ended_s * 1e3, 1), at=len(idle)))
    return rows + [Row("scale", name, "ms", note=note) for name, note in why.items()]
