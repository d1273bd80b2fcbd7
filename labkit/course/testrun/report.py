"""What pytest says of its tests while it runs them: a plugin that writes a line of JSON for each step, and its reader.

Unlike a JUnit report, which is written at the end, it tells at every moment which test is under way. So a run that is
killed, or hangs, names the test it was at. Called as `pytest -p labkit.course.testrun.report`, with LABKIT_TEST_REPORT
naming the file.

The lines: {"chosen": [test, ...], "left": number of tests that only the long run has}, {"begun": test},
{"ended": test, "outcome": "passed" | "failed" | "skipped", "reason": text, "seconds": number}.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPORT = "LABKIT_TEST_REPORT"
LONG = "LABKIT_TEST_LONG"
_WORST = {"passed": 0, "skipped": 1, "failed": 2}


@dataclass(frozen=True)
class Case:
    """How one test ended. `reason` says why it was skipped, or how it failed, in one line."""

    test: str
    outcome: str
    reason: str
    seconds: float


@dataclass
class Report:
    """What a run of pytest has said so far."""

    chosen: list[str] = field(default_factory=list)
    left: int = 0  #: tests that were left to the long run
    cases: dict[str, Case] = field(default_factory=dict)
    under_way: str = ""  #: the test that had begun and not ended

    @property
    def not_run(self) -> list[str]:
        """The tests that were chosen and have not ended."""
        return [test for test in self.chosen if test not in self.cases]


def read(path: Path) -> Report:
    """Read a report, whole or cut short; an absent one is empty."""
    report = Report()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return report
    for line in lines:
        try:
            said: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # cut off in the middle
        if "chosen" in said:
            report.chosen, report.left = said["chosen"], said["left"]
        elif "begun" in said:
            report.under_way = said["begun"]
        elif "ended" in said:
            test = said["ended"]
            report.cases[test] = Case(test, said["outcome"], said["reason"], said["seconds"])
            report.under_way = ""
    return report


# --- the plugin ------------------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    if path := os.environ.get(REPORT):
        config.pluginmanager.register(_Writer(Path(path)), "labkit-test-report")


class _Writer:
    def __init__(self, path: Path) -> None:
        self._path, self._left = path, 0
        self._collected: list[tuple[str, str]] = []  # collection errors: where, and why

    def _write(self, **said: object) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(said) + "\n")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        if not os.environ.get(LONG):
            long = [item for item in items if item.get_closest_marker("long")]
            items[:] = [item for item in items if not item.get_closest_marker("long")]
            config.hook.pytest_deselected(items=long)
            self._left = len(long)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._ended(report.nodeid or str(report.fspath), "failed", _last_line(report), 0.0)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write(chosen=[item.nodeid for item in session.items], left=self._left)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._write(begun=item.nodeid)
        self._outcome, self._reason = "passed", ""
        begun = time.monotonic()
        try:
            return (yield)
        finally:
            self._ended(item.nodeid, self._outcome, self._reason, time.monotonic() - begun)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if _WORST[report.outcome] > _WORST[self._outcome]:
            self._outcome = report.outcome
            self._reason = _last_line(report)

    def _ended(self, test: str, outcome: str, reason: str, seconds: float) -> None:
        self._write(ended=test, outcome=outcome, reason=reason, seconds=round(seconds, 3))


def _last_line(report: pytest.TestReport | pytest.CollectReport) -> str:
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ").strip()
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr or "")
    lines = text.strip().splitlines()
    return lines[0] if lines else ""
