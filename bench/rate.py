"""How many containers a second are started, run and waited for, one and two at a time."""

import os
import threading
import time

from bench.sampling import REFERENCE, Row, Sample, Way, interleaved, large_caller, quartiles, tried
from bench.ways import FLOOR, Ways

AT_A_TIME = (1, 2)
_BATCH = 24


def measure(rounds: int) -> list[Row]:
    """Rows of containers a second, by how many at a time. Each way runs batches of 24, in turn with the others."""
    with Ways() as ways, large_caller():
        working, why = tried(ways.running_true())
        working.pop(FLOOR, None)  # one process of it makes one at a time
        batches = {(name, at): _batches(way, at) for name, way in working.items() for at in AT_A_TIME}
        samples = interleaved(batches, rounds // 20 or 1)
        rows = []
        for (name, at), taken in samples.items():
            low, median, high = quartiles([_BATCH / sample.wall_s for sample in taken], 0)
            crun = samples.get((REFERENCE, at))
            ratio = None
            if crun:
                ratio = round(median / quartiles([_BATCH / sample.wall_s for sample in crun], 3)[1], 2)
            rows.append(Row("rate", name, "containers/s", median, low, high, None, ratio, at))
        why |= ways.notes
    rows.sort(key=lambda found: (found.at or 0, -(found.median or 0)))
    return rows + [Row("rate", name, "containers/s", note=note) for name, note in why.items()]


def _batches(way: Way, at_a_time: int) -> Way:
    """The way of going `way` 24 times, `at_a_time` threads of this process at once."""

    def batch(number: int) -> Sample:
        numbers = iter(range(_BATCH))
        lock, failures = threading.Lock(), []

        def work() -> None:
            try:
                while True:
                    with lock:
                        mine = next(numbers, None)
                    if mine is None:
                        return
                    way((number + 1) * _BATCH + mine + os.getpid())
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(at_a_time)]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.perf_counter() - begun
        if failures:
            raise RuntimeError(str(failures[0])) from failures[0]
        return Sample(wall)

    return batch
