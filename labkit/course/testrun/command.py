"""`./lab test`: its options, and what it prints.

The last line is always `N passed, N failed, N skipped`, alone.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from labkit import temporary
from labkit.arguments import Parser
from labkit.course.setup import log
from labkit.course.testrun import covered, jobs, related, results, sandbox, schedule
from labkit.course.testrun.install import Installation
from labkit.course.testrun.jobs import Job
from labkit.course.testrun.lanes import LANES, PROGRAMS
from labkit.course.testrun.results import Done, Result
from labkit.files import state_folder

NO_SKIPS = "LABKIT_NO_SKIPS"
_SHOWN_BYTES = 30_000  # of a failed job's output


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="./lab test",
        description="Run the tests, several at once. As root, each job in namespaces of its own.",
        epilog="Lanes: " + ", ".join(LANES) + ". What follows -- goes to pytest.",
    )
    parser.add_argument("what", nargs="*", metavar="LANE|FILE",
                        help="only these lanes, or the tests of these files' rooms")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="say what lanes there are, and end")
    parser.add_argument("--quick", action="store_true", help="in three minutes: the fastest of each lane")
    parser.add_argument("--long", action="store_true", help="also what is left out for its time")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="how many at once (default: cores + 1)")
    parser.add_argument(
        "--no-skips", action="store_true", help=f"a skip that the machine is not to blame for fails (or {NO_SKIPS}=1)"
    )
    words = list(sys.argv[1:] if argv is None else argv)
    cut = words.index("--") if "--" in words else len(words)
    options, extra = parser.parse_args(words[:cut]), words[cut + 1 :]
    if options.list:
        for name, text in LANES.items():
            print(f"{name:<10} {text}")
        return 0
    checkout, state = state_folder.checkout(), state_folder.state()
    try:
        chosen = _jobs(options.what, checkout, quick=options.quick, long=options.long)
    except ValueError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    begun = time.monotonic()
    strict = options.no_skips or os.environ.get(NO_SKIPS, "") not in ("", "0")
    if why := sandbox.unsupported():
        print(f"The tests run on this machine as it is: {why}.")
    (state / "test").mkdir(parents=True, exist_ok=True)
    temporary.remove_abandoned(str(state / "test"))
    how = schedule.Run(checkout, state, state / "test", not why, strict, options.long, tuple(extra))
    signal.signal(signal.SIGTERM, _stop)
    try:
        with Installation(checkout, state, sorted({job.lane for job in chosen})) as there:
            at_once = options.jobs or _at_once()
            first = schedule.run(chosen, how, at_once, _tell, lambda job: there.ready(job.lane))
    except log.SetupError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    second = {}
    if any(one.again for one in first):
        print("Once more, alone, what failed:", flush=True)
        second = schedule.again(first, how, _tell)
    for done in first:
        if done.report.cases and not done.again and not done.complaint and not extra:
            for file in done.job.arguments:
                covered.passed(file.removeprefix("tests/"), checkout)
    return _close(first, second, time.monotonic() - begun)


def _jobs(what: Sequence[str], checkout: Path, *, quick: bool, long: bool) -> list[Job]:
    """The jobs of the lanes and files that were asked for. `ValueError`: a word is neither."""
    lanes = [word for word in what if word in LANES]
    files = [word for word in what if word not in LANES]
    wanted = [lane for lane in LANES if lane in lanes or not what]
    found = [job for lane in wanted for job in jobs.of_lane(lane, checkout, quick=quick, long=long)]
    for file in covered.COVERS:
        if not long and file.partition("/")[0] in wanted and covered.unchanged(file, checkout):
            print(f"Left to the long run: tests/{file}. Nothing that it covers has changed since it passed.")
    for file in files:
        if not (checkout / file.partition("::")[0]).exists() and not Path(file.partition("::")[0]).exists():
            raise ValueError(f"'{file}' is neither a file nor a lane; the lanes are {', '.join(LANES)}.")
    return found + related.jobs_of(files, checkout)


def _at_once() -> int:
    """How many jobs keep the processors busy: tests wait a good part of their time."""
    return (len(os.sched_getaffinity(0)) or 1) + 1


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _tell(done: Done) -> None:
    """A line for a job that has ended; where it failed, what it wrote."""
    failed = len(done.failures)
    said = f"{len(done.report.cases)} tests" if done.job.python else "ok"
    if failed or done.complaint:
        said = f"{failed} failed of {said}" if failed else "failed"
    print(f"{done.job.lane:<10} {done.job.name:<44} {said:<22} {done.seconds:5.0f} s", flush=True)
    if failed or done.complaint:
        text = done.log.read_bytes()
        cut = "... (the whole is in the log)\n" if len(text) > _SHOWN_BYTES else ""
        print(cut + text[-_SHOWN_BYTES:].decode(errors="replace"))
        print(f"{done.complaint or 'failed'}; log: {done.log}", flush=True)


def _close(first: Sequence[Done], second: dict[str, Done], seconds: float) -> int:
    """The end: a table, failures and skips line by line, the unsteady by name, the sums. Returns the exit code."""
    by_lane = {lane: Result(lane) for lane in LANES if any(done.job.lane == lane for done in first)}
    for done in first:
        results.count(by_lane[done.job.lane], done, second)
    for lane, result in by_lane.items():
        if lane not in PROGRAMS and not result.passed + result.failed + result.skipped + result.left:
            result.failed, result.complaints = 1, ["ran no test"]
    Console().print(results.summary(list(by_lane.values())))
    for result in by_lane.values():
        for complaint in result.complaints:
            print(f"{result.lane}: {complaint}")
        for reason, times in result.skips.most_common():
            print(f"{result.lane}: {times} skipped: {reason}")
    unsteady = [test for result in by_lane.values() for test in result.unsteady]
    for test in unsteady:
        print(f"unsteady (failed first, passed alone): {test}")
    failed = any(result.failed for result in by_lane.values())
    if len(unsteady) > results.UNSTEADY_MAX:
        print(f"More than {results.UNSTEADY_MAX} tests are unsteady, which is a failure.")
        failed = True
    print(f"{seconds / 60:.1f} minutes in all, set-up of the tests included.")
    print(results.closing_line(list(by_lane.values())))
    return 1 if failed else 0
