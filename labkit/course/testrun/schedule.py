"""What runs when: jobs side by side, the longest first; then, alone, what failed, once more."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from labkit.course.testrun import jobs, report, results, sandbox
from labkit.course.testrun.jobs import Job
from labkit.course.testrun.results import Done

JOB_SECONDS = 2400.0  #: a job that takes longer is ended, and its tests that had not run are run alone


@dataclass(frozen=True)
class Run:
    """How jobs are run."""

    checkout: Path
    state: Path
    folder: Path  #: for logs, reports and the jobs' own folders
    apart: bool
    strict: bool
    long: bool
    extra: tuple[str, ...]  #: arguments for pytest


@dataclass
class _Started:
    job: Job
    process: "subprocess.Popen[bytes]"
    pidfd: int
    begun: float
    log: Path
    report: Path
    cleanup: ExitStack


def run(
    to_run: Sequence[Job],
    how: Run,
    at_once: int,
    tell: Callable[[Done], object],
    ready: Callable[[Job], bool] = lambda _: True,
) -> list[Done]:
    """Run `to_run`, `at_once` at a time; `tell` of each that has ended. A job begins when it is `ready`.

    What is interrupted leaves nothing running.
    """
    waiting = sorted(to_run, key=lambda job: -job.seconds)
    started: dict[int, _Started] = {}
    done: list[Done] = []
    poll = select.poll()
    try:
        while waiting or started:
            while job := _next(waiting, at_once - sum(one.job.weight for one in started.values()), ready, not started):
                waiting.remove(job)
                one = _start(job, how, len(done) + len(started))
                started[one.pidfd] = one
                poll.register(one.pidfd, select.POLLIN)
            for pidfd, _ in poll.poll(1000):
                poll.unregister(pidfd)
                done.append(_end(started.pop(pidfd), how))
                tell(done[-1])
            for one in started.values():
                if time.monotonic() - one.begun > JOB_SECONDS:
                    one.process.kill()
    finally:
        for one in started.values():
            print(f"interrupted: {one.job.lane}, at {report.read(one.report).under_way or one.job.name}", flush=True)
            one.process.kill()
            one.process.wait()
            os.close(one.pidfd)
            one.cleanup.close()
    return done


def _next(waiting: Sequence[Job], room: int, ready: Callable[[Job], bool], idle: bool) -> Job | None:
    """The first job that is ready and for which there is room; where nothing runs, there is."""
    return next((job for job in waiting if ready(job) and (job.weight <= room or idle)), None)


def again(first: Sequence[Done], how: Run, tell: Callable[[Done], object]) -> dict[str, Done]:
    """Run the failed tests of `first` once more, file by file with nothing beside; the second run of each test."""
    second: dict[str, Done] = {}
    for job in jobs.of_tests(test for one in first if one.job.python for test in one.again):
        (ended,) = run([job], how, 1, tell)
        second.update(dict.fromkeys(job.arguments, ended))
    return second


def _start(job: Job, how: Run, number: int) -> _Started:
    with ExitStack() as stack:
        place = stack.enter_context(sandbox.place(how.folder, how.state, apart=how.apart))
        stem = f"{number:03}-{job.lane}-{job.name.split()[0]}"
        log, lines = how.folder / f"{stem}.log", how.folder / f"{stem}.jsonl"
        lines.unlink(missing_ok=True)
        argv = list(job.arguments)
        environment = dict(os.environ)
        if job.python:
            python = [sys.executable, "-P", "-m", "pytest", "-p", "labkit.course.testrun.report"]
            argv = place.command([*python, "-q", "--color=no", "-p", "no:cacheprovider", *argv, *how.extra],
                                 network=job.network)  # fmt: skip
            environment[report.REPORT] = str(lines)
            environment |= {"LABKIT_NO_SKIPS": "1"} if how.strict else {}
            environment |= {report.LONG: "1"} if how.long else {}
        output = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            argv, cwd=how.checkout, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        return _Started(job, process, os.pidfd_open(process.pid), time.monotonic(), log, lines, stack.pop_all())


def _end(one: _Started, how: Run) -> Done:
    code = one.process.wait()
    os.close(one.pidfd)
    one.cleanup.close()
    seconds = time.monotonic() - one.begun
    if not one.job.python:
        complaint = f"{' '.join(one.job.arguments)} ended with exit code {code}" if code else ""
        return Done(one.job, code, report.Report(), seconds, one.log, {}, complaint)
    return results.done(one.job, code, report.read(one.report), seconds, one.log, how.strict)
