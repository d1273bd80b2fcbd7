"""A class of submissions: many at once, by processes of this machine, or on a Dask cluster that exists already.

Each submission is read here, as data, and graded by a worker. A worker that dies (the machine ran out of memory, say)
takes down the submissions that were being graded at that moment; each of them gets a second try, alone.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from labkit.course.grading import sandbox
from labkit.course.grading import submission as submissions
from labkit.course.grading.found import Found
from labkit.course.grading.grade import grade, title_of
from labkit.course.grading.results import Exam, Result
from labkit.course.grading.submission import Submission
from labkit.errors import LabkitError

Tell = Callable[[Result], None]
_AHEAD = 4  # submissions that are read while others are graded, for each worker: a class need not fit into memory


def grade_all(
    found: list[Found], exam: Exam, jobs: int = 0, scheduler: str = "", tell: Tell = lambda _: None
) -> list[Result]:
    """Grade them all; return the results in the order of `found`. `tell` gets each as it ends.

    `jobs` at once, 0 for one per processor; or as many as the Dask cluster at `scheduler` (host:port) has workers.
    `LabkitError`: this machine cannot make rooms, or there is no such scheduler.
    """
    if scheduler:
        graded = _on_cluster(found, exam, scheduler)
    else:
        if lack := sandbox.unsupported():
            raise lack
        graded = _here(found, exam, jobs or len(os.sched_getaffinity(0)))
    results = {}
    for one, result in graded:
        results[one] = result
        tell(result)
    return [results[one] for one in found]


def _here(found: list[Found], exam: Exam, jobs: int) -> Iterator[tuple[Found, Result]]:
    left = list(found)
    while left:
        suspects: list[Found] = []
        not_begun: list[Found] = []
        for one, outcome in _with_pool(left, exam, jobs):
            if outcome is None:
                not_begun.append(one)
            elif isinstance(outcome, BrokenProcessPool):
                suspects.append(one)
            else:
                yield one, _result(one, outcome)
        for one in suspects:
            ((_, outcome),) = _with_pool([one], exam, 1)
            if isinstance(outcome, BrokenProcessPool):
                yield one, _failed(one, "the process that graded it was killed; is this machine out of memory?")
            else:
                assert outcome
                yield one, _result(one, outcome)
        left = not_begun


def _with_pool(found: list[Found], exam: Exam, jobs: int) -> Iterator[tuple[Found, Result | BaseException | None]]:
    """Each with its result, or what was raised; None where a worker had died before its turn came."""
    # A new Python each: a fork of this process would share its lab host's descriptors.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            waiting: dict[Future[Result], Found] = {}
            todo = iter(found)
            wanted = jobs * _AHEAD
            while True:
                for one in _first(todo, wanted):
                    try:
                        _submit(pool, one, exam, waiting)
                    except BrokenProcessPool:
                        yield one, None
                        yield from ((one, None) for one in todo)
                if not waiting:
                    return
                ended = wait(waiting, return_when=FIRST_COMPLETED).done
                for future in ended:
                    yield waiting.pop(future), future.exception() or future.result()
                wanted = len(ended)
        finally:
            pool.shutdown(cancel_futures=True)  # where grading is interrupted, nothing more is begun


def _submit(pool: ProcessPoolExecutor, one: Found, exam: Exam, waiting: dict[Future[Result], Found]) -> None:
    waiting[pool.submit(grade, one, submissions.read(one), exam)] = one


def _first(items: Iterator[Found], count: int) -> Iterator[Found]:
    for _ in range(count):
        one = next(items, None)
        if one is None:
            return
        yield one


def _on_cluster(found: list[Found], exam: Exam, scheduler: str) -> Iterator[tuple[Found, Result]]:
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise LabkitError(
            "grading on a cluster takes Dask, which is not installed: .venv/bin/pip install 'distributed>=2024.8'"
        ) from None
    try:
        client = Client(scheduler, timeout="10s", set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise LabkitError(f"there is no Dask scheduler at {scheduler}: {error}") from None
    with client:
        futures = {client.submit(_on_worker, one, submissions.read(one), exam, pure=False): one for one in found}
        for future in as_completed(futures, loop=client.loop):  # type: ignore[no-untyped-call]
            outcome: Any = future.exception() or future.result()
            yield futures[future], _result(futures[future], outcome)


def _on_worker(found: Found, read: Submission, exam: Exam) -> Result:
    if lack := sandbox.unsupported():
        raise lack
    return grade(found, read, exam)


def _result(found: Found, outcome: Result | BaseException) -> Result:
    if isinstance(outcome, Result):
        return outcome
    if isinstance(outcome, LabkitError):
        raise outcome
    return _failed(found, f"{type(outcome).__name__}: {outcome}")


def _failed(found: Found, why: str) -> Result:
    """A submission that we could not grade, and whose fault that is: ours."""
    title = title_of(found.lab)
    text = f"This submission could not be graded, and that is not its fault: {why[:1000]}"
    return Result(found.learner, found.lab, title, str(found.path), refused=text, failed=True, notes=found.notes)
