"""Skips that nobody sees are defects: LABKIT_NO_SKIPS=1 makes each a failure, but for what the machine cannot do."""

import os
import signal
from collections.abc import Generator

import pytest

from tests.requirements import MACHINE_CANNOT

# A shell that runs the tests in the background has SIGINT ignored in them and in all they start: no test could see
# what Ctrl-C does.
signal.signal(signal.SIGINT, signal.default_int_handler)

NO_SKIPS = os.environ.get("LABKIT_NO_SKIPS") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if NO_SKIPS and report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(MACHINE_CANNOT):
            report.outcome = "failed"
            report.longrepr = f"skipped, which this run does not allow: {reason}"
