"""What is counted, and what is shown at the end."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from labkit.course.testrun.jobs import Job
from labkit.course.testrun.report import Report

# A skip with this at its start stays one: the machine, not the installation, lacks something.
MACHINE_CANNOT = "this machine cannot: "
UNSTEADY_MAX = 3  #: more tests than these that failed first and passed alone fail the run
_SELECTED_NOTHING = (0, 5)  # pytest's exit codes where no test was chosen


@dataclass
class Result:
    """What one lane did. `complaints` are failures, one line each."""

    lane: str
    passed: int = 0
    failed: int = 0
    skips: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    unsteady: list[str] = field(default_factory=list)  #: tests that failed first, and passed alone
    left: int = 0  #: tests that only the long run has
    seconds: float = 0.0  #: of all its jobs, one after the other

    @property
    def skipped(self) -> int:
        return self.skips.total()


@dataclass(frozen=True)
class Done:
    """How a job ended."""

    job: Job
    code: int
    report: Report
    seconds: float
    log: Path
    failures: dict[str, str]  #: its failed tests, each with why
    complaint: str = ""  #: how the job itself, and not one of its tests, failed; one line

    @property
    def again(self) -> list[str]:
        """The tests to run once more: those that failed, and those that an early end has kept from running."""
        return [*self.failures, *self.report.not_run]


def done(job: Job, code: int, report: Report, seconds: float, log: Path, strict: bool) -> Done:
    """What became of a job of tests. With `strict`, an avoidable skip is a failure."""
    failed = {}
    for case in report.cases.values():
        if case.outcome == "failed":
            failed[case.test] = case.reason
        elif case.outcome == "skipped" and strict and not case.reason.startswith(MACHINE_CANNOT):
            failed[case.test] = f"was skipped: {case.reason}"
    complaint = ""
    if report.not_run or (code not in _SELECTED_NOTHING and not failed):
        at = f" at {report.under_way}" if report.under_way else ""
        left = f"; {len(report.not_run)} tests had not run" if report.not_run else ""
        complaint = f"pytest ended with exit code {code}{at}{left}"
    return Done(job, code, report, seconds, log, failed, complaint)


def count(result: Result, first: Done, second: Mapping[str, Done]) -> None:
    """Add what one job did to its lane's result; `second` has the second run of each test that was run again."""
    result.seconds += first.seconds
    result.left += first.report.left
    if not first.job.python:
        result.passed, result.failed = result.passed + (not first.complaint), result.failed + bool(first.complaint)
        result.complaints += [first.complaint] if first.complaint else []
        return
    for test in dict.fromkeys([*first.report.chosen, *first.report.cases]):
        last = second.get(test, first)
        case = last.report.cases.get(test)
        if case is None or test in last.failures:
            result.failed += 1
            result.complaints.append(f"{test}: {last.failures.get(test) or 'did not end: ' + last.complaint}")
        elif case.outcome == "skipped":
            result.skips[case.reason] += 1
        else:
            result.passed += 1
            if test in first.failures or test == first.report.under_way:
                result.unsteady.append(f"{test}: {first.failures.get(test) or first.complaint}")
    if first.complaint and not first.report.not_run:
        result.failed += 1
        result.complaints.append(f"{first.job.name}: {first.complaint}")


def closing_line(results: Sequence[Result]) -> str:
    passed, failed, skipped = (
        sum(getattr(result, what) for result in results) for what in ("passed", "failed", "skipped")
    )
    return f"{passed} passed, {failed} failed, {skipped} skipped"


def summary(results: Sequence[Result]) -> Table:
    table = Table("lane", "passed", "failed", "skipped", "left to the long run", "seconds of all jobs")
    for result in results:
        failed = f"[red]{result.failed}[/]" if result.failed else "0"
        left = str(result.left) if result.left else ""
        table.add_row(result.lane, str(result.passed), failed, str(result.skipped), left, f"{result.seconds:.0f}")
    return table
